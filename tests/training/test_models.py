"""One contract for every entry of MODELS, on the checkerboard; and what each model is, exactly."""

import ctypes
import dataclasses
import errno
import json
import mmap
import time
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from conftest import TINY, board_items, board_pairs
from vbpr import BPRMF, MODELS, Factors, Interactions, Split, SplitConfig, VbprError, Visual, configure, evaluate
from vbpr.compute import keeper
from vbpr.training.fit import fit
from vbpr.training.item_features import ItemFeatures
from vbpr.training.model import Diverged
from vbpr.training.models.bpr import bpr, sampling
from vbpr.training.models.bpr import inputs as prepared
from vbpr.training.models.bpr.adam import Adam
from vbpr.training.models.bpr.progress import State

LEARNS = [name for name in MODELS if name not in ("popularity", "random")]
TRAINED = ["visual", "vbpr", "bprmf"]


@pytest.fixture(scope="module")
def split():
    users, items = zip(*board_pairs(), strict=True)
    return Split.make(Interactions.of(users, items), SplitConfig(seed=1), catalogue=np.array(sorted(board_items())))


@pytest.fixture(scope="module")
def features(split):
    """Six columns, of which two tell red from blue and the rest are noise."""
    rng = np.random.default_rng(0)
    red = np.char.startswith(split.item_ids, "red")
    signal = np.stack([red, ~red], 1) * 2.0 + 5
    matrix = np.concatenate([signal, rng.normal(size=(len(red), 4))], 1)
    return ItemFeatures.of(matrix.astype(np.float16), np.ones(len(red), bool))


def small(name, **options):
    """Its own defaults, sized for the checkerboard; a dimension that the model switches off stays off."""
    defaults = MODELS[name].defaults
    rank = 2 if name in ("als", "bpr", "ease", "feature-als", "spectral") else 4  # two groups: rank two says it all
    sizes = {"dim": 0 if defaults.get("dim") == 0 else 6, "factors": rank if defaults.get("factors") else 0}
    if MODELS[name].images:  # end to end, with a network small enough for a test
        sizes |= {
            "network": TINY,
            "network_weights": "random",
            "images_per_step": 12,
            "epochs": 6,
            "lr": 3e-3,
            "reg_users": 0.01,
        }
    return configure(name, **{"device": "cpu", "precision": "float32", "batch": 32, "epochs": 60} | sizes | options)


def images():
    """The checkerboard's pictures, in memory."""
    pictures = dict(sorted(board_items().items()))

    class Pictures:
        name, item_ids = "board", np.array(list(pictures))

        def __len__(self):
            return len(pictures)

        def read(self, i):
            return list(pictures.values())[i]

        def signature(self, i):
            return i

    return Pictures()


def fit_one(name, split, features):
    return fit(split, features if MODELS[name].visual else None, small(name), images=images())


