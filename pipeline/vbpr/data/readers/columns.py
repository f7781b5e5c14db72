"""Which column of a table is the user, the item, the time and the split, and what its values mean."""

import contextlib
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...base.arrays import Array
from ...base.errors import VbprError, first_line, some
from ...base.progress import console
from ..tables import UNFIT
from ..values import SPLITS, Coded, Columns, is_whole

# What the field calls its columns, as `column_key` writes it; the first that is there is taken.
USER_COLUMNS = ["userid", "user", "uid", "reviewerid", "customerid", "visitorid", "accountid", "userid:token"]
USER_COLUMNS += ["customer", "account"]
ITEM_COLUMNS = ["itemid", "item", "iid", "asin", "parentasin", "articleid", "productid", "movieid", "itemid:token"]
ITEM_COLUMNS += ["sku", "stockcode", "isbn", "article", "product"]
TIME_COLUMNS = ["timestamp", "time", "ts", "tdat", "date", "datetime", "unixreviewtime", "timestamp:float"]
TIME_COLUMNS += ["invoicedate", "orderdate"]
SPLIT_COLUMNS = ["split", "xlabel", "subset"]


def column_key(name: str) -> str:
    """A column's name without capitals, blanks and joints: `User-ID`, `user_id` and `userId` are one."""
    return re.sub(r"[\s_.-]", "", name.lower())


def column_of(names: list[str], aliases: list[str]) -> str | None:
    """The column that goes by the first of these aliases that is there; None where none is."""
    by_key = {column_key(name): name for name in reversed(names)}
    return next((by_key[alias] for alias in aliases if alias in by_key), None)


def match_columns(path: Path, names: list[str]) -> dict[str, str]:
    """Which column of the file is the user, the item, the time and the split.

    Raises:
        VbprError: no user or item column; the message lists what was found.
    """
    found = {}
    for role, aliases in (
        ("user_id", USER_COLUMNS),
        ("item_id", ITEM_COLUMNS),
        ("timestamp", TIME_COLUMNS),
        ("split", SPLIT_COLUMNS),
    ):
        name = column_of(names, aliases)
        if name is not None:
            found[role] = name
            others = [other for other in dict.fromkeys(names) if column_key(other) in aliases and other != name]
            if others:
                console.print(f"note: {path}: {name} is taken for the {role}, and {some(others)} left alone")
        elif role in ("user_id", "item_id"):
            shown = some((repr(name)[1:-1] for name in names), 8)
            if any(sign in "".join(names) for sign in "\0\ufffd"):
                raise VbprError(f"{path} is not UTF-8 text, or packed; unpack it and save it as UTF-8")
            raise VbprError(f"{path} has no {role} column; it has {shown}; rename one to {role}")
    refuse_twins(path, [name for name in names if name in found.values()])
    return found


def refuse_twins(path: Path, names: list[str]) -> None:
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin is not None:
        raise VbprError(f"{path} has two columns called {twin!r}; rename or remove one")


NO_ROWS = "has a header but no rows; it needs a line an interaction"


def from_table(path: Path, table: pa.Table, columns: dict[str, str], where: Callable[[int], str]) -> Columns:
    """Convert the columns; `where` says where in the file a row is."""
    if not table.num_rows:
        raise VbprError(f"{path} {NO_ROWS}")
    parts = {}
    for role, name in columns.items():
        convert, wanted = CONVERSIONS[role]
        column = table[name]
        try:
            parts[role], bad = convert(column)
        except UNFIT as error:
            why = first_line(error)
            raise VbprError(f"{path}: column {name} ({column.type}) cannot be read ({why}); {wanted}") from error
        if bad.any():
            row = int(np.argmax(bad))
            said = str(column[row])[:100] if column[row].is_valid else ""
            raise VbprError(f"{where(row)}: {name} is {repr(said) if said else 'empty'}; {wanted}")
    return Columns(parts["user_id"], parts["item_id"], parts.get("timestamp"), parts.get("split"))


