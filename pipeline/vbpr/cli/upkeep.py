"""`vbpr update` and `forget`: a model file that is changed without a training."""

from pathlib import Path
from typing import Annotated

import typer

from ..base.errors import VbprError, counted, some
from .output import tell_next


def update(
    model: Annotated[Path, typer.Argument(help="Model file; it is replaced in one step")],
    interactions: Annotated[Path, typer.Option(help="Table of what was bought since: user_id, item_id")],
    features: Annotated[
        list[Path] | None,
        typer.Option(help="Feature file with the new items; may repeat [default: those that the model records]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the new model goes [default: in place of MODEL]")] = None,
) -> None:
    """Take in what was bought since the training. New purchases, users and items, in seconds."""
    from ..answers.index_file import index_path
    from ..training.update.update import update as run

    done = run(model, interactions, features or [], out)
    print(f"{done.path}: {counted(done.pairs, 'new purchase')}, {done.seconds:.1f} s")
    for what, ids in (("user", done.users), ("item", done.items)):
        if ids:
            print(f"{counted(len(ids), f'new {what}')} ({some(ids)})")
    if done.known:
        print(f"known before, left as they were: {counted(done.known, 'purchase')}")
    if done.blind:
        items = counted(len(done.blind), "new item")
        print(f"{items} without features, placed by their buyers alone ({some(done.blind)})")
    if index_path(done.path).exists():
        print(f"{index_path(done.path)} was made before; run vbpr index {done.path} again or delete it")
    tell_next("recommend", done.path, "--all", "--out", "everyone.parquet")


def forget(
    model: Annotated[Path, typer.Argument(help="Model file; it is replaced in one step")],
    user: Annotated[list[str] | None, typer.Option(help="User id; may repeat")] = None,
    users: Annotated[Path | None, typer.Option(help="File of user ids, one a line")] = None,
) -> None:
    """Delete customers from a model file. Their tastes, what they took and their ids."""
    from ..answers.filters import read_ids
    from ..answers.forget import forget as run
    from ..answers.index_file import index_path

    if bool(user) == (users is not None):
        raise VbprError("give --user ID or --users FILE")
    done = run(model, user or read_ids(users or Path()))
    print(
        f"{model}: {counted(done.users, 'user')} forgotten, {counted(done.purchases, 'purchase')}; "
        f"{counted(done.left, 'user')} left"
    )
    print(
        "lists, reports, copies and the data set's own interactions have them still, and the next training learns them"
    )
    if index_path(model).exists():
        print(f"{index_path(model)} was made before; run vbpr index {model} again or delete it")


__all__ = ["forget", "update"]