@pytest.fixture(scope="module")
def fitted(split, features):
    """Each model once, when it is first asked for."""

    class Fitted(dict):
        def __missing__(self, name):
            self[name] = fit_one(name, split, features)
            return self[name]

    return Fitted()


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if MODELS[n].images else n for n in MODELS])
class TestContract:
    def test_gives_factors_of_the_whole_catalogue(self, fitted, split, name):
        factors = fitted[name]
        assert factors.users.shape == (len(split.user_ids), factors.items.shape[1])
        assert factors.items.dtype == factors.users.dtype == factors.bias.dtype == np.float32
        np.testing.assert_array_equal(factors.item_ids, split.item_ids)
        assert (factors.train != split.train).nnz == (factors.test != split.test).nnz == 0
        assert factors.about["model"] == name and factors.about["config"]["model"] == name

    def test_held_out_item_comes_before_every_item_of_the_other_colour(self, fitted, split, name):
        factors = fitted[name]
        scores = factors.scores(np.arange(len(split.user_ids)))
        red = np.char.startswith(split.item_ids, "red")
        taken = split.item_counts > 0
        wins = []
        for user, user_id in enumerate(split.user_ids):
            mine = red if user_id[0] == "A" else ~red
            wins.append(scores[user, split.test[user].indices[0]] > scores[user, ~mine & taken])
        if name in LEARNS:
            assert np.all(wins)
        else:
            assert 0.2 < np.mean(wins) < 0.8  # these know nothing of colours

    def test_auc(self, fitted, name):
        auc = evaluate(fitted[name]).summary()["all"]["auc"]
        assert (auc > 0.9) if name in LEARNS else (0.25 < auc < 0.75)

    def test_same_seed_same_factors(self, fitted, split, features, name):
        again = fit_one(name, split, features)
        for part in ("users", "items", "bias"):
            np.testing.assert_array_equal(getattr(fitted[name], part), getattr(again, part))

    def test_saved_file_gives_the_same_scores(self, fitted, name, tmp_path):
        factors = fitted[name]
        factors.save(tmp_path / "model.h5")
        loaded = Factors.load(tmp_path / "model.h5")
        users = np.arange(5)
        np.testing.assert_array_equal(factors.scores(users), loaded.scores(users))
        assert loaded.about == factors.about and (loaded.head is None) == (factors.head is None)

    def test_new_items_are_scored_by_their_image(self, fitted, split, features, name):
        """Models that read features place the items that nobody took by colour, and do so from the features alone."""
        factors = fitted[name]
        if not MODELS[name].visual:
            assert factors.head is None
            return
        red_new, blue_new = (int(np.flatnonzero(split.item_ids == f"{c}-new")[0]) for c in ("red", "blue"))
        scores = factors.scores(np.arange(len(split.user_ids)))
        group = np.char.startswith(split.user_ids, "A")
        assert (scores[group, red_new] > scores[group, blue_new]).all()
        assert (scores[~group, red_new] < scores[~group, blue_new]).all()

    def test_order_of_the_items_does_not_matter(self, split, features, name):
        """Ids renamed so that they sort the other way: every item still has the features of its id."""
        if name not in LEARNS:
            pytest.skip("knows no items")
        if MODELS[name].images:
            return  # its pictures are looked up by id, which test_dvbpr.py checks in less than a minute
        order = np.arange(len(split.item_ids))[::-1]
        turned = Split(
            split.user_ids,
            split.item_ids[order],
            *(getattr(split, part)[:, order].tocsr().sorted_indices() for part in ("train", "validation", "test")),
            split.rule,
        )
        moved = ItemFeatures.of(features.matrix[order], features.known)
        auc = evaluate(fit_one(name, turned, moved)).summary()["all"]["auc"]
        assert auc > 0.9


@pytest.mark.parametrize("name", TRAINED)
def test_learning_curve_rises_and_the_best_epoch_is_kept(fitted, split, name):
    curve = [point for point in fitted[name].about["curve"] if point.get("part", "visual") == "visual"]
    assert [point["epoch"] for point in curve] == list(range(1, len(curve) + 1))
    assert curve[-1]["loss"] < curve[0]["loss"]
    best = max(point["auc"] for point in curve)
    if name == "vbpr":
        return  # its parts have a curve each, the blend has none
    assert evaluate(fitted[name], "validation").summary()["all"]["auc"] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("name", ["visual", "vbpr"])
def test_item_vectors_made_in_blocks_equal_the_head_on_each_item(fitted, split, features, name):
    factors = fitted[name]
    vectors = [factors.head(features.matrix[i : i + 1]) for i in range(len(split.item_ids))]
    visual = np.concatenate([v for v, _ in vectors])
    k = factors.about["config"]["dim"]
    np.testing.assert_allclose(factors.items[:, :k], visual[:, :k], rtol=1e-5, atol=1e-5)
    for block in (1, 5, 1000):
        np.testing.assert_allclose(factors.head(features.matrix, block)[0], visual, rtol=1e-5, atol=1e-5)
    new = split.item_counts == 0  # no history: the head says all there is to say, bias included
    scores = visual @ factors.users.T + np.concatenate([b for _, b in vectors])[:, None]
    np.testing.assert_allclose(scores[new], factors.scores(np.arange(len(factors.users))).T[new], atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"shared_negatives": 0, "visual_bias": False, "whiten": 0.0}], ids=repr)
def test_a_hidden_layer_makes_of_raw_features_what_it_made_in_training(split, features, tmp_path, options):
    factors = fit(split, features, small("visual", hidden=6, **options))
    factors.save(tmp_path / "m.h5")
    loaded = Factors.load(tmp_path / "m.h5")
    vectors, bias = loaded.head(features.matrix[features.known])
    np.testing.assert_allclose(loaded.items[features.known], vectors, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loaded.bias[features.known], bias, rtol=1e-4, atol=1e-5)
    assert loaded.head.hidden.shape == (6, features.matrix.shape[1])
    blended = fit(split, features, small("vbpr", hidden=6, **options))
    new = split.item_counts == 0
    made, _ = blended.head(features.matrix[new])
    np.testing.assert_allclose(blended.items[new], made, rtol=1e-4, atol=1e-5)
    assert blended.head.hidden is not None and np.abs(made).sum(0)[: vectors.shape[1]].all()
    plain = dataclasses.replace(loaded.head, hidden=None, outer=None)
    assert not np.allclose(plain(features.matrix[features.known])[0], vectors, rtol=1e-2)


