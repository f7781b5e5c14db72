"""The closed forms of `ease` and `spectral` against their definitions."""

import dataclasses
import re

import numpy as np
import pytest
import scipy.sparse as sp

from vbpr import Interactions, Split, VbprError, configure
from vbpr.training.models import ease as ease_module
from vbpr.training.models.blend import blend
from vbpr.training.models.ease import EASE, KERNEL_WIDTH, ease
from vbpr.training.models.implicit import Implicit
from vbpr.training.models.singular import leading
from vbpr.training.models.spectral import spectral


@pytest.fixture(scope="module")
def split():
    """40 users, 25 items, nine items each; the last three items nobody took."""
    rng = np.random.default_rng(0)
    pairs = [(f"u{u:02d}", f"i{i:02d}") for u in range(40) for i in rng.choice(22, 9, replace=False)]
    return Split.make(Interactions.of(*zip(*pairs, strict=True)), catalogue=np.array([f"i{i:02d}" for i in range(25)]))


@pytest.fixture(scope="module")
def looks(split):
    return np.random.default_rng(1).standard_normal((len(split.item_ids), 4)).astype(np.float32)


def regressions(x, further, penalty):
    """B column by column: each item regressed on all the others, over the rows of X and the further ones."""
    rows = np.vstack([x, further])
    b = np.zeros((x.shape[1], x.shape[1]))
    for j in range(len(b)):
        rest = np.delete(np.arange(len(b)), j)
        a = np.vstack([rows[:, rest], np.sqrt(penalty) * np.eye(len(rest))])
        b[rest, j] = np.linalg.lstsq(a, np.append(rows[:, j], np.zeros(len(rest))), rcond=None)[0]
    return b


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_ease_is_a_ridge_regression_of_each_item_on_the_others(split, looks, share):
    penalty = 3.0
    x = split.train.toarray().astype(float)
    unit = looks.astype(float) / np.linalg.norm(looks, axis=1, keepdims=True)
    f = np.linalg.cholesky(np.exp((unit @ unit.T - 1) / KERNEL_WIDTH) + 1e-9 * np.eye(len(unit))).T
    wanted = x @ regressions(x, np.sqrt(penalty * share) * f, penalty)
    made = ease(split, np.arange(x.shape[1]), 25, 0, penalty, looks=looks, share=share)
    np.testing.assert_allclose(made.scores(np.arange(len(x))), wanted, atol=2e-5)


def test_an_item_that_nobody_took_is_scored_by_those_that_look_like_it(split, looks):
    """Those who took its twin are offered it more than the others are."""
    twin = int(np.argmax(split.item_counts))
    alike = looks.copy()
    alike[24] = alike[twin]
    among = np.arange(25)
    plain, kernel = (ease(split, among, 25, 0, 3.0, looks=alike, share=share) for share in (0.0, 3.0))
    took = split.train[:, [twin]].toarray()[:, 0] > 0
    everybody = np.arange(len(took))
    assert abs(plain.scores(everybody)[:, 24]).max() < 1e-6
    offered = kernel.scores(everybody)[:, 24]
    assert np.corrcoef(offered, took)[0, 1] > 0.3, np.corrcoef(offered, took)


def test_ease_leaves_other_items_at_zero(split, looks):
    among = np.arange(0, 25, 2)
    made = ease(split, among, 25, 0, 3.0, looks=looks, share=0.3)
    assert not made.items[1::2].any()
    assert made.items[among[:11]].any(1).all()


def test_leading_values_are_those_of_the_whole_product():
    rng = np.random.default_rng(2)
    decay = (0.5 ** np.arange(20)).astype(np.float32)
    sparse = sp.random(60, 40, 0.3, random_state=0, dtype=np.float32, format="csr")
    dense = (rng.standard_normal((40, 20)).astype(np.float32) * decay) @ rng.standard_normal((20, 30)).astype(
        np.float32
    )
    left, values, right = leading([sparse, dense], 5, 0)
    _, wanted, vectors = np.linalg.svd(sparse @ dense)
    np.testing.assert_allclose(values, wanted[:5], rtol=1e-4)
    np.testing.assert_allclose(abs(np.sum(right * vectors[:5], 1)), 1, atol=1e-3)
    assert left.shape == (60, 5)


def test_spectral_is_the_low_rank_of_the_normalised_interactions(split):
    x = split.train.toarray().astype(float)
    user, item = np.maximum(1, x.sum(1)) ** -0.5, np.maximum(1, x.sum(0)) ** -0.5
    u, s, v = np.linalg.svd(user[:, None] * x * item)
    wanted = (u[:, :6] * s[:6]) @ v[:6] / item
    for seed in range(3):
        np.testing.assert_allclose(spectral(split, 6, seed).scores(np.arange(len(x))), wanted, atol=1e-3)


