"""Items with identical vectors, as all have whose picture is the same "no photo": indexed once, answered one by one.

An approximate index links each vector to a few near ones; a thousand copies would link to each other alone, and hide
what lies behind them.
"""

import numpy as np

from ..base.arrays import Array

ROWS = 4096  # vectors compared at a time


def distinct(vectors: Array) -> tuple[Array, Array]:
    """Of vectors (n, K) float32: (m,) positions of the distinct ones, each where it comes first, and (n,) int64 which
    of these m each vector is."""
    n, dim = vectors.shape
    weights = np.random.default_rng(0).integers(2**63, size=dim, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    key = np.empty(n, np.uint64)
    for a in range(0, n, ROWS):
        bits = (vectors[a : a + ROWS] + np.float32(0)).view(np.uint32)  # -0 and 0 are the same number
        key[a : a + ROWS] = (bits * weights).sum(1)
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    leader = first[place]
    later = np.flatnonzero(leader != np.arange(n))
    for a in range(0, len(later), ROWS):  # different vectors may have the same key
        some = later[a : a + ROWS]
        alone = some[(vectors[some] != vectors[leader[some]]).any(1)]
        leader[alone] = alone
    firsts = np.flatnonzero(leader == np.arange(n))
    return firsts, np.searchsorted(firsts, leader)


def allowed_rows(row_of: Array, allowed: Array, count: int) -> Array:
    """(count,) bool: which indexed vectors belong to an item that is allowed.

    Args:
        row_of: (n,) int64, the vector of each item. allowed: (n,) bool.
    """
    rows = np.zeros(count, bool)
    rows[row_of[allowed]] = True
    return rows


def members_of(row_of: Array, allowed: Array | None = None) -> tuple[Array, Array]:
    """The items that have each vector: positions of all items (allowed), vector by vector, and (m,) how many each has.

    Args:
        row_of, allowed: see `allowed_rows`; of `allowed`, None for all.
    """
    order = np.argsort(row_of, kind="stable")
    if allowed is not None:
        order = order[allowed[order]]
    return order, np.bincount(row_of[order], minlength=int(row_of.max()) + 1)


def expanded(rows: Array, scores: Array, k: int, members: tuple[Array, Array]) -> tuple[Array, Array]:
    """Answers in vectors as answers in items: each vector (-1 for none) gives way to the items that have it.

    Args:
        rows, scores: (q, w), best first, w at least k or all that there are. members: see `members_of`.

    Returns:
        (q, k) positions of items and their scores, best first; -1 where there are no more.
    """
    items, sizes = members
    start = np.cumsum(sizes) - sizes
    many = np.where(rows < 0, 0, sizes[rows])
    before = np.cumsum(many, 1) - many
    many = np.clip(k - before, 0, many)
    count = many.ravel()
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # among the items of one vector
    query = np.repeat(np.arange(len(rows)), many.sum(1))
    place = np.repeat(before.ravel(), count) + nth
    listed, values = np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), -np.inf, np.float32)
    listed[query, place] = items[start[np.repeat(rows.ravel(), count)] + nth]
    values[query, place] = np.repeat(scores.ravel(), count)
    return listed, values


__all__ = ["allowed_rows", "distinct", "expanded", "members_of"]
