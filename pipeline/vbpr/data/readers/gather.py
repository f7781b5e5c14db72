"""A table of interactions a block at a time, as narrow as it can be kept: of each row two positions and a time."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...base.arrays import Array
from ...base.errors import VbprError, counted
from ..interning import Interner
from ..tables import with_columns
from ..texts import decoded
from ..values import Columns
from ..where import QUANTITY_COLUMNS, Rows, is_text
from .columns import NO_ROWS, OPTIONAL, column_key, columns_of, convert, from_table, match_columns


class Unclear(Exception):
    """A block cannot be told from the rest of its file; the file must be read as a whole."""


class Wanted(NamedTuple):
    """Which columns of a file are read, and which of its rows.

    Attributes:
        matched: see `match_columns`. ids: the columns of user_id and item_id. others: times, splits and what the rows
            are chosen by. quantity: a column of quantities, if there is one.
    """

    matched: dict[str, list[str]]
    ids: dict[str, str]
    others: list[str]
    quantity: str | None
    rows: Rows

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys([*self.ids.values(), *self.others]))


def wanted_of(path: Path, names: list[str], rows: Rows) -> Wanted:
    """What to read of a file with these columns.

    Raises:
        VbprError: see `match_columns` and `Rows.bound`.
    """
    matched = match_columns(path, names)
    bound = rows.bound(path, names, column_key)
    quantity = next(iter(columns_of(names, QUANTITY_COLUMNS)), None)
    others = [name for role in ("timestamp", "split") for name in matched.get(role, [])]
    others += list(bound.columns.values()) if bound else []
    others += [quantity] if quantity is not None else []
    ids = {role: matched[role][0] for role in ("user_id", "item_id")}
    return Wanted(matched, ids, list(dict.fromkeys(others)), quantity, rows)


def gather(
    path: Path,
    tables: Iterable[pa.Table],
    wanted: Wanted,
    constants: Mapping[str, str],
    where: Callable[[int], str],
) -> Columns:
    """The interactions in the blocks of a file, in order.

    Args:
        constants: columns of one value that the file itself lacks. where: says where in the file a row is.

    Raises:
        Unclear: a column of times is of numbers in one block and of words in another.
        VbprError: see `from_table`; or no row is left by the choice of rows.
    """
    total, kept, returned = 0, list[Array](), 0
    ids, others = dict[str, Interner](), dict[str, Texts | Plain]()
    optional = dict.fromkeys(name for role in OPTIONAL for name in wanted.matched.get(role, []))
    for table in tables:
        table, start = with_columns(table, constants), total
        total += table.num_rows
        numbers = np.arange(start, total)
        if bound := wanted.rows.bound(path, table.column_names, column_key):
            mask, by_days = bound.keep(table, placed(where, numbers))
            if by_days and start:
                raise Unclear
            numbers, table = numbers[mask], table.filter(pa.array(mask))
            kept.append(numbers)
        if wanted.quantity is not None:
            returned += returns(table[wanted.quantity])
        for role, name in wanted.ids.items():
            texts = as_text(path, table[name], role, name, placed(where, numbers))
            ids.setdefault(name, Interner()).add(texts)
        for name in optional:
            column = decoded(table[name])
            if name not in others:
                may_be_numbers = name in wanted.matched.get("timestamp", [])
                others[name] = Texts(column if may_be_numbers else None) if is_text(column) else Plain()
            others[name].add(column)
    if not total:
        raise VbprError(f"{path} {NO_ROWS}")
    columns = {name: dictionary(interner) for name, interner in ids.items()}
    columns |= {name: part.column() for name, part in others.items() if name not in ids}
    rows = np.concatenate(kept) if kept else None
    if rows is not None and not len(rows):
        raise VbprError(f"{path}: {wanted.rows.rule} are {NONE_LEFT} {counted(total, 'row')}")
    found = from_table(path, columns, wanted.matched, where if rows is None else placed(where, rows))
    notes = found.notes
    if rows is not None:
        notes += (f"{wanted.rows.rule}: {len(rows):,} of {counted(total, 'row')}",)
    if returned:
        is_no = "is a return and" if returned == 1 else "are returns and"
        notes += (
            f"{counted(returned, 'row')} with {wanted.quantity} <= 0 {is_no} no purchase; leave such out by "
            f"--where '{quoted(wanted.quantity)} > 0'",
        )
    return found._replace(notes=notes)


NONE_LEFT = "none of its"


def placed(where: Callable[[int], str], rows: Array) -> Callable[[int], str]:
    """Says where in a file a row of some is, whose numbers there are these."""
    return lambda row: where(int(rows[row]))


def quoted(name: str | None) -> str:
    """A column's name as `--where` takes it."""
    return str(name) if str(name).isidentifier() else f"`{name}`"


