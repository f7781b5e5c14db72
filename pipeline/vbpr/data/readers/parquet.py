"""Tables in Parquet."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from ...base.errors import VbprError, first_line
from ..tables import UNFIT, UNREADABLE, load
from ..values import Columns
from ..where import Rows
from .gather import gather, wanted_of

ROWS = 2**17  # at a time


def read_parquet(path: Path, constants: Mapping[str, str], rows: Rows) -> Columns:
    """The interactions of a file.

    Args:
        constants: columns of one value that the file itself lacks.
    """
    try:
        file = pyarrow.parquet.ParquetFile(source_of(path))
        names = file.schema_arrow.names
        wanted = wanted_of(path, [*names, *(name for name in constants if name not in names)], rows)

        def tables() -> Iterator[pa.Table]:
            columns = [name for name in wanted.columns if name in names]
            for batch in file.iter_batches(batch_size=ROWS, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])

        return gather(path, tables(), wanted, constants, lambda row: f"{path}, row {row + 1}")
    except (*UNFIT, *UNREADABLE) as error:
        raise VbprError(f"{path} is not a readable Parquet file ({first_line(error)})") from error


def source_of(path: Path) -> pa.NativeFile:
    """A file that Arrow itself reads; see `load`. Arrow opens no name that is not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return pa.BufferReader(load(path))
    return pa.OSFile(str(path)) if path.suffix != ".gz" else pa.BufferReader(load(path))


__all__ = ["read_parquet"]