def test_a_cold_item_with_a_warm_items_features_gets_its_visual_score(split, features):
    matrix = features.matrix.copy()
    cold, warm = int(np.flatnonzero(split.item_ids == "red-new")[0]), int(np.flatnonzero(split.item_ids == "red-03")[0])
    matrix[cold] = matrix[warm]
    factors = fit(split, ItemFeatures.of(matrix, features.known), small("visual"))
    scores = factors.scores(np.arange(len(split.user_ids)))
    np.testing.assert_allclose(scores[:, cold], scores[:, warm], rtol=1e-5)


@pytest.mark.parametrize("joint", [True, False])
def test_vbpr_without_a_visual_part_is_bprmf(split, features, joint):
    """F = 0, every other number the same: the very same factors; trained apart, by the latent part's own numbers."""
    common = {**MODELS["bprmf"].defaults, "factors": 4, "epochs": 5, "batch": 32, "device": "cpu", "shrink": 5.0}
    one, other = configure("vbpr", joint=joint, **common), configure("bprmf", **common)
    if not joint:
        other = configure("bprmf", factors=4, epochs=20, popularity_share=0.25, seed=1)
    a, b = (fit(split, features, config.changed(device="cpu")) for config in (one, other))
    for part in ("users", "items", "bias"):
        np.testing.assert_array_equal(getattr(a, part), getattr(b, part))


def test_vbpr_without_latent_part_is_the_two_stage_ranker(split, features):
    common = {"factors": 0, "item_bias": False, "visual_bias": False, "shrink": 0.0, "dim": 6, "epochs": 5}
    a, b = (fit(split, features, configure(name, device="cpu", **common)) for name in ("vbpr", "visual"))
    for part in ("users", "items", "bias"):
        np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    assert not a.bias.any()


def test_parameter_count_of_vbpr():
    """|I| + k (|U| + |I|) + k2 (|U| + D) + D, as published: no history projection."""
    users, items, d, k, k2 = 7, 11, 5, 3, 4
    c = configure("vbpr", dim=k2, factors=k, history=False)
    q = prepared.Inputs(torch.zeros(items, d), None, torch.ones(users), torch.ones(items))

    class Shape:
        train = np.zeros((users, items))

    params = bpr.initial(Shape, q, c, torch.Generator().manual_seed(0))
    assert sum(v.numel() for v in params.values()) == items + k * (users + items) + k2 * (users + d) + d
    visual = bpr.initial(Shape, q, configure("visual", dim=k2, history=False, visual_bias=False), torch.Generator())
    assert {name: v.numel() for name, v in visual.items()} == {"E": k2 * d, "theta": k2 * users}


def test_popularity_is_the_count_of_train_interactions(fitted, split):
    np.testing.assert_array_equal(fitted["popularity"].bias, np.asarray(split.train.sum(0)).ravel())
    assert fitted["popularity"].items.shape[1] == 0


def test_knn_is_the_mean_cosine_to_the_history(fitted, split, features):
    f = features.matrix.astype(np.float64)
    f = (f - f.mean(0)) / f.std(0)
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    user = 3
    expected = (f @ f[split.train[user].indices].T).mean(1)
    np.testing.assert_allclose(fitted["knn"].scores(np.array([user]))[0], expected, atol=1e-4)


