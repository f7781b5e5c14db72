"""Tables for Arrow to read: inflated where they are gzipped, in memory of Arrow's own."""

import gzip
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from ..base.errors import VbprError

UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile)  # what disks, gzip and zip raise
UNFIT = (TypeError, ValueError, NotImplementedError, LookupError)  # bases of what Arrow raises of values it cannot read


class Inflated(gzip.GzipFile):
    """A gzipped table. Real ones shrink to a tenth; one that fills the memory from a few bytes is refused."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > BOMB and self.tell() > BOMB_RATIO * (packed := Path(self.name).stat().st_size):
            raise VbprError(
                f"{self.name} inflates to more than {BOMB_RATIO} times its {packed:,} bytes; this is no table of "
                "interactions (if it is, gunzip it)"
            )
        return data


BOMB, BOMB_RATIO = 256 * 2**20, 200  # bytes, above which the ratio counts


def open_bytes(path: Path) -> Any:
    """A file, inflated where it is gzipped; Arrow itself opens no name that is not UTF-8."""
    if path.suffix == ".zip":
        return unzipped(path)
    return Inflated(path) if path.suffix == ".gz" else path.open("rb")


def unzipped(path: Path) -> Any:
    """The one table in a zip.

    Raises:
        VbprError: it holds several files, or one that only a password or other software opens.
    """
    with zipfile.ZipFile(path) as archive:  # which stays open as long as what is read from it
        members = [m for m in archive.infolist() if not (m.is_dir() or m.filename.startswith("__MACOSX"))]
        if len(members) != 1:
            raise VbprError(f"{path} holds {len(members):,} files, not one table; unpack it and give --data the folder")
        if members[0].file_size > max(BOMB, BOMB_RATIO * path.stat().st_size):
            raise VbprError(
                f"{path} inflates to more than {BOMB_RATIO} times its size; this is no table of interactions"
            )
        try:
            return archive.open(members[0])
        except (RuntimeError, NotImplementedError) as error:
            raise VbprError(f"{path} cannot be unpacked here ({error}); unpack it") from error


def suffix_of(path: Path) -> str:
    """What kind of table a file or folder is by its name: `.csv` of `x.csv.gz`."""
    return Path(path.name.removesuffix(".gz").removesuffix(".zip")).suffix.lower()


def load(path: Path) -> pa.Buffer:
    """A file's bytes, inflated, in memory of Arrow's own. A file of Python's would be let go of by one of Arrow's
    threads, some time after the table is there: where Python is just ending, that aborts the process."""
    memory = pa.BufferOutputStream()
    with open_bytes(path) as handle:
        shutil.copyfileobj(handle, memory, 2**20)
    return memory.getvalue()


def files_of(path: Path) -> list[tuple[Path, dict[str, str]]]:
    """The files of a table, which may be a folder of them as Spark, DuckDB and Hive write it, in order, each with the
    columns that are in the names of its folders: `country=DE` is a column of text. Names that begin with `_` or `.` are
    marks of those programs, and passed over."""
    if path.is_file():
        return [(path, {})]
    found = []
    for file in sorted(path.rglob("*")):
        names = file.relative_to(path).parts
        if file.is_file() and not any(name.startswith(("_", ".")) for name in names):
            pairs = (unquote(name).partition("=") for name in names[:-1])
            found.append((file, {key: value for key, sign, value in pairs if sign and value != NO_VALUE}))
    return found


NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def with_columns(table: pa.Table, constants: Mapping[str, str]) -> pa.Table:
    """A table with these columns of one value each; what it has under their names is its own."""
    for name, value in constants.items():
        if name not in table.column_names:
            column = pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int32), [value])
            table = table.append_column(name, column)
    return table


__all__ = ["UNFIT", "UNREADABLE", "files_of", "load", "open_bytes", "suffix_of", "with_columns"]
