"""The command line: each command parses, calls one function, and prints. Uses every other folder, but imports it inside
the command that needs it, so that `--help` comes at once and without torch."""

from typing import Annotated

import typer

from .answers import add_items, index, recommend, similar
from .faults import App
from .files import convert, info
from .pages import demo, report, serve
from .stages import evaluate, extract, train
from .studies import compare, tune

app = App(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Visually-aware recommendation: images go through a frozen backbone once, then a ranker trains in seconds.",
    epilog="Start with `vbpr demo`. Errors exit with 2 and say what to do.",
)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"vbpr {installed('vbpr')}")
        raise typer.Exit


# In the order of `vbpr --help`.
for command in (
    extract,
    train,
    tune,
    evaluate,
    recommend,
    index,
    similar,
    add_items,
    report,
    serve,
    info,
    convert,
    compare,
    demo,
):
    app.command()(command)

__all__ = ["app"]
