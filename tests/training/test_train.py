"""Training from files: alignment by id, faults, and a killed run that resumes to the same model."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from conftest import PROVENANCE, TINY, board_items, board_pairs, write_catalogue
from vbpr import Dataset, Factors, FeatureStore, Interactions, VbprError, Visual, configure, evaluate, extract, train
from vbpr.base.stopping import Stopped
from vbpr.training.catalogue import align, prepare
from vbpr.training.item_features import ItemFeatures
from vbpr.training.model import Diverged
from vbpr.training.models.bpr.bpr import BPR
from vbpr.training.models.bpr.gradients import gradients as real_gradients
from vbpr.training.models.bpr.progress import State
from vbpr.training.models.hybrid import Hybrid

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
    found = aligned.matrix[1:]
    np.testing.assert_array_equal(found[:, : store.dim], store.rows(wanted[1:]))
    np.testing.assert_array_equal(found[:, store.dim :], store.rows(wanted[1:]))
    np.testing.assert_array_equal(aligned.matrix[np.array([False, False, True, True])], found[1:])
    np.testing.assert_array_equal(aligned.matrix[np.array([3, 1])], found[[2, 0]])
    np.testing.assert_array_equal(aligned.matrix[2], found[1])
    assert not aligned.matrix[0].any() and aligned.matrix.shape == (4, 2 * store.dim)


def test_two_feature_files_are_put_side_by_side(board, board_features, tmp_path):
    other = shutil.copy(board_features, tmp_path / "other.h5")
    done = run(board, [board_features, other], tmp_path / "m.h5", epochs=2)
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


def same(a, b):
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("users", "items", "bias"))


# In a process of its own, not a fork: the threads of the numerical libraries do not survive that.
CHILD = f"""
import ast, sys
from vbpr import Dataset, Stopped, configure, train
board, features, out, model, options = sys.argv[1:]
try:
    train(Dataset.resolve(board), [features], configure(model, **{SMALL} | ast.literal_eval(options)), out)
except Stopped:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("model", "part"), [("visual", ""), ("vbpr", "-visual"), ("hybrid", "-latent")])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_stopped_run_resumes_to_the_same_model(board, board_features, tmp_path, model, part, how):
    options = {"epochs": 50, "patience": 0, "checkpoint_minutes": 0.0} | ({"factors": 4} if part else {})
    whole = run(board, [board_features], tmp_path / "whole.h5", model, **options).factors
    out = tmp_path / "m.h5"
    checkpoint = tmp_path / f".m.h5.checkpoint{part}"  # vbpr and hybrid train part by part
    process = subprocess.Popen([sys.executable, "-c", CHILD, *map(str, (board, board_features, out, model, options))])
    until = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(how)
    assert process.wait() == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert checkpoint.exists() and not out.exists()
    again = run(board, [board_features], out, model, **options).factors
    assert same(whole, again) and again.about["curve"] == whole.about["curve"]
    assert not [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name]


@pytest.mark.parametrize("values", [{}, {"memory_limit": 1e-6}, {"shared_negatives": 0}, {"patience": 1}])
def test_a_run_goes_on_in_the_middle_of_an_epoch(board, board_features, tmp_path, monkeypatch, values):
    """Stopped after every few batches, over and over."""
    monkeypatch.setattr("vbpr.training.models.bpr.trainer.CHUNK", 3)
    options = {"epochs": 4, "patience": 0, "batch": 16} | values
    whole = run(board, [board_features], tmp_path / "whole.h5", "visual", **options).factors
    stops = 0

    @contextlib.contextmanager
    def at_once():
        yield lambda: True

    monkeypatch.setattr("vbpr.training.models.bpr.bpr.stop_signals", at_once)
    while not (tmp_path / "m.h5").exists():
        try:
            again = run(board, [board_features], tmp_path / "m.h5", "visual", **options).factors
        except Stopped as stopped:
            assert "run the same command again to resume" in str(stopped)
            stops += 1
    assert stops > 10 and same(whole, again) and again.about["curve"] == whole.about["curve"]


def test_a_finished_part_is_not_trained_again(board, board_features, tmp_path, monkeypatch):
    trained, real = [], BPR.fit

    def counted(self, split, features, images=None):
        if len(trained) == 1:
            raise Stopped("here")
        trained.append(self.checkpoint.name)
        return real(self, split, features)

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(BPR, "fit", counted)
        run(board, [board_features], tmp_path / "m.h5", "vbpr", epochs=3, factors=4)
    steps = []
    monkeypatch.setattr(
        "vbpr.training.models.bpr.trainer.gradients",
        lambda p, *rest: steps.append("E" in p) or real_gradients(p, *rest),
    )
    resumed = run(board, [board_features], tmp_path / "m.h5", "vbpr", epochs=3, factors=4).factors
    assert steps and not any(steps)  # the latent part alone
    assert same(resumed, run(board, [board_features], tmp_path / "whole.h5", "vbpr", epochs=3, factors=4).factors)


