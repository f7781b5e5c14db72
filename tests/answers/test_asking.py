"""Every command of docs/asking.md does what it says, on a small catalogue with the ids that stand for ID and ITEM."""

import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from commands import shown
from conftest import ROOT
from small import draw, made

COMMANDS = list(shown(ROOT / "docs" / "asking.md"))
IDS = {"--user ID": "--user user/03", "--unseen-by USER": "--unseen-by user/03", "ITEM": "item-03", "ID": "item-06"}
IDS |= {"Dress": "red", "image": "category", "product": "category"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asking")
    (folder / "artifacts").mkdir()
    for name in ("h5", "model.h5"):
        shutil.copy(made() / f"small.{name}", folder / "artifacts" / f"inc.{name}")
    for name in ("photo", "front", "back"):
        Image.open(made() / "data" / "images" / "item-02.png").save(folder / f"{name}.jpg")
    (folder / "customers.txt").write_text("user/00\nnobody\n")
    (folder / "returned.csv").write_text("user_id,item_id\nuser/00,item-01\n")
    (folder / "users.txt").write_text("user/00\nuser/01\n")
    (folder / "ids.txt").write_text("item-00\nitem-01\n")
    (folder / "new-images").mkdir()
    draw(folder / "new-images" / "fresh.png", "green", np.random.default_rng(5))
    return folder


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words) for words in COMMANDS])
def test_a_command_of_the_page_runs(words, place, cli, monkeypatch):
    monkeypatch.chdir(place)
    if words[0] == "serve":
        uvicorn = pytest.importorskip("uvicorn", reason="the serve extra is not installed")
        monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: print("served", len(sockets)))
        words = [*words, "--port", "0"]
    line = " ".join(words)
    for written, real in IDS.items():
        line = re.sub(rf"(?<!\S){written}(?!\S)", real, line)
    code, out, err = cli(*line.split())
    assert code == 0, out + err
    for option in ("--out", "--grid", "--json"):
        if option in words:
            assert (place / words[words.index(option) + 1]).stat().st_size > 0
    wanted = {"index": "exact search", "report": "inc.model.html", "serve": "served 1", "add-items": "1 item added"}
    assert wanted.get(words[0], "") in out


def test_the_page_shows_every_command_that_asks():
    assert {words[0] for words in COMMANDS} == {
        "recommend",
        "explain",
        "similar",
        "index",
        "add-items",
        "report",
        "serve",
    }


def test_allowed_ids_that_are_none_are_told(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "some.txt").write_text("item-00\nitem-01\nnosuch\n")
    code, text, said = cli("recommend", "artifacts/inc.model.h5", "--user", "user/03", "--allowed", "some.txt")
    assert code == 0 and "item-00" in text
    assert "some.txt names items that are not in this model: 1 (nosuch)" in " ".join(said.split())


@pytest.mark.parametrize(
    ("command", "option", "names", "column"),
    [
        ("recommend", "--users", ["user/03", "user/01"], "user_id"),
        ("similar", "--items", ["item-02", "item-00"], "query"),
    ],
)
def test_unknown_ids_in_a_list_do_not_cost_the_others_their_answers(
    cli, place, monkeypatch, command, option, names, column
):
    monkeypatch.chdir(place)
    (place / "list.txt").write_text("\n".join([names[0], "ghost", *names, "other"]))
    code, _, said = cli(command, "artifacts/inc.model.h5", option, "list.txt", "-k", 2, "--out", "some.parquet")
    assert code == 0 and "not in this model: 2 (ghost, other)" in " ".join(said.split())
    assert pq.read_table("some.parquet")[column].to_pylist() == [name for name in names for _ in range(2)]  # each once
    (place / "list.txt").write_text("ghost\n")
    code, _, said = cli(command, "artifacts/inc.model.h5", option, "list.txt", "--out", "some.parquet")
    assert code == 2 and "none of the" in said and "list.txt" in said and "ghost" in said
