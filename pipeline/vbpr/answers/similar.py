"""Nearest items without some, and one of each group."""

import numpy as np

from ..base.arrays import Array
from ..stores.model.topk import one_per_group
from .nearest import Nearest

WIDEST = 4096  # nearest items that are gone through for some of different groups


def nearest_but(
    near: Nearest, query: Array, k: int, left_out: Array, allowed: Array | None, groups: Array | None
) -> tuple[Array, Array]:
    """At most k items nearest to a query (1, K), best first: positions and scores.

    Args:
        left_out: positions of items that must not come back.
        allowed: (n,) bool, the items that may; None for all.
        groups: (n,) int64 from 0; of a group only the nearest item comes, and none of a group of those left out.
    """
    wide = k + len(left_out)
    if groups is None:
        items, scores = near.search_many(query, wide, allowed)
        good = (items[0] >= 0) & ~np.isin(items[0], left_out)
        return items[0][good][:k], scores[0][good][:k]

    def search(_: Array, width: int) -> tuple[Array, Array]:
        return near.search_many(query, width, allowed)

    most = max(wide, min(len(near.item_ids), WIDEST))
    pairs = np.zeros(len(left_out), np.int64), left_out
    items, scores = one_per_group(search, 1, k, groups, pairs, wide, most, allowed)
    return items[0][items[0] >= 0], scores[0][items[0] >= 0]


__all__ = ["nearest_but"]