@pytest.mark.parametrize("model", ["visual", "vbpr", "hybrid"])
def test_training_that_diverges_leaves_the_last_good_model(model, board, board_features, tmp_path, monkeypatch):
    """vbpr and hybrid: with the visual part's last good epoch, and the other parts whole."""
    parts = {"factors": 0 if model == "visual" else 4, "epochs": 5}
    left = [2]

    def broken(self):
        left[0] -= 1
        if not left[0]:
            self.params["theta"][3, 0] = torch.nan  # of the visual part, which comes first
        return real_end(self)

    real_end = State.end_epoch
    monkeypatch.setattr(State, "end_epoch", broken)
    with pytest.raises(VbprError, match=r"not finite in epoch 2; lower --lr .* holds the best model before that"):
        run(board, [board_features], tmp_path / "m.h5", model, checkpoint_minutes=0.0, **parts)
    monkeypatch.undo()
    one = run(board, [board_features], tmp_path / "one.h5", model, **parts).factors
    kept = Factors.load(tmp_path / "m.h5")
    assert kept.record.first_curve() == one.record.first_curve()[:1]
    undisturbed, latent = ([p for p in f.about["curve"] if p.get("part") == "latent"] for f in (one, kept))
    assert latent == undisturbed
    assert np.isfinite(kept.users).all()


def test_what_a_kill_left_of_a_checkpoint_goes_with_it(board, board_features, tmp_path):
    for name in (
        "..m.h5.checkpoint-visual.123.tmp",
        "..m.h5.checkpoint.123.probe",
        ".m.h5.checkpoint-latent",
        ".m.h5.123.tmp",
    ):
        (tmp_path / name).touch()
    (tmp_path / "..n.h5.checkpoint.123.tmp").touch()  # another's
    run(board, [board_features], tmp_path / "m.h5", "vbpr", epochs=1, factors=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["..n.h5.checkpoint.123.tmp", "m.h5"]


def test_a_model_that_is_fitted_twice_forgets_the_first_fault(board, board_features, tmp_path, monkeypatch):
    split = prepare(Dataset.resolve(board), stores := [FeatureStore(board_features)])
    features = align(stores, split.item_ids)
    model = Hybrid(configure("hybrid", factors=4, epochs=3, **SMALL))
    real, left = State.end_epoch, [2]

    def broken(self):
        left[0] -= 1
        if not left[0]:
            self.params["theta"][3, 0] = torch.nan
        return real(self)

    monkeypatch.setattr(State, "end_epoch", broken)
    with pytest.raises(Diverged, match="not finite in epoch 2"):
        model.fit(split, features)
    monkeypatch.undo()
    assert len(model.fit(split, features).record.first_curve()) == 3


def test_features_that_are_not_finite_are_refused():
    matrix = np.random.default_rng(0).standard_normal((22, 6)).astype(np.float16)
    matrix[7, 2] = np.inf
    with pytest.raises(VbprError, match="row 7 of the features holds a value that is not finite"):
        ItemFeatures.of(matrix, np.ones(22, bool))


def test_an_item_that_one_file_lacks_keeps_what_the_other_has(tmp_path):
    ids = np.array([f"i{k}" for k in range(6)])
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((6, 3)).astype(np.float16), rng.standard_normal((4, 2)).astype(np.float16)]
    for name, matrix in zip("ab", values, strict=True):
        with FeatureStore.create(
            tmp_path / f"{name}.h5",
            ids[: len(matrix)],
            np.arange(len(matrix), dtype=np.uint64),
            matrix.shape[1],
            PROVENANCE,
        ) as store:
            store.write(np.arange(len(matrix)), matrix)
    both = align([FeatureStore(tmp_path / "a.h5"), FeatureStore(tmp_path / "b.h5")], np.array([*ids, "none"]))
    assert both.known.tolist() == [True] * 6 + [False]
    assert np.array_equal(both.matrix[:6][:, :3], values[0]) and np.array_equal(both.matrix[:4][:, 3:], values[1])
    np.testing.assert_allclose(both.standardised(np.arange(7)).numpy()[4:, 3:], 0, atol=2e-3)
    assert not both.standardised(np.arange(7))[6].any()
    assert not list(tmp_path.glob(".m.h5.checkpoint*"))


