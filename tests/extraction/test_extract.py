"""Extraction: killed, stopped and run again, with bad images among the good."""

import json
import os
import signal
import time

import numpy as np
import pytest
import timm
import torch

from conftest import TINY, board_items, run_python
from vbpr import Dataset, FeatureStore, VbprError, extract
from vbpr.extraction.steps import encoded, in_steps
from vbpr.networks import timm_models
from vbpr.networks.prepare import Preprocessing

OPTIONS = {"random_weights": True, "engine": "torch", "device": "cpu"}


def run(folder, out, **options):
    return extract(Dataset.resolve(folder), TINY, out, **OPTIONS | options)


def test_features_are_of_their_own_image_whatever_the_batch_and_source(catalogue, tmp_path):
    a = run(catalogue(how="folder"), tmp_path / "a.h5", batch=1)
    b = run(catalogue(how="tar", name="tar"), tmp_path / "b.h5", batch=8, threads=3)
    assert a.items == a.written == 22 and not a.failures
    one, two = FeatureStore(a.path), FeatureStore(b.path)
    assert one.item_ids.tolist() == two.item_ids.tolist() == sorted(board_items())
    x, y = (np.asarray(s.features, np.float32) for s in (one, two))
    assert np.linalg.norm(x - y) / np.linalg.norm(x) < 1e-3
    order = np.linalg.norm(x[:, None] - y[None], axis=2).argmin(1)
    assert order.tolist() == list(range(22))  # and of no other image


class PlaceBound:
    """An engine whose features give away where in its batch an image stood."""

    batch, depth, dim = 4, 2, 1

    def start(self, pixels):
        assert len(pixels) <= self.batch
        return lambda: pixels.mean((1, 2, 3))[:, None] + 1000.0 * np.arange(len(pixels))[:, None]


class Written(dict):
    def write(self, rows, features):
        self.update(zip(rows.tolist(), features[:, 0].tolist(), strict=True))

    def fail(self, rows, reasons):
        self.update(zip(rows.tolist(), reasons, strict=True))


def test_an_image_has_the_same_place_in_its_batch_in_any_run(catalogue):
    """torch's convolutions differ in the last bit with the place, so a resumed run must not move an image."""
    folder = catalogue()
    next((folder / "images").glob("*/red-04.png")).write_bytes(b"\x89PNG broken")
    source = Dataset.resolve(folder).images()

    how = Preprocessing(32, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)

    def features(pending):
        encoder, store = PlaceBound(), Written()
        for done in encoded(source, encoder, how, in_steps(np.asarray(pending), encoder.batch), 2):
            store.write(done.rows, done.features)
            store.fail(done.failed, done.reasons)
        return store

    everything = features(range(22))
    assert len(everything) == 22
    some = [0, 4, 5, 8, 9, 12, 13, 18, 21]
    assert features(some) == {row: everything[row] for row in some}


