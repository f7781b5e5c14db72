"""What there is to look at before anything is asked: items on a wall, and people to choose from.

The wall has three orders: by how many took an item, those that nobody took, and a walk through the map of looks.
"""

import functools
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...base.arrays import Array, places
from ...base.errors import VbprError
from ...data.dataset import Dataset
from ...data.items import Items
from ...data.parts import MATRICES
from ...stores.model.factors import Factors

ORDERS = ("popular", "new", "looks")
BITS = 10  # of a coordinate of the map: 1,024 x 1,024 places
FEWEST = 3  # items that a person must have taken to be offered
MOST_WORDS = 8
MOST_DATED = 20_000_000  # purchases whose times are read, 16 bytes each


class Browse:
    """Orders of the items and the people of one model. All that takes time is computed when it is first asked for."""

    def __init__(self, factors: Factors, meta: Mapping[str, dict[str, str]], dataset: Dataset) -> None:
        self.factors, self.meta, self.dataset = factors, meta, dataset
        self.parts = [getattr(factors, name) for name in MATRICES]

    @functools.cached_property
    def counts(self) -> Array:
        """(I,) int64, how many users took each item."""
        taken = (np.bincount(part.indices, minlength=part.shape[1]) for part in self.parts)
        return np.asarray(sum(taken))

    @functools.cached_property
    def words(self) -> pa.Array:
        """What is known of each item in words, in lower case: its id and every column of the table of items."""
        ids = pa.array(self.factors.item_ids.tolist())
        columns = []
        if isinstance(self.meta, Items):
            rows = pc.index_in(ids, value_set=pa.array(self.meta.ids))
            columns = [column.combine_chunks().take(rows) for column in self.meta.columns.values()]
        joined = pc.binary_join_element_wise(ids, *columns, " ", null_handling="replace", null_replacement="")
        return pc.utf8_lower(joined)

    @functools.cached_property
    def walk(self) -> Array:
        """(I,) int64: every item once, so that neighbours on the way look alike: a Hilbert curve through the plane of
        the first two principal axes of the item vectors, in which every strip holds as many items.

        Raises:
            VbprError: the model has no item vectors.
        """
        items = self.factors.items
        if items.shape[1] < 2 or len(items) < 2:
            raise VbprError("this model has no item vectors, so there is no map of looks")
        norms = np.linalg.norm(items, axis=1, keepdims=True)
        rows = items / np.where(norms > 0, norms, 1)
        mean = rows.mean(axis=0)
        axes = np.linalg.eigh(rows.T @ rows / len(rows) - np.outer(mean, mean))[1][:, -2:]
        places = np.argsort(np.argsort(rows @ axes, axis=0, kind="stable"), axis=0, kind="stable")
        return np.argsort(along_hilbert(*(places * 2**BITS // len(items)).T), kind="stable")

    def wall(self, order: str, search: str, mask: Array | None, offset: int, limit: int) -> tuple[int, Array]:
        """How many items there are, and the positions of some of them.

        Args:
            order: one of ORDERS. On the walk, `limit` items are spread over the whole map, and `offset` shifts them.
            search: words, all of which an item's id or columns must contain, in any case.
            mask: (I,) bool, the items that may come; None for all.

        Raises:
            VbprError: there is no map, or more than MOST_WORDS words.
        """
        keep = np.ones(len(self.counts), bool) if mask is None else mask.copy()
        wanted = search.lower().split()
        if len(wanted) > MOST_WORDS:
            raise VbprError(f"search: at most {MOST_WORDS} words")
        for word in wanted:
            keep &= np.asarray(pc.match_substring(self.words, word))
        if order == "popular":
            at = np.flatnonzero(keep)
            at = at[np.argsort(-self.counts[at], kind="stable")]
        elif order == "new":
            at = np.flatnonzero(keep & (self.counts == 0))[::-1]  # what came last by add-items is first
        else:
            at = self.walk[keep[self.walk]]
            starts = np.arange(0, len(at), max(1, -(-len(at) // limit)))
            return len(at), at[(starts + offset // limit) % max(len(at), 1)]
        return len(at), at[offset : offset + limit]

    def people(self, offset: int, limit: int) -> Array:
        """(at most limit,) positions of users who took FEWEST items at least, in an order that is the same every time
        and has nothing to do with their ids."""
        return self.shuffled[offset : offset + limit]

    def last_taken(self, user: int, limit: int) -> Array:
        """(at most limit,) positions of what a user took last, the latest first. What `update` took in has no time in
        the data set and is newest. Where no times are known: the items that fewest others took."""
        taken = self.factors.seen_by(user)
        keys, times = self.dated
        if not len(keys):
            return taken[np.argsort(self.counts[taken], kind="stable")[:limit]]
        wanted = user * len(self.factors.item_ids) + taken.astype(np.int64)
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        when = np.where(keys[at] == wanted, times[at], np.inf)
        return taken[np.argsort(-when, kind="stable")[:limit]]

    @functools.cached_property
    def dated(self) -> tuple[Array, Array]:
        """(P,) int64 user * I + item, ascending, and (P,) float64 seconds of the data set's purchases by this model's
        users; both empty where the data set has no times, cannot be read, or the model knows over MOST_DATED."""
        none = np.zeros(0, np.int64), np.zeros(0)
        if sum(part.nnz for part in self.parts) > MOST_DATED:
            return none
        try:
            events = self.dataset.interactions()
        except VbprError:  # the data set may be gone since
            return none
        if events.times is None:
            return none
        users = places(self.factors.user_ids, events.user_ids)[events.users].astype(np.int64)
        items = places(self.factors.item_ids, events.item_ids)[events.items]
        keep = (users >= 0) & (items >= 0)
        keys, times = (users * len(self.factors.item_ids) + items)[keep], events.times[keep]
        order = np.argsort(keys, kind="stable")
        return keys[order], times[order]

    @functools.cached_property
    def shuffled(self) -> Array:
        taken = sum(np.diff(part.indptr) for part in self.parts)
        return np.random.default_rng(0).permutation(np.flatnonzero(taken >= FEWEST))


def along_hilbert(x: Array, y: Array) -> Array:
    """(n,) places, 0 to 4**BITS - 1, of points with coordinates 0 to 2**BITS - 1 on Hilbert's curve (Hilbert, 1891)."""
    x, y, place = x.copy(), y.copy(), np.zeros_like(x)
    side = 2 ** (BITS - 1)
    while side:
        right, up = (x & side) > 0, (y & side) > 0
        place += side * side * ((3 * right) ^ up)
        turned = right & ~up
        x[turned], y[turned] = 2**BITS - 1 - x[turned], 2**BITS - 1 - y[turned]
        x[~up], y[~up] = y[~up], x[~up].copy()
        side //= 2
    return place


__all__ = ["FEWEST", "ORDERS", "Browse", "along_hilbert"]
