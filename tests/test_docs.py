"""The commands that the documents show are commands that exist, with options that exist."""

import pytest
import typer.main

from commands import shown
from conftest import ROOT
from vbpr.cli import app
from vbpr.training.configure import configure
from vbpr.training.models import MODELS

GROUP = typer.main.get_command(app)


DOCUMENTS = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if path.is_file()]
COMMANDS = [(path.name, words) for path in DOCUMENTS for words in shown(path)]


def check(words):
    if words and words[0].startswith("--"):
        GROUP.make_context("vbpr", list(words), resilient_parsing=True)
        return
    assert words and words[0] in GROUP.commands, f"no command {words[:1]}"
    if "--help" in words:
        return
    GROUP.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize(("document", "words"), COMMANDS, ids=[f"{d}: {' '.join(w)}" for d, w in COMMANDS])
def test_shown_commands_parse(document, words):
    check(words)


def test_the_readme_shows_the_two_commands():
    first = [words[0] for document, words in COMMANDS if document == "README.md" and words]
    assert {"extract", "train"} <= set(first)


@pytest.mark.parametrize("line", ["trian --features a.h5", "train --featuers a.h5", "recommend", "train --dim five"])
def test_the_check_itself_refuses_what_does_not_exist(line):
    with pytest.raises(Exception):  # noqa: B017
        check(line.split())


def test_the_table_of_options_has_the_defaults():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    lines = text[text.index("| option | |") :].split("\n\n")[0].splitlines()
    models = [cell.strip(" `") for cell in lines[0].split("|")[3:-1]]
    assert models == ["visual", "vbpr", "hybrid", "bprmf"]
    for line in lines[2:]:
        option, _, *values = [cell.strip(" `") for cell in line.split("|")[1:-1]]
        field = option.removeprefix("--").replace("-", "_")
        for model, value in zip(models, values, strict=True):
            own = getattr(configure(model), field)
            assert value == (
                "-" if field not in MODELS[model].reads else f"{own:g}" if isinstance(own, float) else str(own)
            )
