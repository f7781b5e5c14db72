"""Exact metrics against naive loops, scikit-learn and ranx."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import ITEMS, USERS, brute_auc, case, ranks_of, scores_of
from vbpr import VbprError
from vbpr.evaluation.metrics import average_precision, hit_rate, mean_auc, mrr, ndcg, recall
from vbpr.evaluation.ranks import held_out_ranks, subset


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_auc_equals_brute_force_with_ties(seed, strict):
    factors, train, held = case(seed)
    expected = brute_auc(scores_of(factors), train, held, strict)
    np.testing.assert_allclose(mean_auc(ranks_of(factors, train, held), strict), expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 25))
def test_auc_equals_brute_force_on_any_matrix(seed, users, items):
    rng = np.random.default_rng(seed)
    factors = [torch.tensor(rng.integers(-1, 2, s), dtype=torch.float32) for s in ((users, 2), (items, 2), (items,))]
    kind = rng.integers(0, 4, (users, items))
    train, held = kind == 1, kind == 2
    complete = (train | held).all(1)  # nothing is left to compare with
    held[complete] = False
    expected = brute_auc(scores_of(factors), train, held, False)
    np.testing.assert_allclose(mean_auc(ranks_of(factors, train, held)), expected, atol=1e-12)


def test_blocks_do_not_matter():
    factors, train, held = case(1)
    whole = ranks_of(factors, train, held)
    for block in (1, ITEMS, 3 * ITEMS + 1, 10**9):
        part = ranks_of(factors, train, held, user_block=block, item_block=block)
        for name in ("users", "items", "above", "ties", "candidates", "rank"):
            np.testing.assert_array_equal(getattr(whole, name), getattr(part, name))


@pytest.mark.parametrize("item_block", [768, 7])
def test_many_items_in_several_blocks_and_many_held_out(item_block):
    """Padding, users with up to 60 held-out items beside some with one, vectors that occur twice."""
    rng, count = np.random.default_rng(5), 5000
    users, items, bias = (rng.standard_normal(s).astype(np.float32) for s in ((9, 16), (count, 16), (count,)))
    items[4000:] = items[:1000]
    bias[4000:] = bias[:1000]
    train, held = np.zeros((9, count), bool), np.zeros((9, count), bool)
    for u in range(9):
        mine = rng.permutation(count)
        train[u, mine[:50]], held[u, mine[50 : 50 + (60 if u in (2, 5) else u % 3)]] = True, True
    factors = [torch.from_numpy(a) for a in (users, items, bias)]
    ranks = ranks_of(factors, train, held, user_block=4, item_block=item_block)
    scores = np.stack(
        [torch.addmv(factors[2], factors[1], row).numpy() for row in factors[0]]
    )  # equal rows, equal scores
    scores[:, 4000:] = scores[:, :1000]
    for at, (u, i) in enumerate(zip(*np.nonzero(held), strict=True)):
        others = scores[u, ~(train[u] | held[u])]
        assert (ranks.users[at], ranks.items[at]) == (u, i)
        assert ranks.ties[at] == (others == scores[u, i]).sum() and ranks.candidates[at] == len(others)
        assert abs(int(ranks.above[at]) - (others > scores[u, i] + 1e-5).sum()) <= 1
    assert ranks.ties.sum() > 10


@pytest.mark.parametrize("count", [7, 30, 101, 511])
def test_equal_vectors_tie_in_a_catalogue_of_any_size(count):
    """All items alike: every candidate ties, though a matrix product sums its last columns in another order."""
    rng = np.random.default_rng(count)
    users, one = (rng.standard_normal(s).astype(np.float32) for s in ((13, 17), (1, 17)))
    factors = [torch.from_numpy(a) for a in (users, np.repeat(one, count, 0), np.ones(count, np.float32))]
    held = np.zeros((13, count), bool)
    held[np.arange(13), rng.integers(0, count, 13)] = True
    ranks = ranks_of(factors, np.zeros_like(held), held)
    assert not ranks.above.any() and (ranks.ties == count - 1).all()


def test_places_among_tied_held_out_items():
    """A held-out item's place: one more than the unseen and held-out items above it, half of those it ties with."""
    factors, train, held = case(8)
    scores = scores_of(factors)
    ranks = ranks_of(factors, train, held)
    tied = 0
    for at, (u, i) in enumerate(zip(*np.nonzero(held), strict=True)):
        rivals = [j for j in range(ITEMS) if not train[u, j] and j != i]
        equal = [j for j in rivals if scores[u, j] == scores[u, i]]
        tied += any(held[u, j] for j in equal)
        assert ranks.rank[at] == 1 + sum(scores[u, j] > scores[u, i] for j in rivals) + 0.5 * len(equal)
    assert tied > 3


def test_no_candidates_is_chance_and_no_number_is_refused():
    factors, train, held = case(2, ties=False)
    train[3], held[3] = True, False
    held[3, 7], train[3, 7] = True, False
    ranks = ranks_of(factors, train, held)
    assert ranks.auc[ranks.users == 3].tolist() == ranks.auc_strict[ranks.users == 3].tolist() == [0.5]
    for place in range(3):
        broken = [f.clone() for f in factors]
        broken[place].view(-1)[5] = torch.nan
        with pytest.raises(VbprError, match="not all finite"):
            ranks_of(broken, train, held)
    nobody = [factors[0][:0], *factors[1:]]
    assert len(ranks_of(nobody, train[:0], held[:0]).users) == 0
    with pytest.raises(VbprError, match="its scores are not all finite"):  # though the numbers are
        ranks_of([1e25 * factors[0], 1e25 * factors[1], factors[2]], train, held)


