"""A model in a file of one's own: trained, tuned and compared like any other, and answering without its file."""

import json

import numpy as np
import pytest

from conftest import ROOT
from own_code import forget, written
from vbpr import MODELS, Factors, VbprError, configure
from vbpr.training.models import named

TEXT = """
import numpy as np
import vbpr

open(__file__ + ".runs", "a").write("x")


class Mean:
    visual = True
    reads = {"dim", "epochs", "seed"}
    defaults = {"dim": 4, "epochs": 3}
    space = {"dim": (1, 8), "epochs": [2, 3]}
    presets = {"thin": {"dim": 2}}

    def __init__(self, config, checkpoint=None):
        self.config = config

    def fit(self, split, features, images=None):
        f = features.standardised(np.arange(len(split.item_ids))).numpy()[:, : self.config.dim]
        f = f + 1e-3 * np.random.default_rng(self.config.seed).normal(size=f.shape)
        for epoch in range(self.config.epochs):
            vbpr.report_epoch(epoch + 1, loss=1.0, auc=0.5)
        return vbpr.factors_of(split, split.train @ f, f)


class Fails(Mean):
    def fit(self, split, features, images=None):
        return self.deeper(split)

    def deeper(self, split):
        return np.eye(3) @ split.train[:2]
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    return written(tmp_path, monkeypatch, "mine.py", TEXT)


def test_it_is_trained_by_name_and_answers_without_its_file(mine, board, board_features, cli, tmp_path, monkeypatch):
    words = ("--features", board_features, "--data", board, "--out", "m.h5", "--device", "cpu", "--dim", "3")
    code, out, error = cli("train", "--model", "mine.py:Mean", *words)
    assert code == 0 and "m.h5: Mean of mine.py (RANDOM weights: test_resnet) on" in out, error
    made = Factors.load("m.h5")
    digest = named("mine.py:Mean").own.digest
    assert made.about["own"] == {"name": "Mean", "from": "mine.py", "digest": digest}
    assert made.about["model"] == "mine.py:Mean" and made.about["config"]["dim"] == 3 == made.items.shape[1]
    mine.write_text("raise SystemExit('a file that is merely named must not be run')")
    forget(monkeypatch)
    listed = [cli("recommend", "m.h5", "--user", "A00", "-k", "3"), cli("info", "m.h5"), cli("evaluate", "m.h5")]
    listed += [cli("similar", "m.h5", "--item", "red-00"), cli("explain", "m.h5", "--user", "A00", "--item", "red-00")]
    listed += [cli("index", "m.h5"), cli("report", "m.h5", "--out", "r.html", "--map-items", "0")]
    assert [code for code, _, _ in listed] == [0] * len(listed), listed
    assert digest in listed[1][1] and "mine.py" in listed[1][1]
    assert digest in (tmp_path / "r.html").read_text()
    (tmp_path / "new.csv").write_text("user_id,item_id\nA00,blue-01\n")
    code, _, error = cli("update", "m.h5", "--interactions", "new.csv")
    assert code == 0, error
    assert (tmp_path / "mine.py.runs").read_text() == "x"  # once, when it was trained


def test_a_file_that_only_names_it_runs_nothing(mine, board, board_features, refused, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"model": "mine.py:Mean", "dim": 2}))
    message = refused("train", "--config", "c.json", "--features", board_features, "--data", board)
    assert "say that its code shall run: --model mine.py:Mean" in message
    (tmp_path / "d.json").write_text(json.dumps({"model": "dvbpr", "network": "mine.py:Mean", "epochs": 1}))
    message = refused("train", "--config", "d.json", "--data", board, "--out", "d.h5")
    assert "a name in a file runs no code" in message
    with pytest.raises(KeyError):
        MODELS["mine.py:Mean"]
    assert not (tmp_path / "mine.py.runs").exists()
    assert configure("mine.py:Mean", file=tmp_path / "c.json").dim == 2
    assert (tmp_path / "mine.py.runs").exists()


def test_its_options_are_those_of_every_model(mine, refused):
    assert configure("mine.py:Mean").dim == 4 and configure("mine.py:Mean", "thin").dim == 2
    assert "mine.py:Mean" not in list(MODELS) and MODELS["mine.py:Mean"].space == {"dim": (1, 8), "epochs": [2, 3]}
    for words, said in (
        (("--model", "mine.py:Mean", "--lr", "1"), "--lr does nothing for --model mine.py:Mean, which has --dim"),
        (("--model", "mine.py:Mean", "--preset", "big"), "choose from default, report"),
        (("--model", "mine.py:Nothing"), "mine.py has no class called 'Nothing'; it has Mean, Fails"),
        (("--model", "none.py:Mean"), "none.py cannot be read"),
        (("--model", "mine.py"), "name what is in the file as well"),
        (("--model", "meen"), "or give FILE.py:NAME"),
    ):
        assert said in refused("train", *words), words


def test_a_fault_of_its_names_the_line(mine, board, board_features, refused, tmp_path):
    line = 1 + TEXT.split("\n").index("        return np.eye(3) @ split.train[:2]")
    words = ("--features", board_features, "--data", board, "--out", "m.h5")
    message = refused("train", "--model", "mine.py:Fails", *words)
    assert f"mine.py, line {line}, in deeper: ValueError" in message and "np.eye(3)" in message
    assert not (tmp_path / "m.h5").exists()


def test_it_is_tuned_and_its_configuration_trains_it(mine, board, board_features, cli, tmp_path):
    pytest.importorskip("optuna")
    words = ("--features", board_features, "--data", board)
    code, out, error = cli("tune", "--model", "mine.py:Mean", *words, "--trials", "3", "--out", "best.json")
    assert code == 0 and out.rstrip().endswith("--model mine.py:Mean --config best.json"), error
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["model"] == "mine.py:Mean" and 1 <= best["dim"] <= 8
    code, out, _ = cli("train", "--model", "mine.py:Mean", *words, "--config", "best.json", "--out", "m.h5")
    assert code == 0 and Factors.load("m.h5").about["config"]["dim"] == best["dim"]
    code, _, error = cli("tune", "--model", "mine.py:Fails", *words, "--trials", "1", "--out", "f.json")
    assert code == 2 and "in deeper: ValueError" in error


def test_it_stands_in_a_comparison_until_its_text_changes(mine, board, cli, tmp_path, monkeypatch):
    words = ("--models", "mine.py:Mean, test_resnet, popularity", "--data", board, "--random-weights", "--out", "c")
    code, out, error = cli("compare", *words)
    assert code == 0 and "mine.py:Mean" in out, error
    cells = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*.json") if "mine" in path.name}
    assert len(cells) == 1 and next(iter(cells)).startswith("mine.Mean.0.")

    def times():
        forget(monkeypatch)
        assert cli("compare", *words)[0] == 0
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("mine*.json")}

    assert times() == cells
    mine.write_text(TEXT + "\n# changed\n")
    assert times().keys() == cells.keys() and times() != cells


def test_what_it_returns_is_looked_at(mine, tmp_path):
    (tmp_path / "odd.py").write_text(
        TEXT + "\nclass Turned(Mean):\n    def fit(self, split, features, images=None):\n"
        "        import dataclasses\n        made = super().fit(split, features)\n"
        "        return dataclasses.replace(made, item_ids=made.item_ids[::-1])\n"
    )
    from vbpr.studies.check import check

    found = list(check("odd.py:Turned")[1])
    assert found[-1].state == "fault" and "fit returned other item_ids than the split has" in found[-1].words


def test_a_plug_in_is_a_model_by_its_name(mine, tmp_path, monkeypatch, cli, board, board_features):
    info = tmp_path / "shelf-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[vbpr.models]\nmy-mean = mine:Mean\nvisual = mine:Mean\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    words = ("--features", board_features, "--data", board, "--out", "m.h5")
    code, out, error = cli("train", "--model", "my-mean", *words)
    assert code == 0 and "my-mean of shelf 1.2" in out, error
    assert Factors.load("m.h5").about["own"]["from"] == "shelf 1.2"
    assert named("visual").own is None  # what vbpr has stays vbpr's
    with pytest.raises(VbprError, match=r"--model my-meen is not known \(did you mean my-mean\?\)"):
        configure("my-meen")
    forget(monkeypatch)
    assert np.array_equal(Factors.load("m.h5").recommend("A00", 1)[0], Factors.load("m.h5").recommend("A00", 1)[0])
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)


def test_the_template_is_the_one_that_the_page_names():
    page = (ROOT / "docs" / "own-model.md").read_text()
    assert "examples/my_models.py" in page and "my_models.py:TwoLayer" in page
