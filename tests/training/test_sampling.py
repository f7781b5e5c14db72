"""The triplet sampler: what it may draw, and how often."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from vbpr import VbprError
from vbpr.training.models.bpr.sampling import TripletSampler

CPU = torch.device("cpu")


def sampler(rows, items, seed=0, **options):
    """rows: the train items of each user."""
    indptr = np.r_[0, np.cumsum([len(r) for r in rows])].astype(np.int32)
    indices = np.array([i for r in rows for i in sorted(r)], np.int32)
    train = sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(rows), items))
    return TripletSampler(train, CPU, torch.Generator().manual_seed(seed), **options)


def probable(observed, expected):
    expected = np.asarray(expected, float)
    return chisquare(observed, expected * np.sum(observed) / expected.sum()).pvalue > 1e-4


ROWS = [[0, 1, 2, 5], [3], [0, 7, 9], [2, 3, 4, 5, 6, 8]]


def test_positives_are_uniform_over_interactions():
    s = sampler(ROWS, 10)
    u, i = s.positives(40_000)
    pairs = [(a, b) for a, row in enumerate(ROWS) for b in row]
    found = dict(zip(*np.unique(u.numpy() * 10 + i.numpy(), return_counts=True), strict=True))
    assert sorted(found) == sorted(a * 10 + b for a, b in pairs)
    assert probable(list(found.values()), np.ones(len(pairs)))


def test_positives_are_uniform_over_users_and_then_over_items():
    s = sampler(ROWS, 10, positives="users")
    u, i = s.positives(40_000)
    assert probable(np.bincount(u), np.ones(len(ROWS)))
    of_last = np.bincount(i[u == 3])[ROWS[3]]
    assert probable(of_last, np.ones(len(ROWS[3])))


@pytest.mark.parametrize("together", [1, 2, 4, 100])
def test_an_epoch_holds_each_pair_once_in_runs_of_a_user(together):
    rows = [*ROWS, list(range(10)), []]  # a user of everything, and one of nothing, have no triplet
    s = sampler(rows, 10)
    pairs = sorted((u, i) for u, row in enumerate(ROWS) for i in row)
    runs, orders = [], set()
    for number in range(300):
        order = s.epoch(number, together)
        u, i = s.rows[order].tolist(), s.columns[order].tolist()
        assert sorted(zip(u, i, strict=True)) == pairs
        if together > 1:  # cut into runs as long as they may be: as many as there must be, and neighbours apart
            lengths = np.diff(np.flatnonzero(np.r_[1, np.diff(u), 1]))
            assert sum(-(-length // together) for length in lengths) <= sum(-(-len(r) // together) for r in ROWS)
        orders.add(tuple(order.tolist()))
        runs.append((u[0], i[0]))
    assert len(orders) > 250  # another order each epoch
    assert torch.equal(s.epoch(7, together), s.epoch(7, together))
    assert not torch.equal(s.epoch(7, together), sampler(rows, 10, seed=1).epoch(7, together))
    if together == 2:  # what a run begins with, and what comes with what, is chance: user 0 of four items
        first = np.bincount([i for u, i in runs if u == 0], minlength=10)
        assert (first[ROWS[0]] > 0).all()


def test_the_items_of_a_run_are_any_of_its_user():
    """Chi-square over which two of a user's four items come together."""
    s, together = sampler([[0, 1, 2, 5], [3]], 10), np.zeros(6)
    which = {pair: n for n, pair in enumerate([(0, 1), (0, 2), (0, 5), (1, 2), (1, 5), (2, 5)])}
    for number in range(3000):
        order = s.epoch(number, 2)
        i = s.columns[order[s.rows[order] == 0]].tolist()
        together[which[tuple(sorted(i[:2]))]] += 1  # the other two are what is left
    assert probable(together, np.ones(6))


def test_an_epoch_by_users_is_uniform_over_users_and_their_items():
    s = sampler(ROWS, 10, positives="users")
    order = torch.cat([s.epoch(number) for number in range(3000)])
    u, i = s.rows[order].numpy(), s.columns[order].numpy()
    assert probable(np.bincount(u), np.ones(len(ROWS)))
    assert probable(np.bincount(i[u == 3])[ROWS[3]], np.ones(len(ROWS[3])))