def test_items_without_features_get_the_mean(split, features):
    known = features.known.copy()
    known[[0, 5]] = False
    matrix = features.matrix.copy()
    matrix[~known] = np.float16(1000)  # never to be read
    some = ItemFeatures.of(matrix, known)
    factors = fit(split, some, small("visual", epochs=2))
    np.testing.assert_allclose(factors.items[[0, 5]], 0, atol=1e-6)
    np.testing.assert_allclose(some.mean, matrix[known].astype(np.float64).mean(0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_projection_is_one_linear_map_of_length_one(features, whiten):
    projection = prepared.Projection(features, small("visual", whiten=whiten), torch.device("cpu"))
    x = projection(torch.empty(len(features.matrix), projection.width))
    assert float(x.square().sum(1).mean()) == pytest.approx(1, rel=1e-2)
    if whiten == 1.0:
        covariance = (x.T @ x / len(x)).numpy()
        np.testing.assert_allclose(covariance, np.eye(len(covariance)) / len(covariance), atol=2e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"shared_negatives": 0},
        {"positives": "users"},
        {"history": False},
        {"history_factors": False},
        {"axes": 3},
        {"hidden": 6},
        {"negatives": "in-batch"},
        {"loss": "softmax"},
        {"loss": "warp"},
    ],
    ids=repr,
)
def test_every_option_of_training_still_learns_colours(split, features, options):
    config = small("visual", **{"dim": 3, "lr": 0.05} | options)
    assert evaluate(fit(split, features, config)).summary()["all"]["auc"] > 0.9


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_rate_falls_to_zero_or_stays(split, features, monkeypatch, schedule):
    rates, step = [], Adam.step
    monkeypatch.setattr(Adam, "step", lambda self, p, grads, lr: (rates.append(lr), step(self, p, grads, lr)))
    fit(split, features, small("visual", epochs=5, lr=0.02, schedule=schedule, patience=0))
    assert len(rates) % 5 == 0 and len(rates) > 5
    left = 1 - np.arange(len(rates)) / len(rates) if schedule == "linear" else 1
    np.testing.assert_allclose(rates, 0.02 * left * np.ones(len(rates)), rtol=1e-12)


@pytest.mark.parametrize(
    ("told", "options", "epochs", "best"),
    [
        ([0.5, 0.7, 0.6, 0.6, 0.6], {"patience": 2}, [1, 2, 3, 4], 2),
        ([0.5, 0.7, 0.7, 0.7, 0.7], {"patience": 3}, [1, 2, 3, 4, 5], 2),  # no gain: the first of equal ones is kept
        ([0.5, 0.4, 0.3, 0.2, 0.1], {"patience": 0}, [1, 2, 3, 4, 5], 1),
        ([0.5, 0.4, 0.6], {"patience": 2, "eval_every": 2}, [2, 4, 5], 5),  # the last epoch counts, whatever its number
        ([0.6, 0.5, 0.4], {"patience": 1, "eval_every": 2}, [2, 4], 2),
        ([None] * 5, {"patience": 0}, [1, 2, 3, 4, 5], 5),  # without validation: the latest
    ],
)
def test_validation_chooses_the_epoch_and_ends_training(split, features, monkeypatch, told, options, epochs, best):
    """The parameters that are kept are those that stood when the best validation was made."""
    answers, seen = iter(told), []

    def auc(self, users, items, bias):
        seen.append(users.clone())
        return next(answers)

    monkeypatch.setattr(bpr.CurveSample, "auc", auc)
    factors = fit(split, features, small("visual", epochs=5, **options))
    curve = factors.about["curve"]
    assert [point["epoch"] for point in curve] == epochs
    assert [point.get("auc") for point in curve] == told[: len(epochs)]
    np.testing.assert_allclose(factors.users, seen[epochs.index(best)].numpy(), rtol=1e-5, atol=1e-6)


