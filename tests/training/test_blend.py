"""The parts of `hybrid` against their definitions, and how they become two matrices and a bias."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from vbpr import Interactions, Split, SplitConfig, VbprError, configure, evaluate
from vbpr.training.config import OPTIONS
from vbpr.training.fit import fit
from vbpr.training.item_features import ItemFeatures
from vbpr.training.model import Diverged
from vbpr.training.models import chooser, parts
from vbpr.training.models import hybrid as hybrid_module
from vbpr.training.models import kept as kept_module
from vbpr.training.models.axes import axes
from vbpr.training.models.cease import PENALTY, POWER, SHARE, cease
from vbpr.training.models.feature_als import LEVEL, RIDGE, feature_als
from vbpr.training.models.filter import NEAREST, linear_filter, looks_graph
from vbpr.training.models.hybrid import PRIOR, Hybrid, hold_out
from vbpr.training.models.parts import Part, Scores, Weights, add_up
from vbpr.training.models.visual import with_popularity

EVERYBODY = slice(0, 40)


def split_of(users, items, taken, each, seed=0):
    """Users who took `each` of the first `taken` items; the others nobody took."""
    rng = np.random.default_rng(seed)
    pairs = [(f"u{u:03d}", f"i{i:03d}") for u in range(users) for i in rng.choice(taken, each, replace=False)]
    catalogue = np.array([f"i{i:03d}" for i in range(items)])
    return Split.make(Interactions.of(*zip(*pairs, strict=True)), SplitConfig("random"), catalogue=catalogue)


@pytest.fixture(scope="module", params=[(40, 60), (40, 25)], ids=["fewer users", "fewer items"])
def split(request):
    users, items = request.param
    return split_of(users, items, items - 3, 9)


@pytest.fixture(scope="module")
def features(split):
    rng = np.random.default_rng(3)
    items = len(split.item_ids)
    return ItemFeatures.of(rng.standard_normal((items, 8)).astype(np.float16), np.ones(items, bool))


@pytest.fixture(scope="module")
def looks(split, features):
    return axes(features, len(split.item_ids), 5)


def unit(features, items):
    z = features.standardised(np.arange(items)).numpy().astype(float)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_axes_are_the_principal_ones_and_linear_in_the_features(split, features, looks):
    coordinates, turn = looks
    z = unit(features, len(split.item_ids))
    np.testing.assert_allclose(coordinates, z @ turn.T, atol=1e-5)
    assert (coordinates.astype(float) ** 2).sum(1).mean() == pytest.approx(1, abs=1e-4)
    kept = np.linalg.svd(z)[1][:5]
    own = np.linalg.svd(coordinates)[1]
    np.testing.assert_allclose(own / own[0], kept / kept[0], rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, SHARE])
def test_cease_is_a_regression_of_each_item_on_the_others(split, looks, share):
    """Of items that a user did not take; B column by column."""
    x = split.train.toarray().astype(float)
    f = np.sqrt(share) * looks[0][:, : 5 if share else 0].astype(float)
    count = np.maximum(1, x.sum(1))
    weighted = x * ((count / count.mean()) ** -POWER)[:, None]
    rows = np.vstack([weighted, f.T])
    b = np.zeros((x.shape[1],) * 2)
    for j in range(len(b)):
        rest = np.delete(np.arange(len(b)), j)
        a = np.vstack([rows[:, rest], np.sqrt(PENALTY) * np.eye(len(rest))])
        b[rest, j] = np.linalg.lstsq(a, np.append(rows[:, j], np.zeros(len(rest))), rcond=None)[0]
    part = cease(split, *(looks if share else (looks[0][:, :0], looks[1][:0])))
    made = part.scores(EVERYBODY).numpy()
    np.testing.assert_allclose(made[x == 0], (weighted @ b)[x == 0], atol=2e-6)


def test_cease_scores_a_new_item_by_its_features(split, features, looks):
    """Nearly as it would had it been in the catalogue."""
    part = cease(split, *looks)
    users, weight = part.unseen
    new = split.item_counts == 0
    made = users @ weight @ unit(features, len(new))[new].T
    wanted = part.scores(EVERYBODY).numpy()[:, new]
    assert np.corrcoef(made.ravel(), wanted.ravel())[0, 1] > 0.99


def test_cease_of_the_leading_rank_is_nearly_the_whole(split, looks, monkeypatch):
    """What its rest says of items that a user did not take is of the third power of small singular values."""
    whole = cease(split, *looks).scores(EVERYBODY).numpy()
    monkeypatch.setattr("vbpr.training.models.cease.SQUARE", 0)
    made = cease(split, *looks).scores(EVERYBODY).numpy()
    open_ = split.train.toarray() == 0
    assert np.corrcoef(made[open_], whole[open_])[0, 1] > 0.98


def test_feature_als_ends_where_its_equations_hold(split, looks):
    f = looks[0].astype(float)
    alpha, k = 5.0, 3
    users, items, b = (a.astype(float) for a in feature_als(split, looks[0], k, alpha, LEVEL, epochs=200))
    x = split.train.toarray()
    counts = split.item_counts
    edge = np.sqrt(x.sum() / (x.sum(1) > 0).sum()) + np.sqrt(x.sum() / (counts > 0).sum())
    penalty = LEVEL * (1 + alpha) * edge
    seen = counts > 0
    for u in range(len(x)):
        c = 1 + alpha * x[u]
        own = np.linalg.solve((items * c[:, None]).T @ items + penalty * np.eye(k), items.T @ (c * x[u]))
        # items that nobody took were put in their place at the end, and training had them near it
        np.testing.assert_allclose(users[u], own, atol=2e-2 * np.abs(users).max())
    for i in np.flatnonzero(seen):
        c = 1 + alpha * x[:, i]
        right = users.T @ (c * x[:, i]) + penalty * f[i] @ b
        own = np.linalg.solve((users * c[:, None]).T @ users + penalty * np.eye(k), right)
        np.testing.assert_allclose(items[i], own, atol=2e-2 * np.abs(items).max())
    np.testing.assert_allclose(items[~seen], f[~seen] @ b, atol=1e-5)
    trust = counts / (counts + 5)
    ridge = RIDGE * trust.sum() / f.shape[1] * np.eye(f.shape[1])
    np.testing.assert_allclose(
        b,
        np.linalg.solve(f.T @ (trust[:, None] * f) + ridge, f.T @ (trust[:, None] * items)),
        atol=1e-2 * np.abs(b).max(),
    )


def test_linear_filter_and_graph_of_looks_are_what_they_are(split, looks):
    x = split.train.toarray().astype(float)
    r = np.maximum(1, x.sum(1))[:, None] ** -0.6 * x * np.maximum(1, x.sum(0)) ** -0.4
    np.testing.assert_allclose(linear_filter(split).scores(EVERYBODY), x @ (r.T @ r) ** 0.7, atol=1e-5)
    z = looks[0] / np.linalg.norm(looks[0], axis=1, keepdims=True)
    cosine = z @ z.T
    np.fill_diagonal(cosine, -9)
    near = np.zeros_like(x.T @ x)
    for i, row in enumerate(cosine):
        near[i, np.argsort(-row)[: min(NEAREST, len(row) // 4)]] = 1
    near = near.sum(1)[:, None] ** -0.5 * near * np.maximum(1, near.sum(0)) ** -0.5
    np.testing.assert_allclose(looks_graph(split, looks[0]).scores(EVERYBODY), x @ (near + near.T), atol=1e-5)


@pytest.fixture(scope="module")
def two(split, looks):
    return [cease(split, *looks), linear_filter(split)]


def standardised(part):
    s = part.scores(EVERYBODY).numpy().astype(float)
    return (s - s.mean(1, keepdims=True)) / s.std(1, keepdims=True)


WEIGHTS = Weights(np.array([0.7, 0.2]), np.array([0.5, 0.9]))


def wanted_of(split, two):
    n = split.item_counts
    w = [(v * n + c * 5) / (n + 5) for v, c in zip(WEIGHTS.warm, WEIGHTS.cold, strict=True)]
    return sum(each * standardised(part) for each, part in zip(w, two, strict=True))


def by_user(scores, split):
    """Less a constant for each user, what they took aside: the ranking is what counts."""
    open_ = np.where(split.train.toarray() > 0, np.nan, scores)
    return open_ - np.nanmean(open_, 1, keepdims=True)


@pytest.mark.parametrize("limits", [{}, {"EXACT": 0}, {"EXACT": 0, "AT_ONCE": 1, "KEPT": 0}, {"KEPT": 0, "BLOCK": 7}])
def test_sum_of_parts_is_kept_as_it_is(split, features, two, monkeypatch, limits):
    """As the scores of everybody, or by their leading rank, which here is all of it."""
    for name, value in limits.items():
        monkeypatch.setattr(parts, name, value)
    made = add_up(split, Scores(two, *split.train.shape), WEIGHTS, features).scores(np.arange(40))
    np.testing.assert_allclose(by_user(made, split), by_user(wanted_of(split, two), split), atol=2e-3)


def test_parts_too_large_to_score_everybody_stand_side_by_side(split, features, looks, monkeypatch):
    monkeypatch.setattr(parts, "HELD", 0)
    wide = [cease(split, *looks), linear_filter(split)]
    assert not any(sp.issparse(side) for part in wide for term in part.terms for side in term)
    made = add_up(split, Scores(wide, *split.train.shape), WEIGHTS, features).scores(np.arange(40))
    np.testing.assert_allclose(by_user(made, split), by_user(wanted_of(split, wide), split), atol=5e-3)


@pytest.mark.parametrize("limits", [{}, {"EXACT": 0}, {"HELD": 0}])
def test_head_gives_items_that_nobody_took_their_vector(split, features, looks, monkeypatch, limits):
    """Which is the one that they have in the catalogue, but for what only the catalogue tells of them."""
    for name, value in limits.items():
        monkeypatch.setattr(parts, name, value)
    rng = np.random.default_rng(5)
    users, turn = rng.standard_normal((40, 4), np.float32), rng.standard_normal((4, 8), np.float32)
    items = (unit(features, len(split.item_ids)) @ turn.T).astype(np.float32)
    linear = [Part([(users, items)], unseen=(users, turn))]
    weights = Weights(np.array([0.4]), np.array([0.8]))
    factors = add_up(split, Scores(linear, *split.train.shape), weights, features)
    new = split.item_counts == 0
    vectors, bias = factors.head(features.matrix[np.flatnonzero(new)])
    made = factors.users @ vectors.T + bias
    np.testing.assert_allclose(made, factors.scores(np.arange(40))[:, new], atol=5e-3)


def test_gradient_of_the_choice_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    n, m, p = 60, 30, 3
    sample = chooser.sample_of(
        torch.from_numpy(rng.standard_normal((n, m, 2 * p), np.float32)),
        torch.from_numpy(rng.integers(0, 4, (n, m)).astype(np.float32)),
        torch.full((n,), 100.0),
        rng.integers(0, 9, n),
    )
    start, values = np.full(2 * p, 1.0), rng.random(2 * p)
    for objective in chooser.OBJECTIVES.values():
        _, gradient = chooser.loss(values, sample, start, objective)
        for k in range(len(values)):
            step = np.eye(len(values))[k] * 1e-2
            two_sided = [chooser.loss(values + sign * step, sample, start, objective)[0] for sign in (1, -1)]
            assert gradient[k] == pytest.approx((two_sided[0] - two_sided[1]) / 2e-2, rel=0.05, abs=2e-3)


@pytest.fixture(scope="module")
def many():
    """200 users in two groups, each with half of the items."""
    rng = np.random.default_rng(0)
    pairs = [(f"u{u:03d}", f"i{i + 30 * (u % 2):03d}") for u in range(200) for i in rng.choice(30, 8, replace=False)]
    return Split.make(Interactions.of(*zip(*pairs, strict=True)), SplitConfig("random"))


def test_a_part_that_knows_more_gets_the_weight(many):
    rng = np.random.default_rng(1)
    users, items = many.train.shape
    group = np.where(np.arange(users) % 2, -1.0, 1.0)[:, None].astype(np.float32)
    half = np.where(np.arange(items) < 30, 1.0, -1.0)[:, None].astype(np.float32)
    good = Part([(group, half + 0.3 * rng.standard_normal((items, 1), np.float32))])
    noise = Part([(rng.standard_normal((users, 4), np.float32), rng.standard_normal((items, 4), np.float32))])
    choice = chooser.choose(many, Scores([noise, good], users, items), np.ones((2, 2)))
    assert choice.weights.warm[1] > 2 * choice.weights.warm[0]
    assert choice.parts[1]["auc"] > 0.7 > 0.6 > choice.parts[0]["auc"]
    assert choice.parts[1]["brings_auc"] > 0.1 > 0.01 > choice.parts[0]["brings_auc"]


def test_test_items_are_not_read(many):
    """Others in their place: the same weights."""
    part = [linear_filter(many), Part([(np.ones((200, 1), np.float32), many.item_counts[:, None].astype(np.float32))])]
    other = Split(many.user_ids, many.item_ids, many.train, many.validation, many.train[::-1].tocsr(), many.rule)
    chosen = [chooser.choose(s, Scores(part, *s.train.shape), np.ones((2, 2))).weights for s in (many, other)]
    np.testing.assert_array_equal(chosen[0].warm, chosen[1].warm)


def test_the_objective_decides():
    """Most people take what sells, some what hardly sold: whoever is asked for, is served better."""
    assert chooser.OBJECTIVES.keys() == set(OPTIONS["objective"].choices)
    rng = np.random.default_rng(1)
    users, items = 200, 60
    sells = np.where(np.arange(items) < 30, 40, 2)
    taken, held = np.zeros((users, items), np.float32), np.zeros((users, items), np.float32)
    for i, n in enumerate(sells):
        taken[rng.choice(users, n, replace=False), i] = 1
    for u in range(users):
        some = np.arange(30) if u % 4 else np.arange(30, 60)
        held[u, rng.choice(some[taken[u, some] == 0])] = 1
    ids = [np.arange(n).astype(np.str_) for n in (users, items)]
    of = Split(*ids, *map(sp.csr_matrix, (taken, held, np.zeros_like(held))))
    everyone = np.ones((users, 1), np.float32)
    two = [Part([(everyone, sign * np.log(sells)[:, None].astype(np.float32))]) for sign in (1, -1)]
    by = {name: chooser.choose(of, Scores(two, users, items), np.ones((2, 2)), name).blend for name in ("all", "cold")}
    assert by["all"]["auc"] > by["cold"]["auc"] + 0.1 and by["cold"]["auc_cold"] > by["all"]["auc_cold"] + 0.1


SMALL = {"dim": 4, "factors": 2, "epochs": 2, "batch": 32, "device": "cpu"}


def test_with_too_few_validation_items_hybrid_has_constant_weights(split, features):
    factors = Hybrid(configure("hybrid", **SMALL)).fit(split, features)
    told = factors.about["blend"]
    assert [each["part"] for each in told] == list(PRIOR)
    assert all("auc" not in each for each in told)
    assert factors.about["choice"] == {
        "objective": "balanced",
        "by": f"nothing: {split.validation.nnz} validation items are under 100, the weights are constants",
    }
    share = {each["part"]: each["warm"] for each in told}
    assert share["cease"] / share["visual"] == pytest.approx(PRIOR["cease"][0] / PRIOR["visual"][0], rel=0.01)


def test_hybrid_says_what_it_chose(many):
    rng = np.random.default_rng(2)
    features = ItemFeatures.of(rng.standard_normal((60, 8)).astype(np.float16), np.ones(60, bool))
    factors = fit(many, features, configure("hybrid", objective="ndcg@10", **SMALL))
    keys = {"part", "warm", "cold", "auc", "brings_auc", "brings_ndcg@10"}
    assert all(keys <= each.keys() for each in factors.about["blend"])
    assert {point["part"] for point in factors.about["curve"]} == {"visual", "latent"}
    choice = factors.about["choice"]
    assert choice["objective"] == "ndcg@10" and choice["by"] == "200 validation items"
    exact = evaluate(factors, "validation", "cpu").summary()["all"]
    assert choice["auc"] == pytest.approx(exact["auc"], abs=0.01)
    assert choice["ndcg@10"] == pytest.approx(exact["ndcg@10"], abs=0.02)


def test_without_validation_items_some_are_held_out_and_then_learnt_from(many):
    """The factors are of every purchase, with the weights that were chosen on a part of them."""
    everything = (many.train + many.validation + many.test).tocsr()
    none = sp.csr_matrix(everything.shape, dtype=np.float32)
    whole = dataclasses.replace(many, train=everything, validation=none, test=none)
    apart = hold_out(whole, 0)
    assert (apart.train + apart.validation != everything).nnz == 0
    assert (
        np.array_equal(apart.validation.getnnz(axis=1), np.ones(200)) and not apart.train.multiply(apart.validation).nnz
    )
    rng = np.random.default_rng(2)
    features = ItemFeatures.of(rng.standard_normal((60, 8)).astype(np.float16), np.ones(60, bool))
    factors = fit(whole, features, configure("hybrid", **SMALL))
    assert factors.about["choice"]["by"] == "200 items held out, then learnt from"
    chosen = fit(apart, features, configure("hybrid", **SMALL))
    weight = {each["part"]: (each["warm"], each["cold"]) for each in chosen.about["blend"]}
    for each in factors.about["blend"]:
        assert weight[each["part"]] == (each["warm"], each["cold"]) != (0, 0)
    assert (factors.train != everything).nnz == 0


def test_hybrid_without_one_side_is_the_other(split, features):
    no_latent = Hybrid(configure("hybrid", **SMALL | {"factors": 0}))
    assert set(no_latent.parts(split, features, [])) == {"visual", "cease", "graph"}
    no_images = Hybrid(configure("hybrid", **SMALL | {"dim": 0}))
    assert not {"visual", "cease", "graph"} & set(no_images.parts(split, None, []))
    made = no_images.fit(split, None)
    assert made.head is None
    assert not made.about["scores_unseen"]


def test_a_part_that_took_long_is_not_made_again(split, looks, tmp_path, monkeypatch):
    """With its sparse and dense sides, its bias and what it makes of new items; another run makes its own."""
    monkeypatch.setattr(kept_module, "SECONDS", -1.0)
    users, items = split.train.shape
    bias = np.arange(items, dtype=np.float32)
    made = cease(split, *looks)
    made = dataclasses.replace(made, bias=bias, curve=[{"epoch": 1, "auc": 0.5}])
    calls = []
    for identity in ("one", "one", "other"):
        again = kept_module.kept(lambda: calls.append(1) or made, tmp_path / ".m.checkpoint", "als 0.7", identity)
        np.testing.assert_array_equal(again.scores(slice(0, users)), made.scores(slice(0, users)))
        assert again.curve == made.curve
        for now, before in zip(again.unseen, made.unseen, strict=True):
            np.testing.assert_array_equal(now, before)
    assert len(calls) == 2


def test_a_part_that_fails_leaves_the_others(many, monkeypatch, capsys):
    def fails(*_):
        raise VbprError("EASE cannot be solved")

    rng = np.random.default_rng(2)
    features = ItemFeatures.of(rng.standard_normal((60, 8)).astype(np.float16), np.ones(60, bool))
    monkeypatch.setattr(hybrid_module, "linear_filter", fails)
    factors = fit(many, features, configure("hybrid", **SMALL))
    assert [each["part"] for each in factors.about["blend"]] == [name for name in PRIOR if name != "filter"]
    assert "its part filter is left out, for it failed (EASE cannot be solved)" in capsys.readouterr().err


def test_a_visual_part_that_diverges_at_once_leaves_the_others(many):
    rng = np.random.default_rng(2)
    features = ItemFeatures.of(rng.standard_normal((60, 8)).astype(np.float16), np.ones(60, bool))
    with pytest.raises(Diverged, match="not finite") as caught:
        fit(many, features, configure("hybrid", **SMALL | {"lr": 1e30}))
    told = [each["part"] for each in caught.value.factors.about["blend"]]
    assert told == [name for name in PRIOR if name != "visual"]


def test_visual_takes_popularity_where_images_say_nothing():
    """Noise for features: popularity joins, and validation AUC is at least that of popularity."""
    rng = np.random.default_rng(0)
    odds = 1 / (1 + np.arange(60.0))
    pairs = [
        (f"u{u:03d}", f"i{i:02d}") for u in range(150) for i in rng.choice(60, 8, replace=False, p=odds / odds.sum())
    ]
    of = Split.make(Interactions.of(*zip(*pairs, strict=True)), SplitConfig("random"))
    noise = ItemFeatures.of(rng.standard_normal((60, 8)).astype(np.float16), np.ones(60, bool))
    small = {"dim": 4, "epochs": 2, "batch": 32, "device": "cpu"}
    made, plain = (fit(of, noise, configure("visual", **small, popular=yes)) for yes in (True, False))
    aucs = [
        evaluate(f, "validation", "cpu").summary()["all"]["auc"]
        for f in (made, plain, fit(of, None, configure("popularity")))
    ]
    assert aucs[0] >= aucs[2] - 0.01 > aucs[1]
    assert made.about["popularity"]["auc"] == pytest.approx(aucs[0], abs=2e-3)
    new, bias = made.head(noise.matrix[:3])
    assert new.shape == (3, made.items.shape[1]) and not new[:, -1].any() and not bias.any()
    popular = made.items[:, -1]
    bought = of.item_counts > 0
    assert not popular[~bought].any() and np.argmax(popular) == np.argmax(of.item_counts)
    assert "popularity" not in plain.about
    alike = Split(of.user_ids, of.item_ids, *(sp.csr_matrix((150, 60), dtype=np.float32) for _ in range(3)))
    assert with_popularity(alike, plain) is plain  # nobody to ask
