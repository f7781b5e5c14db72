"""The best of many scores, in one fixed order; with variety, and one of each group."""

import numpy as np

from ...base.arrays import Array
from .head import unit_rows

ROWS, ACROSS = 256, 2048  # users, and items or more, of a block of scores: 2 MB, which stay in the caches


def best(scores: Array, k: int) -> Array:
    """Positions of the k highest scores, best first; equal scores in the catalogue's order."""
    k = min(k, len(scores))
    if k <= 0:
        return np.array([], np.int64)
    floor = np.partition(scores, len(scores) - k)[len(scores) - k]
    at = np.flatnonzero(scores >= floor)
    return np.asarray(at[np.argsort(-scores[at], kind="stable")][:k])


def best_of_rows(top: tuple[Array, Array], scores: Array, first: int) -> None:
    """Bring what a block of scores has to offer into the best of each row so far.

    Args:
        top: (n, k) positions and scores, best first, equal ones in the catalogue's order; -1 and -inf where there is
            nothing yet. Changed in place.
        scores: (n, m), of the items from position `first` on, which come after those of `top`.
    """
    items, values = top
    (k, m), floor = (values.shape[1], scores.shape[1]), values[:, -1:]
    better = scores > floor
    if m > k and np.isneginf(floor).any():  # as at the start: no more than the best k of the block come in
        better &= scores >= np.partition(scores, m - k, axis=1)[:, m - k, None]
    row, column = np.nonzero(better)
    changed = np.unique(row)
    who = np.concatenate([np.repeat(changed, k), row])
    item = np.concatenate([items[changed].ravel(), column + first])
    value = np.concatenate([values[changed].ravel(), scores[row, column]])
    order = np.lexsort((item, -value, who))
    order = order[np.arange(len(who)) - np.searchsorted(who[order], who[order]) < k]
    items[changed], values[changed] = item[order].reshape(-1, k), value[order].reshape(-1, k)


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
    own = np.where(items < 0, -1, groups[items])
    order = np.argsort(own, axis=1, kind="stable")
    ordered = np.take_along_axis(own, order, 1)
    first = np.empty(items.shape, bool)
    np.put_along_axis(first, order, np.diff(ordered, axis=1, prepend=-2) != 0, 1)
    return np.asarray(first & (items >= 0))


__all__ = ["ACROSS", "POOL", "ROWS", "best", "best_of_rows", "diversified", "first_of_groups"]
