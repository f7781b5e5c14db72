"""Options of commands: those that several have, and those that a stage declares."""

import functools
import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..base.options import Option
from ..executors.options import CLUSTER
from ..training.config import OPTIONS as TRAINING


def takes(into: str, options: Iterable[Option]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A command whose parameter `into`, a dictionary of these options' values by name, is an option each for people.

    They stand where `into` stands. A path becomes text, as it is kept in files.
    """
    named = {option.flag.strip("-").replace("-", "_"): option for option in options}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**values: Any) -> Any:
            given = {option.name: values.pop(name) for name, option in named.items()}
            return command(**values, **{into: {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}})

        signature = inspect.signature(command)
        parameters = [
            new
            for old in signature.parameters.values()
            for new in ([shown(name, option) for name, option in named.items()] if old.name == into else [old])
        ]
        vars(run)["__signature__"] = signature.replace(parameters=parameters)
        return run

    return decorate


def shown(name: str, option: Option) -> inspect.Parameter:
    """An option as typer reads it."""
    bounds: dict[str, Any] = {"min": option.least, "max": option.most} if option.ranged else {}
    default = typer.Option(option.default, option.flag, help=option.help, **bounds)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option.type)


def optional(option: Option, **changes: Any) -> Option:
    """An option that may be left out: None, and what it then is depends on others."""
    return replace(option, **{"type": option.type | None, "default": None, **changes})


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def threaded(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with `--threads`, unless it has one of its own. The libraries look at it when they are imported, which
    is inside the command."""
    signature = inspect.signature(command)
    if "threads" in signature.parameters:
        return command

    @functools.wraps(command)
    def run(*, threads: int | None = None, **values: Any) -> Any:
        if threads is not None:
            os.environ.update(dict.fromkeys(THREADS, str(threads)))
        return command(**values)

    option = typer.Option("--threads", min=1, max=1024, help="Threads of the processor [default: one a core]")
    new = inspect.Parameter(
        "threads", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[int | None, option]
    )
    vars(run)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), new])
    return run


Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Folder with interactions.csv and images/, or `sample` "
        "[default: $VBPR_DATA, else what the file records, else sample]",
    ),
]
Device = Annotated[str, typer.Option("--device", help=TRAINING["device"].help)]
Cluster = Annotated[str | None, typer.Option("--cluster", help=CLUSTER.help)]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON; - for standard output")]
Grid = Annotated[Path | None, typer.Option("--grid", help="Draw the pictures into this PNG, JPEG or WebP file")]
Weights = Annotated[Path | None, typer.Option("--weights", help=TRAINING["network_weights"].help)]
HowToSplit = Annotated[
    str, typer.Option("--split", help="auto, random, time, global-time, file, or none: train on all")
]
SplitSeed = Annotated[int, typer.Option("--split-seed", min=0, max=2**63 - 1, help="Seed of a random split")]
MinInteractions = Annotated[
    int, typer.Option("--min-interactions", min=3, help="random, time: users with fewer items are left out")
]
KCore = Annotated[int, typer.Option("--k-core", min=0, help="Keep only users and items with this many interactions")]
Where = Annotated[
    str | None, typer.Option(help="Only rows of the interactions like this: \"quantity > 0 and country == 'DE'\"")
]
MinRating = Annotated[float | None, typer.Option(help="Only rows of the interactions with at least this rating")]
Category = Annotated[str | None, typer.Option(help="Only items of this category (a column of the data set's items)")]
Allowed = Annotated[Path | None, typer.Option(help="Only items in this file of ids, one a line")]
OnePer = Annotated[
    str | None, typer.Option(help="Column of the data set's items, as product: one item of each, none of those taken")
]
HeldOut = Annotated[
    str | None,
    typer.Option(help="Allow these held-out items, as for a list to be measured elsewhere: test, validation or all"),
]
Since = Annotated[
    str | None, typer.Option(help="Bestsellers of so long before the data set's last event, as 12h, 30d or 4w")
]
Fallback = Annotated[
    str | None, typer.Option(help="popularity: bestsellers for whom the model does not know, and a column tells so")
]
New = Annotated[int, typer.Option(min=0, help="At least so many of the list are items that nobody took in training")]
Exclude = Annotated[
    Path | None, typer.Option(help="Table of user_id and item_id: what a user must not get, for --users and --all")
]
Column = Annotated[
    list[str] | None, typer.Option(help="Column of the data set's items, as title, for the table; may repeat")
]
Wide = Annotated[bool, typer.Option("--wide", help="The table has one row a user: item_1, score_1, item_2, ...")]

__all__ = [
    "Allowed",
    "Category",
    "Cluster",
    "Column",
    "Data",
    "Device",
    "Exclude",
    "Fallback",
    "Grid",
    "HeldOut",
    "HowToSplit",
    "Json",
    "KCore",
    "MinInteractions",
    "MinRating",
    "New",
    "OnePer",
    "Since",
    "SplitSeed",
    "Weights",
    "Where",
    "Wide",
    "optional",
    "takes",
    "threaded",
]
