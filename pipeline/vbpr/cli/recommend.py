"""`vbpr recommend`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import VbprError, counted
from .answers import check_place, refuse_weights, show
from .options import (
    Allowed,
    Category,
    Cluster,
    Column,
    Data,
    Exclude,
    Fallback,
    Grid,
    HeldOut,
    Json,
    New,
    OnePer,
    Since,
    Weights,
    Wide,
)
from .output import tells_json

if TYPE_CHECKING:
    from ..answers.answer import Written


@tells_json
def recommend(
    model: Annotated[Path, typer.Argument(help="Model file")],
    user: Annotated[str | None, typer.Option(help="User id")] = None,
    users: Annotated[Path | None, typer.Option(help="File of user ids, one a line; needs --out")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every user; needs --out")] = False,
    liked: Annotated[
        list[str] | None, typer.Option(help="Instead of a user: an item that someone unknown likes; may repeat")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="Instead of a user: a photo of what someone unknown likes; may repeat")
    ] = None,
    anyone: Annotated[bool, typer.Option("--anyone", help="Instead of a user: bestsellers")] = False,
    since: Since = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many")] = 10,
    category: Category = None,
    allowed: Allowed = None,
    one_per: OnePer = None,
    seen: Annotated[bool, typer.Option("--seen", help="Allow items that the user already has")] = False,
    held_out: HeldOut = None,
    diversity: Annotated[float, typer.Option(min=0, max=1, help="0: by score; towards 1: unlike each other")] = 0.0,
    new: New = 0,
    fallback: Fallback = None,
    exclude: Exclude = None,
    column: Column = None,
    wide: Wide = False,
    out: Annotated[Path | None, typer.Option(help="Parquet or CSV file for --users and --all")] = None,
    cluster: Cluster = None,
    data: Data = None,
    weights: Weights = None,
    json_out: Json = None,
    grid: Grid = None,
) -> Any:
    """The items that a user will like best. For one user, many, someone unknown or anyone; without those they have."""
    if sum([user is not None, users is not None, everyone, bool(liked or image), anyone]) != 1:
        raise VbprError("give one of --user ID, --users FILE, --all, --liked ID and --image PHOTO, or --anyone")
    many = users is not None or everyone
    given: dict[str, Any] = {
        "--diversity": diversity,
        "--seen": seen,
        "--held-out": held_out,
        "--new": new,
        "--fallback": fallback,
    }
    given |= {"--since": since, "--exclude": exclude, "--column": column, "--wide": wide, "--grid": grid}
    given |= {"--json": json_out, "--out": out, "--cluster": cluster}
    refuse_idle(given, "many" if many else "anyone" if anyone else "user" if user is not None else "unknown")
    refuse_weights(weights, image)
    check_place(grid)
    filters: dict[str, Any] = {"category": category, "allowed": allowed, "one_per": one_per, "data": data}
    if user is not None and not new and not fallback:
        from ..answers.for_one import recommend_one

        of_one = {"seen": seen, "held_out": held_out, "diversity": diversity, **filters}
        if (answer := recommend_one(model, user, k, **of_one)) is not None:
            return show(answer, grid, None)
    from ..answers import recommend as answers

    if many:
        if out is None:
            raise VbprError("--users and --all write a table; give --out NAME.parquet or NAME.csv")
        lists: dict[str, Any] = {"seen": seen, "held_out": held_out, "new": new, "fallback": bool(fallback)}
        lists |= {"since": since, "exclude": exclude, "columns": column or [], "wide": wide, "cluster": cluster}
        print_written(answers.recommend_to_many(model, out, users, k, **lists, **filters), out)
        return None
    if anyone:
        return show(answers.for_anyone(model, k, since=since, **filters), grid, None)
    taste: dict[str, Any] = {"liked": liked or [], "images": image or [], "weights": weights, "diversity": diversity}
    own: dict[str, Any] = {"seen": seen, "held_out": held_out, "new": new, "fallback": bool(fallback)}
    return show(answers.recommend(model, user, k, **taste, **own, **filters), grid, image)


def print_written(done: "Written", out: Path) -> None:
    """How many lists there are, how fast they came, of whom they are, and how much of them nobody took in training."""
    rate = done.queries / max(done.seconds, 1e-9)
    print(f"{out}: {counted(done.rows, 'row')} for {counted(done.queries, 'user')}, {rate:,.0f} users/s")
    if done.fallback:
        print(f"bestsellers for {counted(done.fallback, 'user')} whom the model does not know")
    if done.of:
        more = "" if done.unseen else "; --new 2 gives them two places of each list"
        print(
            f"items that nobody took in training: {done.of:,} in the catalogue, with {done.unseen:,} of "
            f"{done.listed:,} places{more}"
        )


FOR = {  # whom an option is for: many users, one, someone unknown, anyone
    "--diversity": ("user", "unknown"),
    "--seen": ("many", "user"),
    "--held-out": ("many", "user"),
    "--new": ("many", "user"),
    "--fallback": ("many", "user", "unknown"),
    "--since": ("many", "anyone"),
    "--exclude": ("many",),
    "--column": ("many",),
    "--wide": ("many",),
    "--grid": ("user", "unknown", "anyone"),
    "--json": ("user", "unknown", "anyone"),
    "--out": ("many",),
    "--cluster": ("many",),
}
CALLED = {"many": "--users and --all", "user": "--user", "unknown": "--liked and --image", "anyone": "--anyone"}


def refuse_idle(given: dict[str, Any], whom: str) -> None:
    """Refuse options that would do nothing, or that do not go together.

    Args:
        given: what was given of FOR. whom: a key of CALLED.
    """
    for option, value in given.items():
        if value and whom not in FOR[option]:
            others = ", ".join(CALLED[name] for name in FOR[option])
            raise VbprError(f"{option} is for {others}; leave it out with {CALLED[whom]}")
    if given["--held-out"] and given["--seen"]:
        raise VbprError("--held-out is for lists without what the user has; leave it out, or --seen")
    if given["--new"] and given["--diversity"]:
        raise VbprError("--diversity reorders by looks, and --new by purchases; leave one out")
    if given["--fallback"] not in (None, "popularity"):
        raise VbprError(f"--fallback {given['--fallback']} is not known; there is popularity")
    if given["--since"] and whom == "many" and not given["--fallback"]:
        raise VbprError("--since is for the bestsellers of --fallback popularity; give that as well")


__all__ = ["recommend"]
