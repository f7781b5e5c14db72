"""The items of highest score, in one fixed order, for one taste or for many; with variety, and one of each group.

scores = U @ I.T + b; equal scores in the catalogue's order
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...base.arrays import Array
from ...base.errors import VbprError
from .bounds import Best, Bounds
from .head import unit_rows
from .lookup import at_least_one, mask_of, positions

if TYPE_CHECKING:
    import scipy.sparse as sp

ROWS, ACROSS = 256, 2048  # users, and items or more, of a block of scores: 2 MB, which stay in the caches


def best(scores: Array, k: int) -> Array:
    """Positions of the k highest scores, best first; equal scores in the catalogue's order."""
    k = min(k, len(scores))
    if k <= 0:
        return np.array([], np.int64)
    floor = np.partition(scores, len(scores) - k)[len(scores) - k]
    at = np.flatnonzero(scores >= floor)
    return np.asarray(at[np.argsort(-scores[at], kind="stable")][:k])


POOL = 1000  # best items that variety is looked for among: a hundred may all be shoes


def diversified(scores: Array, vectors: Array, k: int, diversity: float) -> Array:
    """Maximal marginal relevance (Carbonell & Goldstein, 1998): positions of k of n items, chosen one after another by
    (1 - diversity) * score - diversity * greatest cosine to one already chosen, scores scaled to 0 to 1."""
    if not len(scores):
        return np.array([], np.int64)
    low, high = float(scores.min()), float(scores.max())
    gain = (scores - low) / max(high - low, 1e-12)
    unit = unit_rows(vectors)
    chosen = [int(np.argmax(gain))]
    nearest = unit @ unit[chosen[0]]
    while len(chosen) < min(k, len(scores)):
        value = (1 - diversity) * gain - diversity * nearest
        value[chosen] = -np.inf
        chosen.append(int(np.argmax(value)))
        nearest = np.maximum(nearest, unit @ unit[chosen[-1]])
    return np.array(chosen, np.int64)


def first_of_groups(items: Array, groups: Array) -> Array:
    """(n, k) bool: which of each row's items (positions, -1 for none) are the first of their group there."""
    group = np.where(items < 0, -1, groups[items])
    order = np.argsort(group, axis=1, kind="stable")
    ordered = np.take_along_axis(group, order, 1)
    first = np.empty(items.shape, bool)
    np.put_along_axis(first, order, np.diff(ordered, axis=1, prepend=-2) != 0, 1)
    return np.asarray(first & (items >= 0))


CELLS = 2**24  # positions and scores of lists that are gone through at a time: 200 MB


