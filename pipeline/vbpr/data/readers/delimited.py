"""Tables of text, with commas, tabs or another delimiter; where one is at fault, the line is named.

A quote sign is plain text in a table with tabs unless the table is evidently quoted, and no quoted field may swallow
rows: see `read_text`.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv

from ...base.errors import VbprError, counted, first_line
from ..tables import UNREADABLE, load, open_bytes
from .columns import NO_ROWS

LINE = 2**20  # characters; a longer line is a bomb or no table, and Arrow reads none much longer
csv.field_size_limit(LINE)


class Dialect(NamedTuple):
    """How a table of text is written."""

    delimiter: str
    names: list[str]
    quoted: bool = True
    header: bool = True  # whether the names are the first row


class Row(NamedTuple):
    """A row that is not blank: the line at which it begins, its fields, and its text where it runs over lines."""

    line: int
    fields: list[str]
    text: str


class TextTable(NamedTuple):
    """The columns of a table of text, how it is written, and what is to be said of it."""

    table: pa.Table
    dialect: Dialect
    notes: tuple[str, ...]


def dialect_of(path: Path, delimiter: str, errors: str = "replace") -> Dialect:
    """How a table is written, by its first row; no names for an empty file. Where the usual delimiter is not in that
    row, the one that is: where decimals have a comma, programs write `;` for one."""
    names = next(rows_of(path, Dialect(delimiter, []), errors), Row(1, [], "")).fields
    other = next((sign for sign in ";\t|," if len(names) == 1 and sign in names[0]), None)
    if other is None:
        return Dialect(delimiter, names)
    return Dialect(other, next(rows_of(path, Dialect(other, []), errors)).fields)


def read_text(path: Path, dialect: Dialect, columns: Mapping[str, pa.DataType] | None = None) -> TextTable:
    """Read these columns of a table of text as these types, or all as text.

    Where the delimiter is a tab, quote signs are plain text if some field opens a quote that it does not close: a table
    that quotes its fields has none such, but for a field that holds tabs or line breaks, and then its lines do not fit
    the header.

    Raises:
        VbprError: a quoted field holds what looks like rows.
        pa.ArrowInvalid: rows of other widths than the header, or text that is no UTF-8.
    """
    buffer = load(path)
    if dialect.delimiter != "\t" or any('"' in name for name in header_fields(buffer)) or not OPEN_QUOTE.search(buffer):
        return read_quoted(path, buffer, dialect, columns)
    plain = dialect._replace(quoted=False)
    try:
        return TextTable(parse(buffer, plain, columns), plain, ())
    except pa.ArrowInvalid as fault:
        try:
            return read_quoted(path, buffer, dialect, columns)
        except (pa.ArrowInvalid, VbprError):
            raise VbprError(why_unreadable(path, plain, fault)) from fault


# A quote at the beginning of a field that is not closed at the end of the same field.
OPEN_QUOTE = re.compile(rb'"(?<=[\t\r\n]")(?![^"\t\r\n]*(?:""[^"\t\r\n]*)*"(?:[\t\r\n]|\Z))')


def header_fields(buffer: pa.Buffer) -> list[str]:
    """The first line of a table with tabs, as it is written."""
    line = re.search(rb"[^\r\n]+", buffer)
    return line[0].decode("utf-8", "replace").split("\t") if line else []


def read_quoted(
    path: Path, buffer: pa.Buffer, dialect: Dialect, columns: Mapping[str, pa.DataType] | None
) -> TextTable:
    """A table whose fields may be quoted, and a note if some of them run over several lines.

    Raises:
        VbprError, pa.ArrowInvalid: see `read_text`.
    """
    table = parse(buffer, dialect, columns)
    if not re.search(b'"', buffer) or lines_in(buffer) == table.num_rows + dialect.header:
        return TextTable(table, dialect, ())
    long = []
    for row in rows_of(path, dialect):
        if row.text:
            refuse_swallowed(path, dialect, row)
            long.append(row.line)
    note = f"{counted(len(long), 'row')} run{'s' * (len(long) == 1)} over several lines, in quotes (first: line "
    return TextTable(table, dialect, (f"{note}{long[0]})",) if long else ())


def parse(buffer: pa.Buffer, dialect: Dialect, columns: Mapping[str, pa.DataType] | None) -> pa.Table:
    return pyarrow.csv.read_csv(
        pa.BufferReader(buffer),
        read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=None if dialect.header else dialect.names),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char='"' if dialect.quoted else False,
            newlines_in_values=dialect.quoted,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=None if columns is None else list(columns),
            column_types=dict.fromkeys(dialect.names, pa.string()) if columns is None else dict(columns),
            strings_can_be_null=False,
            null_values=[],
        ),
    )


def lines_in(buffer: pa.Buffer) -> int:
    """Lines of a text, as an editor counts them, without an empty last one."""
    view, breaks, last = memoryview(buffer), 0, b""
    for start in range(0, len(view), 2**24):
        piece = bytes(view[start : start + 2**24])
        breaks += piece.count(b"\n") - (last + piece).count(b"\r\n") + piece.count(b"\r")
        last = piece[-1:]
    return breaks + (last not in (b"", b"\n", b"\r"))


def refuse_swallowed(path: Path, dialect: Dialect, row: Row) -> None:
    """A quote that nobody closed takes the lines up to the next one for a field: what follows that other quote is no
    delimiter, or the field holds as many delimiters as those lines have.

    Raises:
        VbprError: a quoted field of this row looks like it; the message has the line of its opening quote.
    """
    sign = re.escape(dialect.delimiter)
    for field in re.finditer(rf'(?:\A|(?<={sign}))"([^"]*(?:""[^"]*)*)("[^{sign}\r\n]?|\Z)', row.text):
        breaks, inside = len(BREAK.findall(field[1])), field[1].count(dialect.delimiter)
        enough = 1 if dialect.delimiter == "\t" else breaks * (len(dialect.names) - 1)
        if breaks and inside and (field[2] != '"' or inside >= enough):
            line = row.line + len(BREAK.findall(row.text, 0, field.start()))
            closed = f"is closed on line {line + breaks}" if field[2] else "is never closed"
            raise VbprError(
                f"{path}, line {line}: the quote that opens here {closed}, and what follows looks like rows; take "
                "the quote out, or the line breaks if it is one text"
            )


BREAK = re.compile(r"\r\n|\r|\n")


def rows_of(path: Path, dialect: Dialect, errors: str = "replace") -> Iterator[Row]:
    """Each row that is not blank, as Arrow counts them; slow: for a header, and to find a fault. `errors`: of what is
    no UTF-8, as in `open`.

    Raises:
        VbprError: a line or a field has no end.
    """
    begins, lines = 1, list[str]()

    def read_lines(text: io.TextIOWrapper) -> Iterator[str]:
        for number in itertools.count(1):
            line = text.readline(LINE)
            if not line:
                return
            if len(line) == LINE:
                raise VbprError(f"{path}, line {number} is longer than {LINE:,} characters; this is no table")
            lines.append(line)
            yield line

    with open_bytes(path) as handle:
        reader = csv.reader(
            read_lines(io.TextIOWrapper(handle, "utf-8-sig", errors, newline="")),
            delimiter=dialect.delimiter,
            quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
        )
        try:
            for fields in reader:
                if fields:
                    yield Row(begins, fields, "".join(lines) if len(lines) > 1 else "")
                begins = reader.line_num + 1
                lines.clear()
        except csv.Error as error:
            raise VbprError(f"{path}, line {begins}: {error}; is a quote never closed?") from error


def why_unreadable(path: Path, dialect: Dialect, error: Exception) -> str:
    """Read again, slowly, to find the line at fault."""
    rows, width = 0, len(dialect.names)
    try:
        for line, fields, text in rows_of(path, dialect, "surrogateescape"):
            rows += 1
            if re.search("[\udc80-\udcff]", "".join(fields)):
                return f"{path}, line {line}: not UTF-8 text; save the file as UTF-8"
            if text:
                refuse_swallowed(path, dialect, Row(line, fields, text))
            if len(fields) != width:
                return (
                    f"{path}, line {line}: {len(fields)} fields where the header has {width}; mend or remove the line"
                )
    except VbprError as swallowed:
        return str(swallowed)
    except UNREADABLE as inner:
        return f"{path} is cut short or damaged ({inner}); fetch it again"
    if rows == 1:
        return f"{path} {NO_ROWS}"
    return f"{path} cannot be read ({first_line(error)})"


__all__ = [
    "LINE",
    "OPEN_QUOTE",
    "Dialect",
    "Row",
    "TextTable",
    "dialect_of",
    "header_fields",
    "lines_in",
    "parse",
    "read_text",
    "rows_of",
    "why_unreadable",
]