def test_steps_are_consecutive_rows_where_all_are_there():
    def steps(rows, size):
        dealt = list(in_steps(np.asarray(rows), size))
        assert sorted(row for step, _ in dealt for row in step.tolist()) == sorted(rows)
        assert all(len(set(places)) == len(step) <= size and max(places) < size for step, places in dealt)
        return dealt

    assert [step.tolist() for step, _ in steps(range(10), 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    far = steps(range(1000, 1500), 2)  # more than one window
    assert len(far) == 250 and all((places == step % 2).all() for step, places in far)
    holes = [row for row in range(16, 512) if row % 50]  # as a run leaves them that was stopped
    assert all((places == step % 16).all() for step, places in steps(holes, 16))
    scattered = np.sort(np.random.default_rng(0).choice(9069, 91, replace=False)).tolist()
    assert len(steps(scattered, 16)) == 6 and len(steps(range(0, 256, 16), 16)) == 1
    assert not list(in_steps(np.arange(0), 16))


def test_provenance_says_what_made_it(board_features, board):
    about = FeatureStore(board_features).provenance
    assert about["weights"] == "random" and about["backbone"] == TINY and about["data"] == str(board.resolve())
    assert "160 px" in about["preprocessing"] and {"torch", "timm", "vbpr", "pillow"} <= about["versions"].keys()
    assert not about["simulated"]


# One import, many children: each is a process of its own that is killed at another moment.
KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
from vbpr import Dataset, extract, FeatureStore
import vbpr.networks.registry, vbpr.cli
data, out, how, kills = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
random.seed(0)

def child(path):
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            vbpr.cli.app(["extract", "--backbone", "BACKBONE", "--random-weights", "--engine", "torch",
                               "--device", "cpu", "--batch", "2", "--data", data, "--out", str(path)])
        except SystemExit as left:
            sys.stdout.flush()
            os._exit(left.code or 0)
    return pid

started = time.monotonic()
_, status = os.waitpid(child(out.with_name("whole.h5")), 0)
took = time.monotonic() - started
assert status == 0
seen, codes = [], []
for _ in range(kills):
    pid = child(out)
    if how == "INT":
        while not (out.exists() and (FeatureStore(out).state == 1).any()):
            time.sleep(0.002)
    else:
        time.sleep(random.uniform(0, took / 20))
    os.kill(pid, signal.SIGKILL if how == "KILL" else signal.SIGINT)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if out.exists():
        seen.append(int((FeatureStore(out).state == 1).sum()))
_, status = os.waitpid(child(out), 0)
assert status == 0
print("RESULT", json.dumps({"seen": seen, "codes": codes}))
""".replace("BACKBONE", TINY)


def result(process):
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.rsplit("RESULT", 1)[1])


@pytest.fixture
def many():
    """Sixty images."""
    made = list(board_items().values())
    return {f"i{n:02}": made[n % len(made)] for n in range(60)}


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_identical_file(catalogue, tmp_path, many):
    folder, out = catalogue(images=many, pairs=[("u", "i00")]), tmp_path / "a.h5"
    found = result(run_python("-c", KILLS, folder, out, "KILL", 6))
    assert -signal.SIGKILL in found["codes"]  # some died in the middle
    assert found["seen"] == sorted(found["seen"])  # no row that was done is ever lost
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not [p.name for p in tmp_path.iterdir() if p.suffix == ".lock"]


@pytest.mark.slow
def test_ctrl_c_finishes_the_batch_and_says_how_to_resume(catalogue, tmp_path, many):
    folder, out = catalogue(images=many, pairs=[("u", "i00")]), tmp_path / "a.h5"
    found = result(run_python("-c", KILLS, folder, out, "INT", 1))
    assert found["codes"] == [130]
    assert 0 < found["seen"][0] < 60 and found["seen"][0] % 2 == 0
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_stopping_is_a_flag_that_the_loop_asks_for():
    from vbpr.base.stopping import stop_signals

    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_largest_share_of_bad_images_is_allowed(catalogue, tmp_path):
    folder = catalogue()
    for name in "ab":
        (folder / "images" / f"{name}.jpg").write_bytes(b"<html>")
    assert len(run(folder, tmp_path / "f.h5", max_bad=2 / 24).failures) == 2
    with pytest.raises(VbprError, match=r"more than --max-bad 0\.08;"):
        run(folder, tmp_path / "f.h5", max_bad=0.08)
    with pytest.raises(VbprError, match="named like an image"):
        run(folder, tmp_path / "f.png")


def test_images_that_are_not_called_as_the_items_are_told_before_the_work(catalogue, tmp_path, cli, refused):
    images = {f"{name}_1": data for name, data in board_items().items()}
    data = catalogue(images=images)
    words = ("extract", "--backbone", TINY, "--random-weights", "--engine", "torch", "--data", data)
    message = refused(*words, "--out", tmp_path / "f.h5")
    assert "none of the 20 items in the interactions has an image" in message and "blue-00_1" in message
    assert not (tmp_path / "f.h5").exists()
    some = dict(list(board_items().items())[:8]) | images
    data = catalogue(images=some, name="some")
    code, _, said = cli(*words[:-1], data, "--out", tmp_path / "f.h5")
    assert code == 0 and "8 of the 20 items in the interactions have an image" in " ".join(said.split())


def test_whose_size_a_bare_name_takes_is_said_where_weights_are_given(catalogue, tmp_path, monkeypatch, capsys):
    """76 architectures of timm 1.0.31 have weights of several sizes; here the tiny one gets two."""
    torch.manual_seed(0)
    torch.save(timm.create_model(TINY).state_dict(), tmp_path / "w.pt")
    monkeypatch.setattr(timm_models, "tags_of", lambda _: {"r160_in1k": 160, "r384_in1k": 384})
    how = {"weights": tmp_path / "w.pt", "engine": "torch", "device": "cpu"}
    extract(Dataset.resolve(catalogue()), TINY, tmp_path / "f.h5", **how)
    said = " ".join(capsys.readouterr().err.split())
    assert f"note: {TINY} is taken for {TINY}.r160_in1k, of 160 px" in said and "r384_in1k (384 px)" in said


def test_several_feature_files_are_looked_at_together(board, board_features, tmp_path, cli):
    """One may hold a few items alone, as the backs of some; what none of them has counts."""
    few = list(board_items())[:3]
    (tmp_path / "backs").mkdir()
    for name in few:
        (tmp_path / "backs" / f"{name}.png").write_bytes(board_items()[name])
    code, _, err = cli(
        "extract", "--backbone", TINY, "--random-weights", "--data", tmp_path / "backs", "--out", tmp_path / "b.h5"
    )
    assert code == 0, err
    code, _, err = cli(
        "train",
        "--features",
        board_features,
        "--features",
        tmp_path / "b.h5",
        "--dim",
        4,
        "--epochs",
        1,
        "--out",
        tmp_path / "m.h5",
    )
    assert code == 0, err