def test_auc_equals_scikit_learn():
    from sklearn.metrics import roc_auc_score

    factors, train, held = case(2, several=False)
    scores, found = scores_of(factors), mean_auc(ranks_of(factors, train, held))
    expected = [roc_auc_score(held[u][~train[u]], scores[u][~train[u]]) for u in range(len(scores)) if held[u].any()]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def toy(scores, positive):
    n = len(scores)
    factors = torch.zeros(1, 1), torch.zeros(n, 1), torch.tensor(scores)
    held = np.zeros((1, n), bool)
    held[0, positive] = True
    return ranks_of(factors, np.zeros((1, n), bool), held)


def test_toy_with_a_tie():
    ranks = toy([0.9, 0.5, 0.5, 0.1], 1)
    assert mean_auc(ranks, strict=True)[0] == pytest.approx(1 / 3)
    assert mean_auc(ranks)[0] == pytest.approx(1 / 2)


def test_auc_ignores_shift_scale_and_the_scores_of_excluded_items():
    (users, items, bias), train, held = case(3)
    base = ranks_of((users, items, bias), train, held)
    shifted = (
        torch.cat([4 * users, torch.arange(USERS)[:, None].float()], 1),
        torch.cat([items, torch.ones(ITEMS, 1)], 1),
    )
    again = ranks_of((*shifted, 4 * bias), train, held)  # score -> 4 score + u
    np.testing.assert_array_equal(base.auc, again.auc)
    everybody = train.copy()
    everybody[:, :5] = True
    kept = held & ~everybody
    moved = bias.clone()
    moved[:5] += 100
    np.testing.assert_array_equal(
        ranks_of((users, items, bias), everybody, kept).auc, ranks_of((users, items, moved), everybody, kept).auc
    )


def test_order_of_the_items_does_not_matter():
    (users, items, bias), train, held = case(4, several=False)
    order = np.random.default_rng(0).permutation(ITEMS)
    at = torch.from_numpy(order)
    found = ranks_of((users, items[at], bias[at]), train[:, order], held[:, order])
    np.testing.assert_array_equal(mean_auc(ranks_of((users, items, bias), train, held)), mean_auc(found))


def naive_rank_metrics(scores, train, held, k):
    rows = []
    for u in np.flatnonzero(held.any(1)):
        order = [i for i in np.argsort(-scores[u]) if not train[u, i]]
        hits = np.array([held[u, i] for i in order])
        places = np.flatnonzero(hits) + 1
        gains = (1 / np.log2(1 + places[places <= k])).sum()
        ideal = (1 / np.log2(2 + np.arange(min(k, len(places))))).sum()
        rows.append(
            (
                gains / ideal,
                (places <= k).mean(),
                float((places <= k).any()),
                1 / places[0],
                np.mean(np.arange(1, len(places) + 1) / places),
            )
        )
    return np.array(rows).T


@pytest.mark.parametrize("k", [1, 5, 20])
def test_rank_metrics_equal_their_naive_twins(k):
    factors, train, held = case(6, ties=False)
    ranks = ranks_of(factors, train, held)
    found = ndcg(ranks, k), recall(ranks, k), hit_rate(ranks, k), mrr(ranks), average_precision(ranks)
    for a, b in zip(found, naive_rank_metrics(scores_of(factors), train, held, k), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_rank_metrics_equal_ranx():
    import ranx

    factors, train, held = case(7, ties=False)
    scores, ranks = scores_of(factors), ranks_of(factors, train, held)
    users = np.flatnonzero(held.any(1))
    qrels = ranx.Qrels({str(u): {str(i): 1 for i in np.flatnonzero(held[u])} for u in users})
    run = ranx.Run({str(u): {str(i): float(scores[u, i]) for i in np.flatnonzero(~train[u])} for u in users})
    expected = ranx.evaluate(qrels, run, ["ndcg@10", "recall@20", "hit_rate@10", "mrr", "map"])
    found = {
        "ndcg@10": ndcg(ranks, 10),
        "recall@20": recall(ranks, 20),
        "hit_rate@10": hit_rate(ranks, 10),
        "mrr": mrr(ranks),
        "map": average_precision(ranks),
    }
    for name, value in found.items():
        assert value.mean() == pytest.approx(expected[name], abs=1e-9), name


def test_subset_keeps_ranks():
    factors, train, held = case(8)
    ranks = ranks_of(factors, train, held)
    keep = ranks.items % 2 == 0
    part = subset(ranks, keep)
    np.testing.assert_array_equal(part.rank, ranks.rank[keep])
    assert len(mean_auc(part)) == len(np.unique(ranks.users[keep]))
    assert len(mean_auc(subset(ranks, np.zeros(len(keep), bool)))) == 0


def test_large_numbers_are_fine_as_long_as_their_scores_are():
    """The squares of 1e20 are beyond float32, and so are products of two such rows, but not of one and a small one."""
    users, items, bias = torch.full((3, 2), 1e20), torch.rand(4, 2), torch.zeros(4)
    held = sp.csr_matrix(np.eye(3, 4, dtype=np.float32))
    assert np.isfinite(held_out_ranks(users, 1e-4 * items, bias, held, held).auc).all()
    with pytest.raises(VbprError, match="not all finite"):
        held_out_ranks(users, 1e20 * items, bias, held, held)