def test_a_kill_before_the_model_is_written_does_not_cost_the_training(board, board_features, tmp_path, monkeypatch):
    options, out = {"epochs": 5, "patience": 0, "checkpoint_minutes": 0.0}, tmp_path / "m.h5"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("vbpr.stores.model.factors.Factors.save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run(board, [board_features], out, **options)
    assert (tmp_path / ".m.h5.checkpoint").exists()
    monkeypatch.setattr("vbpr.training.models.bpr.trainer.gradients", lambda *_: pytest.fail("trained again"))
    run(board, [board_features], out, **options)
    assert not (tmp_path / ".m.h5.checkpoint").exists()


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


def test_k_is_no_larger_than_the_features_are_wide_unless_asked_for(cli, board, board_features, tmp_path):
    width, model = FeatureStore(board_features).dim, tmp_path / "m.h5"
    assert configure("hybrid").dim > width
    options = ("train", "--model", "hybrid", "--features", board_features, "--data", board, "--out", model)
    code, _, err = cli(*options, "--dim", width + 1)
    assert code == 2 and f"--dim {width + 1} is more than the features' {width} columns" in err
    code, _, err = cli(*options, "--epochs", 1)
    assert code == 0 and Factors.load(model).about["config"]["dim"] == width, err


def test_two_backbones_go_through_every_command(two_files, cli, tmp_path):
    data, images, files = two_files
    model, photo = tmp_path / "m.h5", next(images.glob("*/blue-05.png"))
    options = [o for file in files for o in ("--features", file)]
    code, text, err = cli("train", *options, "--data", data, "--dim", 8, "--out", model)
    assert code == 0 and "3 items without features, given the mean: blue-00, red-00, red-new" in text, err
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


def test_an_item_that_one_file_lacks_is_scored_by_the_other_and_the_mean(two_files, tmp_path):
    data, _, files = two_files
    f = run(data, files, tmp_path / "m.h5", epochs=1).factors
    one, other = (FeatureStore(file) for file in files)
    mean = other.rows(other.item_ids[other.done]).mean(0, dtype=np.float64).astype(np.float16)
    for item in ("red-00", "blue-00"):
        row = np.r_[one.rows(np.array([item]))[0], mean].astype(np.float32)
        standardised = (row - f.head.mean) / f.head.scale
        np.testing.assert_allclose(f.items[f.item_index(item)], f.head.apply(standardised[None])[0][0], atol=1e-5)


def test_estimators_take_the_items_of_every_file(two_files):
    data, _, files = two_files
    events = Interactions.read(data / "interactions.csv")
    factors = Visual(**SMALL, epochs=1).fit(events, files[::-1])
    assert {"red-00", "red-new", "blue-new"} <= set(factors.item_ids)


def test_more_factors_than_memory_holds_are_refused_before_the_work(board, board_features, tmp_path):
    with pytest.raises(VbprError, match=r"K 100,000,00. for 32 users and 22 items takes .* GB, and .*lower --factors"):
        run(board, [board_features], tmp_path / "m.h5", "vbpr", factors=100_000_000)
    assert not (tmp_path / "m.h5").exists()


def test_models_without_a_head_take_narrow_features(tmp_path):
    """A default K means nothing to them."""
    folder = write_catalogue(tmp_path / "shop", board_items(), board_pairs())
    ids = Dataset.resolve(folder).interactions().item_ids
    with FeatureStore.create(
        tmp_path / "f.h5", ids, np.arange(len(ids)), 16, PROVENANCE | {"data": str(folder)}
    ) as store:
        store.write(np.arange(len(ids)), np.random.default_rng(0).normal(size=(len(ids), 16)))
    assert train(folder, tmp_path / "f.h5", configure("knn"), tmp_path / "m.h5").factors.items.shape[1] == 16
    with pytest.raises(VbprError, match=r"--dim 128 is more than the features' 16 columns; .*widest=16"):
        train(folder, tmp_path / "f.h5", configure("visual"), tmp_path / "m.h5")


def test_a_second_feature_file_of_other_things_is_refused(board, board_features, tmp_path, cli, refused):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sofa.png").write_bytes(next(iter(board_items().values())))
    words = (
        "extract",
        "--backbone",
        TINY,
        "--random-weights",
        "--data",
        tmp_path / "other",
        "--out",
        tmp_path / "o.h5",
    )
    assert cli(*words)[0] == 0
    message = refused(
        "train", "--features", board_features, "--features", tmp_path / "o.h5", "--out", tmp_path / "m.h5"
    )
    assert "o.h5: features of none of the 20 items" in message
