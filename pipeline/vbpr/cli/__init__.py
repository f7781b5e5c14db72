"""The command line: each command parses, calls one function, and prints. Uses every other folder, but imports it inside
the command that needs it, so that `--help` comes at once and without torch."""

from typing import Annotated

import typer

from .answers import add_items, explain, index, similar
from .doctor import doctor
from .exchange import export, import_features
from .faults import App
from .files import convert, info, pictures
from .options import threaded
from .own import check
from .pages import demo, report, serve
from .recommend import recommend
from .stages import evaluate, extract, train
from .studies import compare, tune
from .upkeep import forget, update

app = App(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
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
    explain,
    index,
    similar,
    add_items,
    update,
    forget,
    report,
    serve,
    info,
    pictures,
    convert,
    compare,
    demo,
    check,
    doctor,
    export,
):
    app.command()(threaded(command))
app.command("import")(threaded(import_features))  # a word of Python's

__all__ = ["app"]
