"""Readers of interactions, one a kind of file; each returns columns, which `Interactions` validates.

A reader takes a file, the columns that the names of its folders hold, and which rows to read; a new kind is one file
and one line.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ...base.errors import VbprError
from ..tables import files_of, suffix_of
from ..values import Columns, joined
from ..where import ALL_ROWS, Rows
from .columns import NO_ROWS
from .gather import NONE_LEFT
from .parquet import read_parquet
from .split_files import read_part, split_files
from .text import read_delimited

INTERACTION_READERS: dict[str, Callable[[Path, Mapping[str, str], Rows], Columns]] = {
    ".csv": partial(read_delimited, delimiter=","),
    ".tsv": partial(read_delimited, delimiter="\t"),
    ".inter": partial(read_delimited, delimiter="\t"),
    ".parquet": read_parquet,
}


def read_columns(path: Path, rows: Rows = ALL_ROWS) -> Columns:
    """The interactions of a file, of a folder of files that are one table, or of a folder that holds train, validation
    and test as files.

    Raises:
        VbprError: there is no reader for it, or the reader finds a fault.
    """
    suffix = suffix_of(path)
    if parts := split_files(path, INTERACTION_READERS):
        return joined(read_each(path, [partial(read_part, *part, reader_of(part[0]), rows) for part in parts]))
    if suffix not in INTERACTION_READERS and not path.is_dir():
        raise VbprError(f"{path}: no reader for '{suffix}' files; known are {', '.join(INTERACTION_READERS)}")
    reads = []
    for file, constants in files_of(path):
        reader = reader_of(file) or INTERACTION_READERS.get(suffix)
        if reader is None:
            raise VbprError(f"{file} is no table of interactions; move it away, or give the table itself")
        reads.append(partial(reader, file, constants, rows))
    if not reads:
        raise VbprError(f"{path} is a folder without a table in it; it needs a file with user_id and item_id")
    return joined(read_each(path, reads))


def reader_of(file: Path) -> Callable[[Path, Mapping[str, str], Rows], Columns] | None:
    return INTERACTION_READERS.get(suffix_of(file))


def read_each(path: Path, reads: Sequence[Callable[[], Columns]]) -> list[Columns]:
    """What these read, without parts that have no rows, as Spark writes them, or none that are chosen.

    Raises:
        VbprError: none of them has.
    """
    columns, fault = [], None
    for read in reads:
        try:
            columns.append(read())
        except VbprError as error:
            if path.is_file() or not (NO_ROWS in str(error) or NONE_LEFT in str(error)):
                raise
            fault = error
    if fault is not None and not columns:
        raise fault
    return columns


__all__ = ["INTERACTION_READERS", "read_columns", "suffix_of"]
