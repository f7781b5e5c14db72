"""Training from files: alignment by id, faults, and a killed run that resumes to the same model."""

import os
import signal
import time

import numpy as np
import pytest

from conftest import board_items, board_pairs, write_catalogue
from vbpr import Dataset, Factors, FeatureStore, VbprError, configure, evaluate, train
from vbpr.train import align, prepare

SMALL = {"dim": 8, "device": "cpu", "precision": "float32", "batch": 64, "shared_negatives": 32}


def run(folder, features, out, model="visual", **options):
    return train(Dataset.resolve(folder), features, configure(model, **SMALL | options), out)


def test_the_checkerboard_is_learnt_from_pixels(board_model):
    """Images through a random network, then the ranker: the whole chain."""
    summary = evaluate(Factors.load(board_model)).summary()
    assert summary["all"]["auc"] > 0.9 and "RANDOM weights" in summary["model"]


def test_features_are_aligned_by_id(board_features, tmp_path):
    store = FeatureStore(board_features)
    wanted = np.array(["zebra", "red-03", "blue-new", "red-00"])
    aligned = align([store, store], wanted)
    assert aligned.known.tolist() == [False, True, True, True]
    np.testing.assert_array_equal(aligned.matrix[1:, : store.dim], store.rows(wanted[1:]))
    np.testing.assert_array_equal(aligned.matrix[1:, store.dim :], store.rows(wanted[1:]))
    assert not aligned.matrix[0].any()


def test_two_feature_files_are_put_side_by_side(board, board_features, tmp_path):
    done = run(board, [board_features, board_features], tmp_path / "m.h5", epochs=2)
    assert done.factors.head.mean.shape == (2 * FeatureStore(board_features).dim,)
    assert len(done.factors.about["features"]) == 2


def test_items_without_an_image_are_counted_and_named(board_features, tmp_path):
    pairs = [*board_pairs(), *((f"A{u:02}", "ghost") for u in range(8))]
    folder = write_catalogue(tmp_path / "ghost", board_items(), pairs)
    done = run(folder, [board_features], tmp_path / "m.h5", epochs=1)
    assert done.without_features == ["ghost"] and done.factors.about["without_features"] == 1


def test_items_without_interactions_are_in_the_catalogue(board, board_features):
    split = prepare(Dataset.resolve(board), [FeatureStore(board_features)])
    assert {"red-new", "blue-new"} <= set(split.item_ids) and (split.item_counts == 0).sum() >= 2


def test_features_of_another_data_set_are_refused(board_features, tmp_path):
    pairs = [(u, i.replace("-", "_")) for u, i in board_pairs()]
    images = {name.replace("-", "_"): data for name, data in board_items().items()}
    folder = write_catalogue(tmp_path / "other", images, pairs)
    with pytest.raises(VbprError, match="features for only 0 of the 20 items"):
        run(folder, [board_features], tmp_path / "m.h5")


def test_features_that_lack_items_are_refused(board_features, tmp_path):
    images = board_items() | {"green-1": board_items()["red-00"]}
    folder = write_catalogue(tmp_path / "more", images, [*board_pairs(), ("A00", "green-1")])
    with pytest.raises(VbprError, match=r"lacks 1 of 23 items \(first: green-1\); run vbpr extract again"):
        run(folder, [board_features], tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("options", "words"), [({"dim": 5000}, "--dim 5000 is more than"), ({"model": "knn"}, "needs --features")]
)
def test_impossible_wishes_are_refused(board, board_features, tmp_path, options, words):
    features = [] if "model" in options else [board_features]
    with pytest.raises(VbprError, match=words):
        run(board, features, tmp_path / "m.h5", **options)


def same(a, b):
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("users", "items", "bias"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["visual", "vbpr"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_stopped_run_resumes_to_the_same_model(board, board_features, tmp_path, model, how):
    options = {"epochs": 50, "patience": 0, "checkpoint_minutes": 0.0}
    whole = run(board, [board_features], tmp_path / "whole.h5", model, **options).factors
    out = tmp_path / "m.h5"
    checkpoint = tmp_path / (".m.h5.checkpoint" + ("-visual" if model == "vbpr" else ""))  # vbpr trains part by part
    pid = os.fork()
    if not pid:
        code = 1
        try:
            run(board, [board_features], out, model, **options)
            code = 0
        except VbprError as error:
            code = error.code
        finally:
            os._exit(code)
    until = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(pid, how)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert checkpoint.exists() and not out.exists()
    again = run(board, [board_features], out, model, **options).factors
    assert same(whole, again) and again.about["curve"] == whole.about["curve"]
    assert not list(tmp_path.glob(".m.h5.checkpoint*"))


def test_a_checkpoint_of_another_run_is_ignored(board, board_features, tmp_path):
    out, checkpoint = tmp_path / "m.h5", tmp_path / ".m.h5.checkpoint"
    plain = run(board, [board_features], out, epochs=2).factors
    for content in (b"", b"nonsense"):
        checkpoint.write_bytes(content)
        assert same(plain, run(board, [board_features], out, epochs=2).factors)
