"""What ranks say, a number a user: AUC, NDCG, Recall, hit rate, MRR, MAP."""

import numpy as np

from ..base.arrays import Array
from .ranks import Ranks


def ndcg(ranks: Ranks, k: int) -> Array:
    """(n,) of each user with held-out items: NDCG@k with binary gains."""
    gains = np.where(ranks.rank <= k, 1 / np.log2(1 + ranks.rank), 0)
    counts = by_user(ranks, np.ones(len(gains)))
    ideal = np.cumsum(1 / np.log2(2 + np.arange(k)))[np.minimum(counts.astype(int), k) - 1]
    return np.asarray(by_user(ranks, gains) / ideal)


def recall(ranks: Ranks, k: int) -> Array:
    """(n,) share of a user's held-out items in the first k."""
    return mean_by_user(ranks, (ranks.rank <= k).astype(float))


def hit_rate(ranks: Ranks, k: int) -> Array:
    """(n,) whether any of a user's held-out items is in the first k."""
    return (by_user(ranks, (ranks.rank <= k).astype(float)) > 0).astype(float)


def mrr(ranks: Ranks) -> Array:
    """(n,) one over the rank of a user's first held-out item."""
    return np.maximum.reduceat(1 / ranks.rank, starts(ranks))


def average_precision(ranks: Ranks) -> Array:
    """(n,) mean over a user's held-out items of the precision at each one's rank."""
    order = np.lexsort((ranks.rank, ranks.users))
    first = np.repeat(starts(ranks), by_user(ranks, np.ones(len(order))).astype(int))
    return mean_by_user(ranks, (np.arange(len(order)) - first + 1) / ranks.rank[order])


def mean_auc(ranks: Ranks, strict: bool = False) -> Array:
    """(n,) AUC of each user: the mean over the held-out items."""
    return mean_by_user(ranks, ranks.auc_strict if strict else ranks.auc)


def starts(ranks: Ranks) -> Array:
    """Where each user's entries begin."""
    return np.flatnonzero(np.r_[True, ranks.users[1:] != ranks.users[:-1]]) if len(ranks.users) else np.array([], int)


def by_user(ranks: Ranks, values: Array) -> Array:
    return np.add.reduceat(values, starts(ranks)) if len(values) else values


def mean_by_user(ranks: Ranks, values: Array) -> Array:
    return by_user(ranks, values) / by_user(ranks, np.ones(len(values)))


__all__ = ["average_precision", "hit_rate", "mean_auc", "mrr", "ndcg", "recall"]
