"""Columns of ids, times and splits as `Interactions` keeps them, from whatever Python or a reader has."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..base.arrays import Array, Strings, composed
from ..base.errors import VbprError, first_line
from .interning import Interner, strings

SPLITS = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}


class Coded(NamedTuple):
    """A column of ids as a reader has it: names, and (n,) positions among them."""

    names: pa.StringArray
    places: Array


class Columns(NamedTuple):
    """What a reader has of a file, one entry an event.

    Attributes:
        users, items, times, splits: the arguments of `Interactions.of`.
        unread: why the `timestamp` or the `split` of the file cannot be read.
        notes: what the user is to know of how it was read.
        named: what the file calls its user_id, item_id, timestamp and split.
    """

    users: Any
    items: Any
    times: Any = None
    splits: Any = None
    unread: Mapping[str, str] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    named: Mapping[str, str] = MappingProxyType({})


def joined(parts: Sequence[Columns]) -> Columns:
    """The events of several files as those of one; times or splits that some of them lack are unread."""
    if len(parts) == 1:
        return parts[0]

    def coded(columns: Sequence[Coded]) -> Coded:
        interner = Interner()
        for column in columns:
            interner.add(pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(column.places), column.names)]))
        places, names = interner.result()
        return Coded(names, places)

    def values(columns: Sequence[Any]) -> Any:
        return None if any(column is None for column in columns) else np.concatenate(columns)

    unread = {role: why for part in reversed(parts) for role, why in part.unread.items()}
    for role, lacking in (
        ("timestamp", [p.times is None for p in parts]),
        ("split", [p.splits is None for p in parts]),
    ):
        if any(lacking) and not all(lacking):
            unread.setdefault(role, f"{sum(lacking):,} of {len(parts):,} files have no {role} that can be read")
    return Columns(
        coded([part.users for part in parts]),
        coded([part.items for part in parts]),
        values([part.times for part in parts]),
        values([part.splits for part in parts]),
        unread,
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        parts[0].named,
    )


def distinct(what: str, values: Any) -> tuple[Strings, Array]:
    """The ids of a column, `composed` and sorted, and (n,) positions among them.

    Raises:
        VbprError: see `given_ids`; or one is no text that UTF-8 can hold.
    """
    if not isinstance(values, Coded):
        given, places = np.unique(given_ids(what, values), return_inverse=True)
        if found := re.search("[\ud800-\udfff]", "".join(given.tolist())):
            raise VbprError(f"{what} ids hold {found[0]!r}, which is no letter; decode them from UTF-8")
        values = Coded(pa.array(given.tolist(), pa.string()), places)
    used = np.bincount(values.places, minlength=len(values.names)) > 0  # a column may have categories that no row is of
    names = values.names if used.all() else values.names.filter(pa.array(used))
    if not pc.all(pc.string_is_ascii(names)).as_py():
        names = pa.array([composed(name) for name in names.to_pylist()], pa.string())
    same = names.dictionary_encode()  # some may differ in blanks or in how they are composed
    order = np.asarray(pc.sort_indices(same.dictionary))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    place = np.zeros(len(values.names), np.int32)
    place[used] = rank[np.asarray(same.indices)]
    return strings(same.dictionary.take(pa.array(order))), place[values.places]


def given_ids(what: str, values: Any) -> Strings:
    """A column of ids as strings.

    Raises:
        VbprError: it is no column, or an entry is missing, empty, or holds a NUL, which NumPy takes for padding.
    """
    column = np.asarray(values)
    if column.dtype.kind == "S" or (column.dtype.kind == "U" and not isinstance(values, np.ndarray)):
        column = np.asarray(values, object)  # NumPy would take a NUL at the end for padding
    if column.ndim != 1:
        raise VbprError(f"{what} ids have {column.ndim} dimensions; give one id an event")
    if column.dtype.kind == "f":
        bad = ~is_whole(column)
        strings = np.where(bad, 0, column).astype(np.int64).astype(np.str_)
    elif column.dtype.kind == "O":
        each = [plainly(value) for value in column.tolist()]
        strings = np.array([str(value) for value in each], np.str_)
        bad = np.array([is_no_id(value) for value in each], bool)
    else:
        strings = column.astype(np.str_, copy=False)
        bad = strings == ""
    if bad.any():
        at = int(np.argmax(bad))
        raise VbprError(f"event {at:,} has {column[at]!r} for its {what} id; give it one, or leave the event out")
    return strings


def plainly(value: Any) -> Any:
    """Bytes as text, and a whole number as one though it be a float; other floats are no ids, and left."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float | np.floating) and value.is_integer() and abs(float(value)) < 2**53:
        return int(value)
    return value


def is_no_id(value: Any) -> bool:
    if isinstance(value, str):
        return not value or "\0" in value
    return isinstance(value, float | np.floating) or str(value) in ("", "None", "<NA>", "NaT")


def is_whole(numbers: Array) -> Array:
    """(n,) bool: which floats are whole numbers, and none that the type may have rounded: pandas makes such of a column
    of whole numbers where one is missing."""
    with np.errstate(invalid="ignore"):
        exact = np.abs(numbers) < 2.0 ** (np.finfo(numbers.dtype).nmant + 1)
        return np.asarray(exact & (np.floor(numbers) == numbers))


def given_times(values: Any) -> Array:
    """A column of seconds or dates as seconds.

    Raises:
        VbprError: an entry is neither.
    """
    column = np.asarray(values)
    if column.dtype.kind == "M":
        column = np.where(np.isnat(column), np.nan, column.astype("datetime64[us]").astype(np.int64) / 1e6)
    try:
        seconds = column.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise VbprError(f"times cannot be read ({first_line(error)}); give seconds, or NumPy's datetime64") from error
    if not np.isfinite(seconds).all():
        at = int(np.argmin(np.isfinite(seconds)))
        raise VbprError(f"event {at:,} has no time; give it one, or leave the event out")
    return seconds


def given_splits(values: Any) -> Array:
    """A column of the codes of `SPLITS`.

    Raises:
        VbprError: an entry is none.
    """
    column = np.asarray(values)
    if column.dtype.kind not in "iub" or not np.isin(column, [0, 1, 2]).all():
        raise VbprError("splits are the codes 0 (train), 1 (validation) and 2 (test), and others were given")
    return column.astype(np.uint8, copy=False)


__all__ = ["SPLITS", "Coded", "Columns", "distinct", "given_splits", "given_times", "is_whole", "joined"]
