"""Tables in Parquet."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from ...base.errors import VbprError, first_line
from ..tables import UNFIT, UNREADABLE, load
from ..values import Columns
from .columns import all_of, from_table, match_columns


def read_parquet(path: Path) -> Columns:
    try:
        buffer = load(path)
        matched = match_columns(path, pyarrow.parquet.read_schema(pa.BufferReader(buffer)).names)
        table = pyarrow.parquet.read_table(pa.BufferReader(buffer), columns=all_of(matched))
    except (*UNFIT, *UNREADABLE) as error:
        raise VbprError(f"{path} is not a readable Parquet file ({first_line(error)})") from error
    return from_table(path, table, matched, lambda row: f"{path}, row {row + 1}")


__all__ = ["read_parquet"]
