"""The commands that the documents show are commands that exist, with options that exist, and these are as declared."""

import inspect
import re

import pytest
import typer.main

from commands import shown
from conftest import ROOT
from vbpr import extract
from vbpr.cli import app
from vbpr.extraction.config import AUTOENCODER, ENCODING
from vbpr.networks.cae_training import train_autoencoder
from vbpr.training.config import OPTIONS, fields_of
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


def test_the_readme_is_short_and_what_it_links_to_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    pictures = [ROOT / link for link in links if link.endswith(".jpg")]
    assert len(text.split()) < 900 and len(links) > 10 and len(pictures) == 1
    assert not [link for link in links if not (ROOT / link).is_file()]
    assert all(picture.stat().st_size < 300_000 for picture in pictures)


@pytest.mark.parametrize("line", ["trian --features a.h5", "train --featuers a.h5", "recommend", "train --dim five"])
def test_the_check_itself_refuses_what_does_not_exist(line):
    with pytest.raises(Exception):  # noqa: B017
        check(line.split())


def cell(model, field):
    """A model's own value of an option, as a file of options has it; a dash where the model does not look at it."""
    value = getattr(configure(model), field)
    if field not in MODELS[model].reads:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def table_of_options():
    """Every option of training as it is declared, with the defaults of each model that reads more than a seed."""
    models = [name for name, model in MODELS.items() if model.reads - {"seed"}]
    flags = {flag for parameter in GROUP.commands["train"].params for flag in parameter.opts}
    lines = [f"| option | | {' | '.join(f'`{name}`' for name in models)} |", "|---" * (len(models) + 2) + "|"]
    for name, declared in OPTIONS.items():
        if name not in ("model", "identity"):
            option = f"`{declared.flag}`" if declared.flag in flags else name
            lines.append(f"| {option} | {declared.help} | {' | '.join(cell(model, name) for model in models)} |")
    return "\n".join(lines)


def test_the_table_of_options_is_what_is_declared():
    assert table_of_options() in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_an_option_is_for_the_command_line_or_for_files_and_one_group_has_it():
    flags = {flag for parameter in GROUP.commands["train"].params for flag in parameter.opts}
    kept = {
        "item_bias",
        "visual_bias",
        "history",
        "history_factors",
        "joint",
        "unit",
        "identity",
    }  # in files and Python
    for name, declared in OPTIONS.items():
        assert declared.help and name in fields_of(declared.group)
        assert (declared.flag in flags) != (declared.file_only or name in kept), name
    for model in MODELS.values():
        assert set(model.defaults) <= set(OPTIONS) and model.reads <= set(OPTIONS)


def test_extract_has_the_defaults_that_are_declared():
    encoding, autoencoder = (inspect.signature(function).parameters for function in (extract, train_autoencoder))
    for options, function in ((ENCODING, encoding), (AUTOENCODER, autoencoder)):
        assert {o.name: o.default for o in options} == {o.name: function[o.name].default for o in options}