def test_spectral_finds_values_that_hardly_differ():
    """As those of real interactions; a sum of them settles long before their vectors do."""
    rng = np.random.default_rng(0)
    taken = sp.csr_matrix(rng.random((300, 400)) < 0.05, dtype=np.float32)
    ids, none = [np.arange(n).astype(np.str_) for n in taken.shape], sp.csr_matrix(taken.shape, dtype=np.float32)
    x = taken.toarray().astype(float)
    user, item = np.maximum(1, x.sum(1)) ** -0.5, np.maximum(1, x.sum(0)) ** -0.5
    u, s, v = np.linalg.svd(user[:, None] * x * item)
    wanted = (u[:, :20] * s[:20]) @ v[:20] / item
    turned = Split(*ids[::-1], *(sp.csr_matrix(part.T) for part in (taken, none, none)))
    made = spectral(Split(*ids, taken, none, none), 20, 0).scores(np.arange(300))
    assert np.abs(made - wanted).max() < 1e-2 * np.abs(wanted).max()
    other = spectral(turned, 20, 0).scores(np.arange(400)).T * user[:, None] / item  # of more users than items
    assert np.abs(other - wanted).max() < 1e-2 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("users", "items", "each", "rank"),
    [(400, 1200, 3, 64), (300, 500, 1, 16), (40, 30, 1, 1000), (1, 5, 2, 4), (3, 1, 1, 4)],
)
def test_spectral_takes_interactions_that_fall_apart(users, items, each, rank):
    """Each user with things of their own, or hardly any of either: the largest value again and again."""
    u = np.repeat(np.arange(users), each)
    taken = sp.csr_matrix((np.ones(len(u), np.float32), (u, np.arange(len(u)) % items)), (users, items))
    ids, none = [np.arange(n).astype(np.str_) for n in taken.shape], sp.csr_matrix(taken.shape, dtype=np.float32)
    one, again = (spectral(Split(*ids, taken, none, none), rank, 0) for _ in range(2))
    assert np.isfinite(one.users).all() and np.isfinite(one.items).all()
    assert np.array_equal(one.users, again.users) and np.array_equal(one.items, again.items)


def test_spectral_is_the_same_every_time(split):
    one, again = (spectral(split, 6, 3) for _ in range(2))
    assert np.array_equal(one.users, again.users) and np.array_equal(one.items, again.items)


def test_blend_of_one_part_ranks_as_the_part(split):
    part = spectral(split, 4, 0)
    both = [m.scores(np.arange(40)).argsort(1) for m in (part, blend([(2.0, part)], ["low-pass"]))]
    assert (both[0][:, -5:] == both[1][:, -5:]).mean() > 0.95


@pytest.mark.parametrize("name", ["als", "bpr"])
def test_implicit_s_models_show_progress_and_are_as_without(split, name, capsys, monkeypatch):
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    monkeypatch.setattr("vbpr.base.progress.BRIEF", 0)
    c = configure(name, factors=4, epochs=3, alpha=7.0) if name == "als" else configure(name, factors=4, epochs=3)
    made = Implicit(c).fit(split, None)
    total = 3 * split.train.nnz
    assert f"train {name}: {total:,} of {total:,} positives" in capsys.readouterr().err
    plain = {"factors": 4, "iterations": 3, "random_state": c.seed, "regularization": c.reg_items, "num_threads": 1}
    made_by = AlternatingLeastSquares if name == "als" else BayesianPersonalizedRanking
    twin = made_by(**plain, **({"alpha": 7.0} if name == "als" else {"learning_rate": c.lr}))
    twin.fit(split.train, show_progress=False)
    np.testing.assert_array_equal(made.users, twin.user_factors)
    np.testing.assert_array_equal(made.items, twin.item_factors)


def test_sweeps_for_the_leading_values_show_progress(split, capsys, monkeypatch):
    monkeypatch.setattr("vbpr.base.progress.BRIEF", 0)
    x = split.train
    ease(split, np.arange(x.shape[1]), 4, 0, 1.0)
    assert re.search(r"singular values: \d+ of \d+ sweeps at most", capsys.readouterr().err)


def test_ease_says_no_to_a_catalogue_that_it_cannot_invert(split, monkeypatch):
    monkeypatch.setattr(ease_module, "EASE_ITEMS", 10)
    with pytest.raises(VbprError, match=r"22 bought items .* --model hybrid"):
        EASE(configure("ease")).fit(split, None)
    monkeypatch.undo()
    parts = {name: getattr(split, name)[:3] for name in ("user_ids", "train", "validation", "test")}
    few = dataclasses.replace(split, **parts)  # three users do not tell 22 items apart
    with pytest.raises(VbprError, match="EASE cannot be solved with a penalty of 0; raise reg_items"):
        EASE(configure("ease", reg_items=0.0)).fit(few, None)