def returns(column: pa.ChunkedArray) -> int:
    """How many quantities are nothing or less."""
    column = decoded(column)
    try:
        if is_text(column):
            column = pc.utf8_trim_whitespace(column)
            column = column.filter(pc.match_substring_regex(column, r"^(-[0-9]+(\.[0-9]+)?|0+(\.0+)?)$"))
            return len(column)
        return int(pc.sum(pc.less_equal(column, 0)).as_py() or 0)
    except pa.ArrowException:
        return 0


def as_text(path: Path, column: pa.ChunkedArray, role: str, name: str, where: Callable[[int], str]) -> pa.ChunkedArray:
    """A block of a column of ids as text, or as categories of text.

    Raises:
        VbprError: see `convert`.
    """
    if pa.types.is_string(column.type) and is_utf_8(column):
        return column
    codes = convert(path, column, role, name, where)[0]
    return pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(codes.places), codes.names)])


class Texts:
    """A column of times or splits as text: numbers, as long as all are; else categories.

    Args:
        first: the first block, where the column may be one of numbers.

    Raises:
        Unclear: some blocks are of numbers alone, and some are not.
    """

    def __init__(self, first: pa.ChunkedArray | None) -> None:
        self.numbers = first is not None and as_numbers(first) is not None
        self.may_be_numbers = first is not None
        self.parts: list[pa.ChunkedArray] = []
        self.interner = Interner()

    def add(self, column: pa.ChunkedArray) -> None:
        numbers = as_numbers(column) if self.may_be_numbers else None
        if self.may_be_numbers and (numbers is not None) != self.numbers and len(column):
            raise Unclear
        if numbers is not None:
            self.parts.append(numbers)
        else:
            self.interner.add(column.cast(pa.string()))

    def column(self) -> pa.ChunkedArray:
        if self.numbers:
            return pa.chunked_array([chunk for part in self.parts for chunk in part.chunks], pa.float64())
        return dictionary(self.interner)


class Plain:
    """A typed column as it is."""

    def __init__(self) -> None:
        self.parts: list[pa.ChunkedArray] = []

    def add(self, column: pa.ChunkedArray) -> None:
        self.parts.append(column)

    def column(self) -> pa.ChunkedArray:
        return pa.chunked_array([chunk for part in self.parts for chunk in part.chunks], self.parts[0].type)


def is_utf_8(column: pa.ChunkedArray) -> bool:
    """Whether a column of text is what it says: files in Parquet may hold any bytes."""
    try:
        column.validate(full=True)
    except pa.ArrowException:
        return False
    return True


def as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Texts as numbers; None where any is none."""
    try:
        numbers = column.cast(pa.float64())
    except pa.ArrowException:
        return None
    return numbers if pc.all(pc.is_finite(numbers), min_count=0).as_py() else None


def dictionary(interner: Interner) -> pa.ChunkedArray:
    places, names = interner.result()
    indices = pa.array(places, mask=places < 0) if len(places) and places.min() < 0 else pa.array(places)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, names)])


__all__ = ["NONE_LEFT", "Unclear", "Wanted", "gather", "wanted_of"]
