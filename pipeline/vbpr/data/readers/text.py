"""Interactions in tables of text."""

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa

from ...base.errors import VbprError
from ..tables import UNREADABLE
from ..values import Columns
from ..where import Rows
from .blocks import text_blocks
from .delimited import Dialect, dialect_of, read_text, rows_of, why_unreadable
from .gather import Unclear, Wanted, gather, wanted_of


def read_delimited(path: Path, constants: Mapping[str, str], rows: Rows, delimiter: str) -> Columns:
    """The interactions of a file.

    Args:
        constants: columns of one value that the file itself lacks.
    """
    try:
        dialect = dialect_of(path, delimiter)
    except UNREADABLE as error:
        raise VbprError(f"{path} cannot be read ({error}); fetch it again, or mend its disk") from error
    if not dialect.names:
        raise VbprError(f"{path} is empty; it needs a header with user_id{delimiter}item_id and a line an interaction")
    return read_events(path, dialect, constants, rows)


def read_events(path: Path, dialect: Dialect, constants: Mapping[str, str], rows: Rows) -> Columns:
    """The interactions of a file that is written like this: a block at a time, or as a whole where a block alone does
    not say what its quotes are for."""
    wanted = wanted_of(path, [*dialect.names, *(name for name in constants if name not in dialect.names)], rows)
    columns = [name for name in wanted.columns if name in dialect.names]

    plain = dialect._replace(quoted=False)
    for way in [dialect, plain] if dialect.delimiter == "\t" else [dialect]:
        try:
            where = partial(place_of, path, way)
            return gather(path, text_blocks(path, way, columns), wanted, constants, where)
        except (Unclear, pa.ArrowInvalid, *UNREADABLE):  # which reading it as a whole mends or tells
            continue
    return read_whole(path, dialect, wanted, columns, constants)


def read_whole(
    path: Path, dialect: Dialect, wanted: Wanted, columns: list[str], constants: Mapping[str, str]
) -> Columns:
    try:
        table, dialect, notes = read_text(path, dialect, dict.fromkeys(columns, pa.string()))
    except (pa.ArrowInvalid, *UNREADABLE) as error:
        raise VbprError(why_unreadable(path, dialect, error)) from error
    found = gather(path, [table], wanted, constants, partial(place_of, path, dialect))
    return found._replace(notes=notes + found.notes)


def place_of(path: Path, dialect: Dialect, row: int) -> str:
    """Where a row is, in words."""
    found = next(itertools.islice(rows_of(path, dialect), row + dialect.header, None))
    return f"{path}, line {found.line}"


__all__ = ["read_delimited", "read_events"]
