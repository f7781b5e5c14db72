"""Tables of text, with commas, tabs or another delimiter; where one is at fault, the line is found."""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ...base.errors import VbprError, first_line
from ..tables import UNREADABLE, in_memory, open_bytes
from ..values import Columns
from .columns import NO_ROWS, from_table, match_columns

LINE = 2**20  # characters; a longer line is a bomb or no table, and Arrow reads none much longer
csv.field_size_limit(LINE)


def read_delimited(path: Path, delimiter: str) -> Columns:
    try:
        delimiter, names = header_of(path, delimiter)
    except UNREADABLE as error:
        raise VbprError(f"{path} cannot be read ({error}); fetch it again, or mend its disk") from error
    if not names:
        raise VbprError(f"{path} is empty; it needs a header with user_id{delimiter}item_id and a line an interaction")
    columns = match_columns(path, names)
    try:
        with in_memory(path) as handle:
            table = pyarrow.csv.read_csv(
                handle,
                read_options=pyarrow.csv.ReadOptions(use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(columns.values()),
                    column_types={name: pa.string() for name in columns.values()},
                    strings_can_be_null=False,
                    null_values=[],
                ),
            )
    except (pa.ArrowInvalid, *UNREADABLE) as error:
        raise VbprError(why_unreadable(path, delimiter, len(names), error)) from error

    def where(row: int) -> str:
        line, _ = next(itertools.islice(rows_of(path, delimiter), row + 1, None))
        return f"{path}, line {line}"

    return from_table(path, table, columns, where)


def header_of(path: Path, delimiter: str, errors: str = "replace") -> tuple[str, list[str]]:
    """The delimiter and the names of the first row; none of an empty file. Where the usual delimiter is not in that
    row, the one that is: where decimals have a comma, programs write `;` for one."""
    _, names = next(rows_of(path, delimiter, errors), (1, []))
    other = next((sign for sign in ";\t|," if len(names) == 1 and sign in names[0]), None)
    return (delimiter, names) if other is None else (other, next(rows_of(path, other, errors))[1])


def rows_of(path: Path, delimiter: str, errors: str = "replace") -> Iterator[tuple[int, list[str]]]:
    """(line at which it begins, fields) of each row that is not blank, as Arrow counts them; slow: for a header, and
    to find a fault. `errors`: of what is no UTF-8, as in `open`.

    Raises:
        VbprError: a line or a field has no end.
    """
    begins = 1

    def lines(text: io.TextIOWrapper) -> Iterator[str]:
        for number in itertools.count(1):
            line = text.readline(LINE)
            if not line:
                return
            if len(line) == LINE:
                raise VbprError(f"{path}, line {number} is longer than {LINE:,} characters; this is no table")
            yield line

    with open_bytes(path) as handle:
        reader = csv.reader(lines(io.TextIOWrapper(handle, "utf-8-sig", errors, newline="")), delimiter=delimiter)
        try:
            for fields in reader:
                if fields:
                    yield begins, fields
                begins = reader.line_num + 1
        except csv.Error as error:
            raise VbprError(f"{path}, line {begins}: {error}; is a quote never closed?") from error


def why_unreadable(path: Path, delimiter: str, width: int, error: Exception) -> str:
    """Read again, slowly, to find the line at fault."""
    rows = 0
    try:
        for line, fields in rows_of(path, delimiter, "surrogateescape"):
            rows += 1
            if re.search("[\udc80-\udcff]", "".join(fields)):
                return f"{path}, line {line}: not UTF-8 text; save the file as UTF-8"
            if len(fields) != width:
                return (
                    f"{path}, line {line}: {len(fields)} fields where the header has {width}; mend or remove the line"
                )
    except UNREADABLE as inner:
        return f"{path} is cut short or damaged ({inner}); fetch it again"
    if rows == 1:
        return f"{path} {NO_ROWS}"
    return f"{path} cannot be read ({first_line(error)})"


__all__ = ["LINE", "header_of", "read_delimited", "rows_of", "why_unreadable"]