def test_checkpoints_are_minutes_apart(split, features, tmp_path, monkeypatch):
    clock, saved = [0.0], []
    monkeypatch.setattr(keeper.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(keeper, "write_checkpoint", lambda *_, epoch, **__: saved.append(epoch))
    record = State.record
    monkeypatch.setattr(
        State, "record", lambda *given, **how: (clock.__setitem__(0, clock[0] + 50), record(*given, **how))
    )
    config = small("visual", epochs=6, checkpoint_minutes=1.5, patience=0)
    fit(split, features, config, tmp_path / "c")
    assert saved == [2, 4, 6]  # at 100, 200 and 300 seconds


def test_what_is_sampled_is_the_configurations(split, features, monkeypatch):
    given, make = [], sampling.TripletSampler
    monkeypatch.setattr(sampling, "TripletSampler", lambda *args, **how: (given.append(how), make(*args, **how))[1])
    wanted = {"positives": "users", "negatives": "popularity", "popularity_share": 0.25}
    fit(split, features, small("visual", epochs=1, **wanted))
    assert given == [wanted]


def test_bias_of_looks_and_of_an_items_own_count_both(split, features, monkeypatch):
    """Of the model that validation sees, and of the one that is kept."""
    seen = []
    monkeypatch.setattr(bpr.CurveSample, "auc", lambda self, *vectors: seen.append(vectors))
    factors = fit(split, features, small("visual", epochs=8, item_bias=True, visual_bias=True))
    looks = factors.head(features.matrix)[1]
    own = factors.bias - looks
    assert looks.std() > 1e-3 and own[split.item_counts > 0].std() > 1e-3
    np.testing.assert_allclose(own[split.item_counts == 0], 0, atol=1e-5)
    users, items, bias = (part.numpy() for part in seen[-1])
    np.testing.assert_allclose(users @ items.T + bias, factors.scores(np.arange(len(users))), atol=1e-4)


@pytest.mark.parametrize(
    ("positives", "options", "batch", "per_user"),
    [
        (100_000, {}, 768, 4),
        (120_000, {}, 1536, 8),
        (10**7, {}, 3072, 16),
        (10**7, {"per_user": 1}, 3072, 1),
        (10**7, {"least_steps": 0}, 768, 4),
        (10**7, {"batch": 768}, 768, 4),  # whoever says how many has as many
        (10**7, {"batch": 768, "least_steps": 75}, 3072, 16),
        (10**7, {"shared_negatives": 0}, 768, 4),
    ],
)
def test_batches_grow_where_an_epoch_has_steps_in_plenty(positives, options, batch, per_user):
    c = bpr.grown(configure("visual", **options), positives)
    assert (c.batch, c.per_user) == (batch, per_user)
    assert bpr.grown(configure("bprmf"), 10**7) == configure("bprmf")


def test_a_fall_that_chance_does_not_explain_ends_training(split, features, monkeypatch):
    """Unless patience is without end; the best epoch is kept, and a run that goes on afterwards has nothing to do."""

    def auc(self, *vectors):
        self.each = torch.linspace(0.4, 0.9, 100, dtype=torch.float64) - next(lost)
        return float(self.each.mean())

    monkeypatch.setattr(bpr.CurveSample, "auc", auc)
    for patience, epochs in ((5, 3), (0, 6)):
        lost = iter([0.1, 0.0, 0.2, 0.0, 0.0, 0.0])
        curve = fit(split, features, small("visual", epochs=6, patience=patience)).about["curve"]
        assert len(curve) == epochs and max(curve, key=lambda point: point["auc"])["epoch"] == 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["visual", pytest.param("vbpr", marks=pytest.mark.slow)])