def without_floats(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of ids, its floats as the whole numbers that they are; none where one is no such number."""
    if pa.types.is_dictionary(column.type):  # pandas' categories
        column = column.cast(column.type.value_type)
    if not pa.types.is_floating(column.type):
        return column
    numbers = column.to_numpy()
    sound = is_whole(numbers)
    return pa.chunked_array([pa.array(np.where(sound, numbers, 0).astype(np.int64), mask=~sound)])


def ids(column: pa.ChunkedArray) -> tuple[Coded, Array]:
    """A column of ids, and which are none: NumPy takes a NUL at the end for padding, and a stray quote takes the rows
    up to the next one for an id."""
    column = pc.fill_null(pc.cast(without_floats(column), pa.string()), "")
    bad = pc.or_(pc.equal(column, ""), pc.match_substring_regex(column, "[\0\r\n]"))
    bad = pc.or_(bad, pc.greater(pc.utf8_length(column), LONGEST_ID))  # columns of ids are as wide as the longest
    codes = column.combine_chunks().dictionary_encode()
    return Coded(np.asarray(codes.dictionary.to_pylist(), np.str_), np.asarray(codes.indices)), np.asarray(bad)


def times(column: pa.ChunkedArray) -> tuple[Array, Array]:
    found = seconds(column)
    return found, ~np.isfinite(found)


def seconds(column: pa.ChunkedArray) -> Array:
    """A column of numbers, dates or their text as float64 seconds; not finite where it is none of these."""
    if pa.types.is_dictionary(column.type):  # pandas' categories
        column = column.cast(column.type.value_type)
    if pa.types.is_temporal(column.type):
        micro = pc.CastOptions(target_type=pa.timestamp("us"), allow_time_truncate=True)
        return np.asarray(column.cast(options=micro).cast(pa.int64()).to_numpy() / 1e6, np.float64)
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid:
        pass
    known = {text: second(text or "") for text in pc.unique(column).to_pylist()}
    if any(math.isfinite(time) and not is_number(text) for text, time in known.items()):
        known |= dict.fromkeys(filter(is_number, known), math.nan)  # among dates 2020 is a year, not a second of 1970
    return np.array([known[text] for text in column.to_pylist()])


def is_number(text: str | None) -> bool:
    with contextlib.suppress(ValueError):
        return math.isfinite(float(text or ""))
    return False


def second(text: str) -> float:
    text = text.strip()
    if not re.match(r"[-+.\d]", text):  # NumPy knows dates such as `today`, and takes nothing at all for one
        return math.nan
    try:
        return float(text)
    except ValueError:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy takes offsets such as +02:00, and would rather not
                date = np.datetime64(re.sub(r"\s*(Z|UTC|GMT)$", "", text).replace(" ", "T"))
            if not 0 < date.astype("datetime64[Y]").astype(int) + 1970 < 10_000:  # NumPy's microseconds would wrap
                return math.nan
            return float(date.astype("datetime64[us]").astype(np.int64)) / 1e6
        except ValueError:
            return math.nan


def parts_of_split(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """A column as the codes of `SPLITS`, and which of its words are not among them."""
    words = np.char.lower(np.asarray(column.cast(pa.string()).to_pylist(), np.str_))
    codes = np.select([words == word for word in SPLITS], list(SPLITS.values()), 0).astype(np.uint8)
    return codes, ~np.isin(words, list(SPLITS))


LONGEST_ID = 1000
ID = (
    "an id is text or a whole number that its type keeps exactly, without a NUL or a line break (a quote never "
    f"closed?), of up to {LONGEST_ID:,} letters; give it one, or remove the row"
)
CONVERSIONS: dict[str, tuple[Callable[[pa.ChunkedArray], tuple[Any, Array]], str]] = {
    "user_id": (ids, ID),
    "item_id": (ids, ID),
    "timestamp": (times, "a time is a number of seconds or a date such as 2020-07-31, and all are alike"),
    "split": (parts_of_split, "it must be train, validation or test"),
}

__all__ = [
    "ITEM_COLUMNS",
    "NO_ROWS",
    "column_key",
    "column_of",
    "from_table",
    "ids",
    "match_columns",
    "refuse_twins",
    "seconds",
    "times",
    "without_floats",
]
