"""Readers of interactions, one a kind of file; each returns columns, which `Interactions` validates.

A reader takes a file, the columns that the names of its folders hold, and which rows to read; a new kind is one file
and one line.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ...base.errors import VbprError
from ..tables import files_of
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


def suffix_of(path: Path) -> str:
    """What kind of table a file or folder is by its name: `.csv` of `x.csv.gz`."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_columns(path: Path, rows: Rows = ALL_ROWS) -> Columns:
    """The interactions of a file, of a folder of files that are one table, or of a folder that holds train, validation
    and test as files.

    Raises:
        VbprError: there is no reader for it, or the reader finds a fault.
    """
    suffix = suffix_of(path)
    if parts := split_files(path, INTERACTION_READERS):
        return joined([read_part(file, code, INTERACTION_READERS.get(suffix_of(file)), rows) for file, code in parts])
    if suffix not in INTERACTION_READERS and not path.is_dir():
        raise VbprError(f"{path}: no reader for '{suffix}' files; known are {', '.join(INTERACTION_READERS)}")
    columns, fault = [], None
    for file, constants in files_of(path):
        reader = INTERACTION_READERS.get(suffix_of(file)) or INTERACTION_READERS.get(suffix)
        if reader is None:
            raise VbprError(f"{file} is no table of interactions; move it away, or give the table itself")
        try:
            columns.append(reader(file, constants, rows))
        except VbprError as error:
            if file == path or not (NO_ROWS in str(error) or NONE_LEFT in str(error)):  # Spark writes empty parts, too
                raise
            fault = error
    if fault is not None and not columns:
        raise fault
    if not columns:
        raise VbprError(f"{path} is a folder without a table in it; it needs a file with user_id and item_id")
    return joined(columns)


__all__ = ["INTERACTION_READERS", "read_columns", "suffix_of"]