def one_per_group(
    search: Callable[[Array, int], tuple[Array, Array]],
    n: int,
    k: int,
    groups: Array,
    taken: tuple[Array, Array],
    start: int,
    most: int,
    offered: Array | None = None,
) -> tuple[Array, Array]:
    """The best item of each of the best k groups, for n queries: (n, k) positions and scores; -1 and -inf where there
    are no more.

    Queries whose list does not hold k groups are searched for again, each time for four times as many items.

    Args:
        search: (m,) queries (positions, 0 to n - 1) and a width -> (m, width) positions and scores of their best items,
            best first; -1 where there are no more.
        groups: (I,) int64 from 0.
        taken: queries and items, pair by pair: of these items' groups the query gets none.
        start, most: the first width, and the greatest.
        offered: (I,) bool, the items that `search` may return; None for all.
    """
    items, scores = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
    count = int(groups.max(initial=0)) + 1
    barred = np.unique(taken[0] * count + groups[taken[1]])  # a query and a group as one number
    available = np.bincount(groups if offered is None else groups[offered], minlength=count) > 0
    gone = np.bincount(barred[available[barred % count]] // count, minlength=n)
    reachable = np.minimum(k, available.sum() - gone)
    todo, width = np.arange(n), min(start, most)
    while len(todo) and width:
        short = []
        for a in range(0, len(todo), max(1, CELLS // width)):
            rows = todo[a : a + max(1, CELLS // width)]
            listed, values = search(rows, width)
            good = first_of_groups(listed, groups) & ~np.isin(rows[:, None] * count + groups[listed], barred)
            place = np.cumsum(good, 1) - 1
            row, column = np.nonzero(good & (place < k))
            items[rows], scores[rows] = -1, -np.inf
            items[rows[row], place[row, column]] = listed[row, column]
            scores[rows[row], place[row, column]] = values[row, column]
            short.append(rows[(place[:, -1] + 1 < reachable[rows]) & (listed[:, -1] >= 0)])
        if width == most:
            break
        todo, width = np.concatenate(short), min(4 * width, most)
    return items, scores


def top_of_scores(
    scores: Array,
    vectors: Callable[[Array], Array],
    k: int,
    exclude: Array | None = None,
    allowed: Array | None = None,
    diversity: float = 0.0,
    groups: Array | None = None,
) -> tuple[Array, Array]:
    """The at most k items of highest score for one taste, best first: positions and scores.

    Args:
        scores: (I,), of all items; changed in place.
        vectors: gives the vectors (n, K) of items by position.
        exclude, allowed, diversity, groups: see `Factors.choose`.

    Raises:
        VbprError: one of these is not as it must be.
    """
    at_least_one(k)
    if not 0 <= diversity <= 1:
        raise VbprError(f"diversity is {diversity}; it must be from 0 to 1")
    if allowed is not None:
        scores[~mask_of(allowed, len(scores))] = -np.inf
    out = np.zeros(0, np.int64) if exclude is None else np.atleast_1d(positions(exclude, len(scores), "item"))
    scores[out] = -np.inf

    def search(_: Array, width: int) -> tuple[Array, Array]:
        top = best(scores, width)
        return np.where(np.isfinite(scores[top]), top, -1)[None], scores[top][None]

    pool = k if not diversity else max(POOL, 10 * k)
    if groups is None:
        top = search(out, pool)[0][0]
    else:
        queries, most = np.zeros(len(out), np.int64), len(scores)
        top = one_per_group(search, 1, min(pool, most), groups, (queries, out), 4 * pool, most, allowed)[0][0]
    top = top[top >= 0]
    if diversity:
        top = top[diversified(scores[top], vectors(top), k, diversity)]
    return top, scores[top]


def top_for_many(
    tastes: Array,
    users: Array,
    vectors: Array,
    bias: Array,
    k: int,
    taken: "sp.csr_matrix | None",
    allowed: Array | None,
    groups: Array | None,
    block: int,
    advance: Callable[[int], None],
) -> tuple[Array, Array]:
    """The same for many users, by products of matrices: (n, k) positions and scores; -1 and -inf where there are no
    more.

    Args:
        tastes: (U, K), of everyone. users: (n,) positions among them.
        taken: (n, I) CSR, what each of the n must not get; None for nothing.
        allowed, groups, block, advance: see `Factors.recommend_all`.
    """
    if groups is None:
        return top_of_blocks(tastes, users, vectors, bias, k, taken, allowed, block, advance)
    start = min(4 * k, len(groups))

    def search(rows: Array, width: int) -> tuple[Array, Array]:
        some = taken if taken is None or len(rows) == len(users) else taken[rows]
        report = advance if width == start else lambda done: None  # each user counts once
        return top_of_blocks(tastes, users[rows], vectors, bias, width, some, allowed, block, report)

    nothing = np.zeros(0, np.int64)
    pairs = (nothing, nothing)
    if taken is not None:
        pairs = (np.repeat(np.arange(len(users)), np.diff(taken.indptr)), taken.indices)
    return one_per_group(search, len(users), k, groups, pairs, start, len(groups), allowed)


def top_of_blocks(
    tastes: Array,
    users: Array,
    vectors: Array,
    bias: Array,
    k: int,
    taken: "sp.csr_matrix | None",
    allowed: Array | None,
    block: int,
    advance: Callable[[int], None],
) -> tuple[Array, Array]:
    """`top_for_many` without groups: blocks of users by blocks of items, so that a block of bounds stays in a cache."""
    items, scores = np.full((len(users), k), -1, np.int64), np.full((len(users), k), -np.inf, np.float32)
    pool = np.arange(len(bias))
    if allowed is not None:
        pool = np.flatnonzero(mask_of(allowed, len(bias)))
        vectors, bias, taken = vectors[pool], bias[pool], None if taken is None else taken[:, pool]
    if taken is not None and not taken.has_sorted_indices:
        taken = taken.sorted_indices()
    width = min(k, len(pool))
    if not len(users) or not width:
        return items, scores
    bounds = Bounds.of(tastes[users], vectors, bias, width)
    across = min(len(pool), max(ACROSS, 2 * width))
    step = max(1, min(ROWS, block // across))
    memory = np.empty(min(step, len(users)) * across, np.float32)
    for a in range(0, len(users), step):
        pairs = None
        if taken is not None:
            some = taken[a : a + step]
            pairs = np.repeat(np.arange(some.shape[0]), np.diff(some.indptr)), some.indices
        top, looked = Best(bounds, tastes[users[a : a + step]], width, pairs), 1
        top.first(across)
        for n, first in enumerate(range(across, len(pool), across), start=1):
            top.look(first, min(first + across, len(pool)), memory)
            if n == looked:  # floors rise fast at first, and scoring candidates together is cheaper
                top.settle()
                looked *= 2
        top.settle()
        items[a : a + step, :width] = np.where(top.items < 0, -1, pool[top.items])
        scores[a : a + step, :width] = top.values
        advance(len(top.items))
    return items, scores


def most_similar(vectors: Array, at: int, k: int) -> tuple[Array, Array]:
    """The k vectors (n, K) of highest cosine to one of them: positions and cosines; none to a vector of zeros."""
    length = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    cosine = (vectors @ vectors[at]) / (length * length[at])
    cosine[at] = -np.inf
    top = best(cosine, min(k, len(cosine) - 1) if length[at] > 1e-12 else 0)
    return top, cosine[top]


__all__ = [
    "best",
    "diversified",
    "first_of_groups",
    "most_similar",
    "one_per_group",
    "top_for_many",
    "top_of_scores",
]
