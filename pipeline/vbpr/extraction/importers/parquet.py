"""Vectors in a column of Parquet: lists of numbers, of fixed size or not, as Hugging Face, Qdrant and LanceDB write
them; a file, or a folder of shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from ...base.arrays import Array
from ...base.errors import VbprError, first_line
from ...data.tables import files_of
from .arrays import Stretches
from .folders import OTHER_WIDTH
from .ids import cleaned, id_column, ids_of_rows
from .incoming import Incoming, Told, pick

NO_VECTOR = "no vector"
ROWS = 1024  # at a time
UNFIT = (OSError, ValueError, TypeError, KeyError, pa.ArrowException)


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files of a source, in order."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    return [file for file, _ in files_of(path) if file.suffix.lower() == ".parquet"] if path.is_dir() else []


def is_parquet(path: Path) -> bool:
    return bool(parquet_files(path))


def open_parquet(path: Path, told: Told) -> Incoming:
    """A row an item.

    Raises:
        VbprError: it is open which column has the vectors or the ids, or a shard lacks them.
    """
    files = parquet_files(path)
    readers = [opened(file) for file in files]
    schema = readers[0].schema_arrow
    column = pick(told.column, [field.name for field in schema if is_vector(field.type)], VECTORS, path, "--column")
    for file, reader in zip(files, readers, strict=True):
        if column not in reader.schema_arrow.names or not is_vector(reader.schema_arrow.field(column).type):
            raise VbprError(f"{file} has no column {column} of vectors; move it away, or make it as the others are")
    n = sum(reader.metadata.num_rows for reader in readers)
    if not n:
        raise VbprError(f"{path} has no rows; give a table with a row an item")
    if told.ids:
        ids, ids_from = ids_of_rows(told, n, path)
    else:
        key = id_column([name for name in schema.names if name != column], told, files[0])
        ids, ids_from = cleaned(column_of(files, readers, key), f"{path}, column {key}", f"column {key}")
    faults: dict[int, str] = {}
    source = Vectors(path, readers, column, faults)
    return Incoming(ids, source.dim, Stretches(source.blocks, source.dim).read, ids_from, column, faults=faults)


VECTORS = "column of lists of numbers"


def opened(file: Path) -> Any:
    """A Parquet file; of a row group no more than what is asked for is held."""
    try:
        return pyarrow.parquet.ParquetFile(str(file), buffer_size=2**20, pre_buffer=False)
    except UNFIT as error:
        raise VbprError(f"{file} is not a readable Parquet file ({first_line(error)}); fetch it again") from error


def column_of(files: list[Path], readers: list[Any], name: str) -> pa.ChunkedArray:
    """A small column of all files; types may differ from file to file, so each becomes text alone."""
    parts = []
    for file, reader in zip(files, readers, strict=True):
        if name not in reader.schema_arrow.names:
            raise VbprError(f"{file} has no column {name}, which the files before have; make it as they are")
        try:
            parts.append(pa.array(cleaned(reader.read(columns=[name])[name], f"{file}, column {name}")[0].tolist()))
        except UNFIT as error:
            raise VbprError(f"{file}: column {name} cannot be read ({first_line(error)})") from error
    return pa.chunked_array(parts, pa.string())


def stored(kind: Any) -> Any:
    """A type without its extension: `fixed_shape_tensor` is a list of fixed size."""
    return stored(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def is_vector(kind: Any) -> bool:
    """Whether values of this type are lists of numbers."""
    kind = stored(kind)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_of(kind) for is_of in lists):
        return False
    value = kind.value_type
    return bool(pa.types.is_floating(value) or pa.types.is_integer(value))


class Vectors:
    """The vectors of a column of several files.

    Attributes:
        dim: of the first row that has any.
    """

    def __init__(self, path: Path, readers: list[Any], column: str, faults: dict[int, str]) -> None:
        self.path, self.readers, self.column, self.faults = path, readers, column, faults
        self.groups = [  # file, row group, rows
            (reader, group, reader.metadata.row_group(group).num_rows)
            for reader in readers
            for group in range(reader.metadata.num_row_groups)
        ]
        self.dim = next((width for chunk in self.chunks(0) if (width := width_of(chunk))), 0)
        if not self.dim:
            raise VbprError(f"{path}: column {column} has no vector in any row; choose another with --column")

    def chunks(self, start: int) -> Iterator[pa.Array]:
        """The column from row `start` on."""
        first = 0
        for reader, group, rows in self.groups:
            if first + rows > start:
                at = first
                try:
                    for batch in reader.iter_batches(
                        ROWS, row_groups=[group], columns=[self.column], use_threads=False
                    ):
                        if at + len(batch) > start:
                            yield batch.column(0)[max(0, start - at) :]
                        at += len(batch)
                except UNFIT as error:
                    raise VbprError(
                        f"{self.path}: column {self.column} cannot be read ({first_line(error)})"
                    ) from error
            first += rows

    def blocks(self, start: int) -> Iterator[Array]:
        """The rows (m, D) from `start` on; a row without a vector of D numbers is NaN."""
        at = start
        for chunk in self.chunks(start):
            yield self.matrix(chunk, at)
            at += len(chunk)

    def matrix(self, chunk: pa.Array, at: int) -> Array:
        while isinstance(chunk.type, pa.BaseExtensionType):
            chunk = chunk.storage
        lengths = np.asarray(pc.fill_null(pc.list_value_length(chunk), -1))
        good = lengths == self.dim
        for row in np.flatnonzero(~good).tolist():
            self.faults[at + row] = NO_VECTOR if lengths[row] < 1 else OTHER_WIDTH
        kept = chunk if good.all() else chunk.filter(pa.array(good))
        values = kept.flatten().to_numpy(zero_copy_only=False)
        if good.all():
            return np.asarray(values.reshape(-1, self.dim))
        out = np.full((len(chunk), self.dim), np.nan, values.dtype if values.dtype.kind == "f" else np.float64)
        out[good] = values.reshape(-1, self.dim)
        return out


def width_of(chunk: pa.Array) -> int:
    while isinstance(chunk.type, pa.BaseExtensionType):
        chunk = chunk.storage
    lengths = pc.drop_null(pc.list_value_length(chunk))
    return int(lengths[0].as_py()) if len(lengths) else 0


__all__ = ["NO_VECTOR", "is_parquet", "open_parquet"]
