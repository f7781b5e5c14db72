"""Tables in Parquet."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from ...base.errors import VbprError, first_line
from ..tables import UNFIT, UNREADABLE, load, with_columns
from ..values import Columns
from .columns import all_of, from_table, match_columns


def read_parquet(path: Path, constants: Mapping[str, str]) -> Columns:
    """The interactions of a file.

    Args:
        constants: columns of one value that the file itself lacks.
    """
    try:
        buffer = load(path)
        names = pyarrow.parquet.read_schema(pa.BufferReader(buffer)).names
        matched = match_columns(path, [*names, *(name for name in constants if name not in names)])
        wanted = [name for name in all_of(matched) if name in names]
        table = pyarrow.parquet.read_table(pa.BufferReader(buffer), columns=wanted)
    except (*UNFIT, *UNREADABLE) as error:
        raise VbprError(f"{path} is not a readable Parquet file ({first_line(error)})") from error
    return from_table(path, with_columns(table, constants), matched, lambda row: f"{path}, row {row + 1}")


__all__ = ["read_parquet"]
