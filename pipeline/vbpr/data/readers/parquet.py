"""Tables in Parquet."""

from pathlib import Path

import pyarrow.csv
import pyarrow.parquet

from ...base.errors import VbprError, first_line
from ..tables import UNFIT, UNREADABLE, in_memory
from ..values import Columns
from .columns import from_table, match_columns


def read_parquet(path: Path) -> Columns:
    try:
        with in_memory(path) as handle:
            columns = match_columns(path, pyarrow.parquet.read_schema(handle).names)
            table = pyarrow.parquet.read_table(handle, columns=list(columns.values()))
    except (*UNFIT, *UNREADABLE) as error:
        raise VbprError(f"{path} is not a readable Parquet file ({first_line(error)})") from error
    return from_table(path, table, columns, lambda row: f"{path}, row {row + 1}")


__all__ = ["read_parquet"]