def test_same_seed_same_bits(name, threads):
    """With batches large enough that torch deals them to its threads."""
    rng = np.random.default_rng(0)
    took = Interactions.of(np.repeat(np.arange(300), 12).astype(str), rng.integers(500, size=3600).astype(str))
    split = Split.make(took)
    features = ItemFeatures.of(
        rng.normal(size=(len(split.item_ids), 96)).astype(np.float16), np.ones(len(split.item_ids), bool)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = (fit(split, features, configure(name, device="cpu", epochs=3, dim=32, axes=64)) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(a.users, b.users) and np.array_equal(a.items, b.items) and np.array_equal(a.bias, b.bias)


@pytest.mark.parametrize("history", [True, False])
def test_features_mapped_from_the_disk_train_the_same_bits(split, features, history, tmp_path):
    config = small("visual", history=history)
    in_memory = fit(split, features, config)
    mapped = fit(split, features, config.changed(memory_limit=1e-6), tmp_path / "checkpoint")
    assert np.array_equal(in_memory.users, mapped.users) and np.array_equal(in_memory.items, mapped.items)
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_features_that_do_not_fit_are_mapped_unasked(split, features, tmp_path, monkeypatch, capsys):
    config = small("visual", epochs=1)
    in_memory = fit(split, features, config)
    assert "do not fit in memory" not in capsys.readouterr().err
    monkeypatch.setattr(prepared, "available_memory", lambda: 100)
    monkeypatch.setattr(prepared, "memory_on_disk", made := Mock(wraps=prepared.memory_on_disk))
    mapped = fit(split, features, config, tmp_path / "checkpoint")
    assert np.array_equal(in_memory.users, mapped.users) and np.array_equal(in_memory.items, mapped.items)
    assert made.call_count == 2 and "do not fit in memory" in capsys.readouterr().err
    assert fit(split, features, config.changed(memory_limit=1.0)) and made.call_count == 2


@pytest.mark.parametrize(
    ("groups", "files", "available"),
    [
        ("0::/\n", {}, 8000),
        ("0::/\n", {"memory.max": "max", "memory.current": "1"}, 8000),
        ("0::/\n", {"memory.max": "3072000", "memory.current": "2048000"}, 1000 + 30),
        ("0::/a/b\n", {"a/memory.max": "3072000", "a/memory.current": "2048000"}, 1000 + 30),
        ("0::/not/there\n", {"memory.max": "3072000", "memory.current": "2048000"}, 1000 + 30),
        ("0::/\n", {"memory.max": "1024", "memory.current": "9999999"}, 0),
        (
            "5:cpu:/\n4:memory:/a\n",
            {"memory/a/memory.limit_in_bytes": "2048000", "memory/a/memory.usage_in_bytes": "1024000"},
            1000 + 300,
        ),
    ],
)
def test_available_memory_minds_containers(tmp_path, groups, files, available):
    """In kilobytes: what a group has left, its cached files included."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  8000 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    statistics = "inactive_file 10240\nactive_file 20480\ntotal_inactive_file 102400\ntotal_active_file 204800\n"
    for name, text in files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        (path.parent / "memory.stat").write_text(statistics)
    assert prepared.available_memory(tmp_path) == available * 1024
    assert 0 < prepared.available_memory() < 2**50


@pytest.mark.parametrize("allowed", [True, False])
def test_mapped_rows_are_read_before_their_turn_and_no_others(allowed, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not allowed:  # as a container may
        monkeypatch.setattr("os.pidfd_open", refused)
    rows, page = 4000, mmap.PAGESIZE
    memory = prepared.memory_on_disk(rows * page, tmp_path)
    matrix = torch.frombuffer(memory, dtype=torch.bfloat16).view(rows, page // 2)
    matrix.fill_(1)
    memory.flush()
    on_disk = pages_in_memory(matrix)
    memory.madvise(MADV_PAGEOUT)
    on_disk = on_disk.all() and not pages_in_memory(matrix).any()  # a file system of memory keeps them
    wanted = torch.arange(5, rows, 40)
    work = prepared.read_ahead([wanted], lambda piece: [(None, piece), (matrix, piece)], [memory])
    assert next(work) is wanted
    for _ in range(100):
        found = np.flatnonzero(pages_in_memory(matrix)).tolist()
        if set(found) >= set(wanted.tolist()):
            break
        time.sleep(0.05)
    assert found == wanted.tolist() if on_disk else set(found) >= set(wanted.tolist())


MADV_PAGEOUT = 21


def pages_in_memory(matrix):
    """For each page of a mapped matrix, whether it is in memory: see mincore(2)."""
    found = np.zeros(matrix.nbytes // mmap.PAGESIZE, np.uint8)
    address, size, out = matrix.data_ptr(), matrix.nbytes, found.ctypes.data
    done = ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_void_p(out))
    assert done == 0
    return found & 1


def test_mapped_features_need_room_on_the_disk(split, features, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(VbprError, match=r"no room for .* prepared features .*`axes`"):
        fit(split, features, small("visual", memory_limit=1e-6), tmp_path / "checkpoint")


def test_report_preset_trains(split, features):
    factors = fit(split, features, configure("visual", "report", dim=6, epochs=2, device="cpu"))
    assert len(factors.about["curve"]) == 2 and not factors.bias.any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: configure("visul"), "did you mean visual"),
        (lambda: configure("visual", "best"), "--preset best"),
        (lambda: configure("bprmf", "report"), "--preset report is for --model visual"),
        (lambda: configure("visual", dim=-1), "--dim is -1"),
        (lambda: configure("visual", lr=float("nan")), "--lr is nan"),
        (lambda: configure("visual", schedule="cosine"), "^schedule cosine .*linear, constant"),
        (lambda: configure("visual", latent_weight=-1.0), "^latent_weight is -1.0; it must be from 0"),
        (lambda: configure("visual", reg_head=-1.0), "^--reg-head is -1.0; it must be from 0"),
        (lambda: configure("visual", precision="float8"), "--precision float8"),
        (lambda: configure("visual", loss="hinge"), "bpr, softmax, warp"),
        (lambda: configure("visual", loss="warp", shared_negatives=0), "--shared-negatives 256"),
        (lambda: configure("visual", negatives="in-batch", shared_negatives=0), "--shared-negatives 256"),
        (lambda: configure("visual", memory_limit=-1), "--memory-limit is -1"),
        (lambda: configure("visual", seed=-1), "--seed is -1"),
        (lambda: configure("vbpr", latent_weight=float("nan")), "latent_weight is nan"),
    ],
)
def test_impossible_configurations_are_refused(call, words):
    with pytest.raises(VbprError, match=words):
        call()


def test_nothing_to_train_is_refused(split, features):
    with pytest.raises(VbprError, match="both 0"):
        fit(split, features, small("visual", dim=0))
    for model in ("als", "bpr", "ease", "feature-als", "spectral"):
        with pytest.raises(VbprError, match=f"--factors is 0: --model {model} has nothing else"):
            fit(split, None, small(model, factors=0))
    with pytest.raises(VbprError, match="--dim 500 is more than the features' "):
        fit(split, features, small("visual", dim=500))
    with pytest.raises(VbprError, match="--shared-negatives 1,000,000,000 is more than there are items"):
        fit(split, features, small("visual", shared_negatives=10**9))


@pytest.mark.parametrize("name", ["visual", "vbpr"])
def test_what_diverges_in_the_first_epoch_says_what_to_do_and_leaves_no_model(split, features, name):
    with pytest.raises(Diverged, match=r"not finite in epoch 1; lower --lr") as caught:
        fit(split, features, small(name, lr=1e30))
    assert caught.value.factors is None


def test_features_that_say_nothing_are_refused():
    same = np.ones((5, 3), np.float16)
    with pytest.raises(VbprError, match="same features"):
        ItemFeatures.of(same, np.ones(5, bool))
    with pytest.raises(VbprError, match="no item"):
        ItemFeatures.of(same, np.zeros(5, bool))
    constant_column = np.array([[1, 2], [1, 3]], np.float16)
    assert ItemFeatures.of(constant_column, np.ones(2, bool)).scale[0] == 1


def test_the_largest_seed_is_fit_for_every_model(split, features):
    fit(split, features, small("hybrid", seed=2**31 - 1))


def test_options_are_of_their_type_and_of_their_model():
    config = configure("visual", dim=np.int64(16), lr=np.float32(0.5), item_bias=np.bool_(True))
    assert json.loads(json.dumps(config.to_json()))["dim"] == 16 and config.lr == 0.5 and config.item_bias is True
    for values, words in (
        ({"dim": 3.5}, "--dim is 3.5; it must be a whole number"),
        ({"epochs": 2.0}, "--epochs is 2.0; it must be a whole number"),
        ({"dim": "3"}, "--dim is '3'; it must be a whole number"),
        ({"item_bias": "no"}, "it must be true or false"),
        ({"lr": True}, "--lr is True; it must be a number"),
        ({"dims": 3}, r"dims is no option of training \(did you mean dim"),
    ):
        with pytest.raises(VbprError, match=words):
            configure("visual", **values)
    with pytest.raises(VbprError, match="--image-size does nothing for --model visual"):
        Visual(image_size=64)
    with pytest.raises(VbprError, match="--dim does nothing for --model bprmf"):
        BPRMF(dim=10)


@pytest.mark.parametrize("name", ["visual", "vbpr", "bprmf", "als", "ease", "knn"])
def test_users_without_train_interactions_have_the_mean_of_the_others_tastes(split, features, name):
    """As a split by time leaves some: what training left there says nothing."""
    few = split.train.tolil()
    few[[1, 4]] = 0
    few = dataclasses.replace(split, train=few.tocsr(), test=split.test + split.train - few.tocsr())
    factors = fit(few, features, small(name))
    others = np.setdiff1d(np.arange(len(split.user_ids)), [1, 4])
    wanted = factors.scores(others).mean(0)
    np.testing.assert_allclose(factors.scores(np.array([1, 4])), [wanted, wanted], rtol=1e-4, atol=1e-5)


def test_vbpr_as_published_trains(split, features):
    config = configure("vbpr", "published", widest=features.matrix.shape[1], epochs=8, device="cpu")
    factors = fit(split, features, config)
    assert evaluate(factors, device="cpu").summary()["all"]["auc"] > 0.6
    assert not config.history and not config.shared_negatives and config.joint
    with pytest.raises(VbprError, match="--preset published is for --model vbpr"):
        configure("visual", "published")
