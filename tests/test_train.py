"""Training from files: alignment by id, faults, and a killed run that resumes to the same model."""

import json
import os
import signal
import time

import numpy as np
import pytest

from conftest import TINY, board_items, board_pairs, write_catalogue
from vbpr import Dataset, Factors, FeatureStore, Interactions, VbprError, Visual, configure, evaluate, extract, train
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


@pytest.fixture(scope="module")
def two_files(tmp_path_factory):
    """A catalogue; the second of its two feature files lacks red-00, blue-00, and red-new, which nobody took."""
    folder = tmp_path_factory.mktemp("two")
    data = write_catalogue(folder / "data", board_items(), board_pairs())
    first, second = folder / "resnet.h5", folder / "vit.h5"
    extract(Dataset.resolve(data), TINY, first, random_weights=True, engine="torch", device="cpu")
    some = {name: image for name, image in board_items().items() if not name.endswith("-00") and name != "red-new"}
    part = write_catalogue(folder / "part", some, board_pairs())
    extract(Dataset.resolve(part), "test_vit", second, random_weights=True, engine="torch", device="cpu")
    (data / "images").rename(folder / "images")  # else the second file would be refused as unfinished
    return data, folder / "images", [first, second]


def test_two_backbones_go_through_every_command(two_files, cli, tmp_path):
    data, images, files = two_files
    model, photo = tmp_path / "m.h5", next(images.glob("*/blue-05.png"))
    options = [o for file in files for o in ("--features", file)]
    code, text, err = cli("train", *options, "--data", data, "--dim", 8, "--out", model)
    assert code == 0 and "3 items lack features and get the mean: blue-00, red-00, red-new" in text, err
    factors, widths = Factors.load(model), [FeatureStore(file).dim for file in files]
    assert factors.head.mean.shape == (sum(widths),)
    assert [f["backbone"] for f in factors.about["features"]] == [TINY, "test_vit"]
    code, text, err = cli("evaluate", model, "--json", tmp_path / "e.json")
    assert code == 0 and json.loads((tmp_path / "e.json").read_text())["all"]["auc"] > 0.8, err
    code, text, err = cli("similar", model, "--image", photo, "--json", tmp_path / "s.json")
    found = json.loads((tmp_path / "s.json").read_text())["items"]
    assert code == 0 and found[0]["item_id"] == "blue-05" and found[0]["cosine"] > 0.99, err
    code, text, err = cli("recommend", model, "--image", photo, "-k", 3)
    assert code == 0 and "blue" in text, err
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "azure.png").write_bytes(photo.read_bytes())
    code, text, err = cli("add-items", model, tmp_path / "new")
    assert code == 0, err
    grown = Factors.load(model)
    np.testing.assert_allclose(
        grown.items[grown.item_index("azure")], factors.items[factors.item_index("blue-05")], rtol=2e-2, atol=2e-3
    )
    code, text, err = cli("report", model, "--out", tmp_path / "r.html")
    assert code == 0 and "test_vit" in (tmp_path / "r.html").read_text(), err


def test_an_item_that_one_file_lacks_is_as_the_mean_item(two_files, tmp_path):
    data, _, files = two_files
    f = run(data, files, tmp_path / "m.h5", epochs=1).factors
    nobody = f.head.apply(np.zeros((1, len(f.head.mean)), np.float32))[0][0]
    for item in ("red-00", "blue-00"):
        np.testing.assert_allclose(f.items[f.item_index(item)], nobody, atol=1e-6)


def test_estimators_take_the_items_of_every_file(two_files):
    data, _, files = two_files
    events = Interactions.read(data / "interactions.csv")
    factors = Visual(**SMALL, epochs=1).fit(events, files[::-1])
    assert {"red-00", "red-new", "blue-new"} <= set(factors.item_ids)