@pytest.mark.parametrize("user", range(4))
def test_negatives_are_exactly_uniform_over_the_complement(user):
    s = sampler(ROWS, 10)
    j = s.outside(torch.full((30_000,), user)).numpy()
    outside = [i for i in range(10) if i not in ROWS[user]]
    count = np.bincount(j, minlength=10)
    assert not count[ROWS[user]].any()
    assert probable(count[outside], np.ones(len(outside)))


def test_each_uniform_number_names_another_item_outside():
    """Exact, not statistical: the r-th number gives the r-th item outside the user's train items."""
    s = sampler(ROWS, 10)
    for user, row in enumerate(ROWS):
        outside = [i for i in range(10) if i not in row]
        s.below = lambda bound, n: torch.arange(n)
        assert s.outside(torch.full((len(outside),), user)).tolist() == outside


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 9).flatmap(
        lambda items: st.tuples(st.just(items), st.lists(st.sets(st.integers(0, items - 1)), min_size=1, max_size=6))
    ),
    st.sampled_from(["uniform", "popularity"]),
    st.sampled_from(["interactions", "users"]),
)
def test_triplets_are_valid_whatever_the_matrix(case, negatives, positives):
    items, rows = case
    rows = [list(r) for r in rows]
    useful = [u for u, r in enumerate(rows) if 0 < len(r) < items]
    if not useful:
        with pytest.raises(VbprError, match="no user has both"):
            sampler(rows, items)
        return
    s = sampler(rows, items, negatives=negatives, positives=positives)
    for u, i, j in zip(*(t.tolist() for t in s.draw(200)), strict=True):
        assert u in useful and i in rows[u] and j not in rows[u]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_popular_negatives_have_the_probabilities_of_four_tries(share):
    """Chi-square for each user: what is still inside after four draws by popularity stays uniform."""
    rows = [[0], *[[1, 2]] * 6, *[[1, 4]] * 3, [3, 5, 6]]
    popularity = np.bincount(np.concatenate(rows), minlength=8) / sum(map(len, rows))
    u, _, j = sampler(rows, 8, negatives="popularity", popularity_share=share).draw(120_000)
    for user in (0, 1, 7, 10):
        outside = np.setdiff1d(np.arange(8), rows[user])
        inside = popularity[rows[user]].sum()
        popular = popularity[outside] / (1 - inside)
        uniform = 1 / len(outside)
        expected = (1 - share) * uniform + share * ((1 - inside**4) * popular + inside**4 * uniform)
        assert probable(np.bincount(j[u == user], minlength=8)[outside], expected)


def test_shared_candidates_mix_uniform_and_popular():
    rows = [*[[0]] * 30, [1, 2]]
    count = np.bincount(sampler(rows, 8).candidates(20_000), minlength=8)
    assert probable(count, np.ones(8))
    s = sampler(rows, 8, negatives="popularity", popularity_share=0.25)
    count = np.bincount(s.candidates(40_000), minlength=8)
    assert probable(count, 0.75 / 8 + 0.25 * np.array([30, 1, 1, 0, 0, 0, 0, 0]) / 32)


def test_allowed_equals_membership():
    s = sampler(ROWS, 10)
    u, j = torch.tensor([3, 0, 0, 1, 2]), torch.tensor([9, 2, 5, 0])
    expected = [[int(b) not in ROWS[int(a)] for b in j] for a in u]
    assert s.allowed(u, j).tolist() == expected


def test_same_seed_same_triplets_and_other_seed_others():
    a, b, c = (torch.stack(sampler(ROWS, 10, seed=seed).draw(100)) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("options", [{"positives": "all"}, {"negatives": "hard"}])
def test_unknown_rules_are_refused(options):
    with pytest.raises(VbprError, match="choose from"):
        sampler(ROWS, 10, **options)


def test_runs_come_in_any_order_and_are_of_one_user():
    s = sampler([[0, 1, 2], [3, 4], [5]], 10)
    orders = [s.rows[s.epoch(n, 2)].tolist() for n in range(100)]
    assert {users[0] for users in orders} == {0, 1, 2}
    for users in orders:
        assert sorted(users) == [0, 0, 0, 1, 1, 2] and abs(np.diff(np.flatnonzero(np.array(users) == 1))[0]) == 1
