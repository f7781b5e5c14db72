"""Which rows of a table are read, by an expression over its columns, and what those are read as to be compared.

Interactions.read(path, Rows("quantity > 0 and country != 'DE'", min_rating=4))
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..base.arrays import Array
from ..base.errors import VbprError, near, some
from .expression import Parser, key
from .texts import decoded, text
from .times import seconds

ABSENT = ("", "null", "none", "nan", "na", "n/a", r"\n", "<na>", "nil", "nat")  # what programs write for nothing
RATING_COLUMNS = ["rating", "overall", "stars", "ratings", "bookrating", "score", "starrating", "reviewscore"]
QUANTITY_COLUMNS = ["quantity", "qty", "units", "unitssold", "orderquantity"]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which rows of the interactions are read.

    Attributes:
        where: an expression, see the module; "" for none.
        min_rating: the least value of the column of ratings, or None.

    Raises:
        VbprError: the expression is none.
    """

    where: str = ""
    min_rating: float | None = None

    def __post_init__(self) -> None:
        if self.where:
            Parser(self.where)
        if self.min_rating is not None and not np.isfinite(self.min_rating):
            raise VbprError(f"--min-rating is {self.min_rating}; it must be a number")

    def __bool__(self) -> bool:
        return bool(self.where) or self.min_rating is not None

    @property
    def option(self) -> str:
        """By which it was given."""
        return "--where" if self.where else "--min-rating"

    @property
    def rule(self) -> str:
        """In words, for the rule of a split; nothing where all rows are read."""
        parts = [f"rating >= {self.min_rating:g}"] if self.min_rating is not None else []
        parts += [" ".join(self.where.split())] if self.where else []
        return (
            f"rows where {' and '.join(f'({part})' for part in parts) if len(parts) > 1 else parts[0]}" if parts else ""
        )

    def fields(self, path: Any, names: Sequence[str], column_key: Callable[[str], str]) -> dict[str, str]:
        """Which of these columns the rows are chosen by; see `bound`."""
        bound = self.bound(path, names, column_key)
        return {} if bound is None else dict.fromkeys(bound.columns.values(), "")

    def bound(self, path: Any, names: Sequence[str], column_key: Callable[[str], str]) -> "BoundRows | None":
        """The filter over a table with these columns, or None where all rows are read.

        Raises:
            VbprError: it has no such column; the message has the names that are near.
        """
        if not self:
            return None
        parser = Parser(self.where) if self.where else None
        needs = list(parser.needs) if parser else []
        expression = parser.expression if parser else None
        columns = {}
        for name, _ in needs:
            alike = [n for n in names if n == name] or [n for n in names if n.strip().lower() == name.lower()]
            alike = alike or [n for n in names if column_key(n) == column_key(name)]
            if not alike:
                raise VbprError(
                    f"--where: {path} has no column {name}{near(name, names)}; it has {some(names, 12)}"
                    + ("; a text stands in quotes" if parser and len(names) > 1 else "")
                )
            columns[name] = alike[0]
        if self.min_rating is not None:
            rating = next((n for alias in RATING_COLUMNS for n in names if column_key(n) == alias), None)
            if rating is None:
                raise VbprError(
                    f"--min-rating: {path} has no column of ratings; it has {some(names, 12)}; if one of them is it, "
                    f"give --where 'COLUMN >= {self.min_rating:g}'"
                )
            columns[RATING] = rating
            needs.append((RATING, "number"))
            enough = pc.field(key(RATING, "number")) >= self.min_rating
            expression = enough if expression is None else expression & enough
        return BoundRows(expression, needs, columns)


RATING, ROW = "--min-rating", "row"  # no names of `key`


@dataclasses.dataclass(frozen=True)
class BoundRows:
    """A filter over the columns of a table."""

    expression: Any
    needs: Sequence[tuple[str, str]]
    columns: Mapping[str, str]

    def keep(self, table: pa.Table, where: Callable[[int], str]) -> tuple[Array, bool]:
        """(n,) bool, which rows pass; and whether they are compared by dates that other rows might show to have their
        day before their month.

        Args:
            where: says where in the file a row is.

        Raises:
            VbprError: a value cannot be compared; the message has the first such row.
        """
        made = {
            key(name, kind): KINDS[kind](self.columns[name], table[self.columns[name]], where)
            for name, kind in self.needs
        }
        rows = pa.table(made).append_column(ROW, pa.array(np.arange(table.num_rows)))
        mask = np.zeros(table.num_rows, bool)
        mask[rows.filter(self.expression)[ROW].to_numpy()] = True
        return mask, any(kind == "time" and seconds(table[self.columns[name]])[1] for name, kind in self.needs)


def is_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def presence(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    """A column that is null where there is nothing, or what programs write for it."""
    column = decoded(column)
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), None, column)
    if is_text(column):
        words = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        return pc.if_else(pc.is_in(words, pa.array(ABSENT, column.type)), None, column)
    return column


def numbers(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    column = presence(name, column, where)
    if not is_text(column):
        return cast(name, column, pa.float64(), "number", where)
    return cast(name, pc.utf8_trim_whitespace(column), pa.float64(), "number", where)


def plain_texts(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    try:
        words = pc.utf8_trim_whitespace(text(column))
        return pc.if_else(pc.equal(words, ""), None, words)
    except pa.ArrowException as error:
        raise VbprError(f"--where: column {name} ({column.type}) has no text to compare") from error


def truths(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    column = presence(name, column, where)
    if is_text(column):
        return pc.is_in(
            pc.utf8_lower(pc.utf8_trim_whitespace(column)), pa.array(["true", "t", "yes", "y", "1", "1.0"], column.type)
        )
    return cast(name, column, pa.bool_(), "true or false", where)


def moments(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    column = presence(name, column, where)
    try:
        values, _ = seconds(column)
    except pa.ArrowException as error:
        raise VbprError(f"--where: column {name} ({column.type}) holds no dates") from error
    absent = np.asarray(pc.is_null(column))
    if (bad := ~np.isfinite(values) & ~absent).any():
        row = int(np.argmax(bad))
        raise VbprError(f"{where(row)}: {name} is {str(column[row])[:60]!r}, and --where compares it with a date")
    return pa.chunked_array([pa.array(np.where(absent, 0, values), mask=absent)])


def cast(
    name: str, column: pa.ChunkedArray, kind: pa.DataType, what: str, where: Callable[[int], str]
) -> pa.ChunkedArray:
    try:
        return pc.cast(column, kind, safe=False)
    except pa.ArrowException as error:
        if is_text(column):
            for row, value in enumerate(column.to_pylist()):
                try:
                    pc.cast(pa.scalar(value, pa.string()), kind)
                except pa.ArrowException:
                    raise VbprError(
                        f"{where(row)}: {name} is {value[:60]!r}, and it is compared with a {what}; compare it with a "
                        "text in quotes, or mend the row"
                    ) from error
        raise VbprError(
            f"--where: column {name} ({column.type}) is no {what}; compare it with a text in quotes"
        ) from error


KINDS: dict[str, Callable[[str, pa.ChunkedArray, Callable[[int], str]], pa.ChunkedArray]] = {
    "number": numbers,
    "text": plain_texts,
    "time": moments,
    "truth": truths,
    "presence": presence,
}

ALL_ROWS = Rows()

__all__ = ["ALL_ROWS", "QUANTITY_COLUMNS", "RATING_COLUMNS", "BoundRows", "Rows", "is_text"]
