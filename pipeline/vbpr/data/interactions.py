"""Who took what: the validated pairs of users and items, whatever file or table they come from.

interactions = Interactions.read("data/interactions.csv")
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..base.arrays import Array, Strings
from ..base.errors import VbprError, counted
from ..base.progress import console
from .readers import read_columns
from .values import Coded, Columns, distinct, given_splits, given_times
from .where import ALL_ROWS, Rows


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
        named: what the file calls its user_id, item_id, timestamp and split.
        rows: which of the file's rows are read, in words; "" for all.
    """

    user_ids: Strings
    item_ids: Strings
    users: Array
    items: Array
    times: Array | None = None
    splits: Array | None = None
    unread: Mapping[str, str] = dataclasses.field(default_factory=dict)
    named: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rows: str = ""

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
        when = None if times is None else given_times(times)
        part = None if splits is None else given_splits(splits)
        counts = [len(u), len(i), *(len(u) if of is None else len(of) for of in (when, part))]
        if len(set(counts)) > 1:
            raise VbprError(
                "{:,} users, {:,} items, {:,} times and {:,} splits were given; each event has one of each".format(
                    *counts
                )
            )
        return cls(user_ids, item_ids, *first_events(u, i, len(item_ids), when, part))

    @classmethod
    def read(
        cls, path: Path | str, rows: Rows = ALL_ROWS, reader: Callable[[Path, Rows], Columns] = read_columns
    ) -> "Interactions":
        """Read a CSV, TSV (either may be gzipped) or Parquet file with a user and an item column, under any of the
        field's usual names, and optionally a timestamp and a `split` column (train, validation, test); a folder of such
        files, as Spark writes it; or a folder with train, validation and test as files. Where time or split
        cannot be read, `unread` says why, and a split that needs them refuses.

        Args:
            rows: which rows of the file are read: `Rows("quantity > 0")`.
            reader: of a file of another form.

        Raises:
            VbprError: no such file, no such column, no row that is read, or a bad user or item; the message has the
                line.
        """
        path = Path(path)
        if not (path.is_file() or path.is_dir()):
            raise VbprError(
                f"{path} does not exist; interactions are a CSV, TSV or Parquet file with the columns "
                "user_id and item_id"
            )
        try:
            columns = reader(path, rows)
            for note in (*columns.notes, *nobody("user", columns.users), *nobody("item", columns.items)):
                console.print(f"note: {path}: {note}")
            read = cls.of(columns.users, columns.items, columns.times, columns.splits)
            return dataclasses.replace(read, unread=columns.unread, named=columns.named, rows=rows.rule)
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
        return Interactions(user_ids, item_ids, users, items, times, splits, self.unread, self.named, self.rows)

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


def first_events(
    users: Array, items: Array, n_items: int, times: Array | None, splits: Array | None
) -> tuple[Array, Array, Array | None, Array | None]:
    """Users, items, times and splits of each distinct pair, sorted: of its events that one counts that is of the first
    part of a split and in that part the earliest.

    Where pair, part and time fit a number of 64 bits, such numbers are sorted; else pairs are, and the least is sought
    among the events of each.
    """
    key = users.astype(np.uint64)
    key *= np.uint64(n_items)
    key += items.astype(np.uint64)
    part = np.zeros(1, np.uint8) if splits is None else splits
    ticks, unit, begin = (np.zeros(1, np.uint64), 1, 0.0) if times is None else whole_ticks(times)
    parts, span = int(part.max()) + 1, 0 if ticks is None else int(ticks.max()) + 1
    if ticks is not None and (int(users.max()) + 1) * n_items * parts * span < 2**64:
        for column, size in ((part, parts), (ticks, span)):
            if size > 1:
                key *= np.uint64(size)
                key += column.astype(np.uint64, copy=False)
        del ticks, column
        key.sort()
        pairs = key if parts * span == 1 else key // np.uint64(parts * span)
        first = np.flatnonzero(np.append(True, pairs[1:] != pairs[:-1]))
        pairs, key = pairs[first], key[first] % np.uint64(parts * span)
        when, part = (
            (key % np.uint64(span)).astype(np.float64) * unit + begin,
            (key // np.uint64(span)).astype(np.uint8),
        )
    else:
        order = np.argsort(key)
        key = key[order]
        starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        pairs, when = key[starts], np.zeros(1) if times is None else times[order]
        if splits is not None:
            part = np.minimum.reduceat(splits[order], starts)
            if times is not None:
                when[splits[order] > np.repeat(part, np.diff(np.append(starts, len(order))))] = np.inf
        if times is not None:
            when = np.minimum.reduceat(when, starts)
    return (
        (pairs // np.uint64(n_items)).astype(np.int32),
        (pairs % np.uint64(n_items)).astype(np.int32),
        None if times is None else when,
        None if splits is None else part,
    )


def whole_ticks(times: Array) -> tuple[Array | None, int, float]:
    """Times as (n,) uint64 counts of a unit of whole seconds since the first, the unit, and the first; no counts where
    they are no whole seconds."""
    begin = float(times.min())
    if float(times.max()) - begin > 2.0**52 or not (np.floor(times) == times).all():
        return None, 1, begin
    ticks = (times - begin).astype(np.uint64)
    unit = max(int(np.gcd.reduce(ticks)), 1)
    if unit > 1:
        ticks //= np.uint64(unit)
    return ticks, unit, begin


def nobody(what: str, column: Coded) -> list[str]:
    """Notes on ids that programs write where there is none: guests would be one user who took everything."""
    known = pc.is_in(pc.utf8_lower(column.names), pa.array(sorted(NO_IDS)))
    words: dict[str, int] = {}
    for place in np.flatnonzero(np.asarray(known)):
        word = column.names[int(place)].as_py()
        words[word] = words.get(word, 0) + int((column.places == place).sum())
    words = {word: rows for word, rows in words.items() if rows}
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
