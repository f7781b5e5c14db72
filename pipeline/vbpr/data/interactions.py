"""Who took what: the validated pairs of users and items, whatever file or table they come from.

interactions = Interactions.read("data/interactions.csv")
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array, Strings
from ..base.errors import VbprError, counted
from ..base.progress import console
from .readers import read_columns
from .values import Coded, distinct, given_splits, given_times


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Interactions:
    """Distinct (user, item) pairs, sorted by user and item; of a repeated pair the first event
    counts, and where events say to which part they belong, train before the others.

    Attributes:
        user_ids: (U,) strings, as given, sorted.
        item_ids: (I,) strings, as given, sorted.
        users, items: (P,) int32 positions into the ids, one entry a pair.
        times: (P,) float64 seconds, or None.
        splits: (P,) uint8: 0 train, 1 validation, 2 test, or None.
        unread: why the file's `timestamp` or `split` is not among them, where it could not be read.
    """

    user_ids: Strings
    item_ids: Strings
    users: Array
    items: Array
    times: Array | None = None
    splits: Array | None = None
    unread: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, users: Any, items: Any, times: Any = None, splits: Any = None) -> "Interactions":
        """Build from one entry an event.

        Args:
            users, items: ids, or anything that `str` names.
            times: seconds, or NumPy's dates. splits: the codes of `Interactions.splits`.

        Raises:
            VbprError: there are none, columns differ in length, or one has a value that is none.
        """
        user_ids, u = distinct("user", users)
        item_ids, i = distinct("item", items)
        if not len(u):
            raise VbprError("there are no interactions; each needs a user and an item")
        when = np.zeros(len(u)) if times is None else given_times(times)
        part = np.zeros(len(u), np.uint8) if splits is None else given_splits(splits)
        if not len(u) == len(i) == len(when) == len(part):
            raise VbprError(
                f"{len(u):,} users, {len(i):,} items, {len(when):,} times and {len(part):,} splits were given; each "
                "event has one of each"
            )
        key = u.astype(np.int64) * len(item_ids) + i
        order = np.lexsort((when, part, key))  # train before test, then the earliest
        first = order[np.diff(key[order], prepend=-1) > 0]
        return cls(
            user_ids,
            item_ids,
            u[first].astype(np.int32),
            i[first].astype(np.int32),
            None if times is None else when[first],
            None if splits is None else part[first],
        )

    @classmethod
    def read(cls, path: Path | str) -> "Interactions":
        """Read a CSV, TSV (either may be gzipped) or Parquet file with a user and an item column, under any of the
        field's usual names, and optionally a timestamp and a `split` column (train, validation, test); a folder of such
        files, as Spark writes it; or a folder with train, validation and test as files. Where time or split
        cannot be read, `unread` says why, and a split that needs them refuses.

        Raises:
            VbprError: no such file, no such column, or a bad user or item; the message has the line.
        """
        path = Path(path)
        if not (path.is_file() or path.is_dir()):
            raise VbprError(
                f"{path} does not exist; interactions are a CSV, TSV or Parquet file with the columns "
                "user_id and item_id"
            )
        try:
            columns = read_columns(path)
            for note in (*columns.notes, *nobody("user", columns.users), *nobody("item", columns.items)):
                console.print(f"note: {path}: {note}")
            read = cls.of(columns.users, columns.items, columns.times, columns.splits)
            return dataclasses.replace(read, unread=columns.unread)
        except MemoryError as error:
            raise VbprError(f"{path}: out of memory reading it; stop other programs or use a larger machine") from error

    def __repr__(self) -> str:
        return f"Interactions({len(self.user_ids):,} users, {len(self.item_ids):,} items, {len(self.users):,} pairs)"

    def __len__(self) -> int:
        return len(self.users)

    def select(self, keep: Array) -> "Interactions":
        """The pairs under a mask or list of positions; users and items left without any are dropped.

        Raises:
            VbprError: no pair is.
        """
        chosen = np.zeros(len(self), bool)
        chosen[keep] = True
        keep = np.flatnonzero(chosen)
        if not len(keep):
            raise VbprError("no interaction is selected; choose at least one")
        user_ids, users = compact(self.user_ids, self.users[keep])
        item_ids, items = compact(self.item_ids, self.items[keep])
        times, splits = (None if of is None else of[keep] for of in (self.times, self.splits))
        return Interactions(user_ids, item_ids, users, items, times, splits, self.unread)

    def k_core(self, k: int) -> "Interactions":
        """The largest part in which every user and every item has at least k interactions.

        Raises:
            VbprError: nothing is left.
        """
        keep = np.arange(len(self))
        while True:
            users, items = np.bincount(self.users[keep]), np.bincount(self.items[keep])
            inside = (users[self.users[keep]] >= k) & (items[self.items[keep]] >= k)
            if inside.all():
                break
            keep = keep[inside]
            if not len(keep):
                raise VbprError(f"no interaction is left when every user and item must have {k}; lower --k-core")
        return self.select(keep)


def nobody(what: str, column: Coded) -> list[str]:
    """Notes on ids that programs write where there is none: guests would be one user who took everything."""
    rows = np.bincount(column.places, minlength=len(column.names))
    words = {str(word): int(rows[column.names == word].sum()) for word in column.names if word.lower() in NO_IDS}
    return [
        f"{word} is the {what} of {counted(count, 'row')}, as if it were one {what}; leave them out if it means none"
        for word, count in words.items()
    ]


NO_IDS = {
    "null",
    "(null)",
    r"\n",
    "nan",
    "none",
    "na",
    "n/a",
    "<na>",
    "nil",
    "nat",
    "undefined",
    "-1",
    "guest",
    "unknown",
    "anonymous",
}


def compact(ids: Strings, places: Array) -> tuple[Strings, Array]:
    """The ids that occur at any of these places, and (n,) int32 places among them."""
    used = np.bincount(places, minlength=len(ids)) > 0
    return ids[used], (np.cumsum(used, dtype=np.int32) - 1)[places]


__all__ = ["Interactions"]
