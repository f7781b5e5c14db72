"""Features in folders: clip-retrieval's shards with their metadata, and one .npy an item, as Ducho writes them."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ...base.arrays import Array, composed
from ...base.errors import VbprError, counted, first_line, some
from .arrays import DAMAGED, NpyRows
from .ids import cleaned, id_column
from .incoming import Incoming, Told, check_numbers, pick

CUT, OTHER_WIDTH, UNREADABLE = "cut short or no array", "of another width", "unreadable"


def shard_order(path: Path) -> tuple[int, str]:
    """Shards by number: `img_emb_10.npy` after `img_emb_9.npy`."""
    number = re.search(r"(\d+)$", path.stem)
    return (int(number[1]) if number else -1), path.name


def embeddings_in(path: Path) -> list[str]:
    """The folders of embeddings of a folder of clip-retrieval's: `img_emb`, `text_emb`."""
    return [name for name in ("img_emb", "text_emb") if (path / name).is_dir()] if path.is_dir() else []


def is_clip_retrieval(path: Path) -> bool:
    return bool(embeddings_in(path)) and (path / "metadata").is_dir()


def open_clip_retrieval(path: Path, told: Told) -> Incoming:
    """`img_emb/img_emb_0.npy` with `metadata/metadata_0.parquet`, a shard each; `told.column` is img_emb or text_emb.

    Raises:
        VbprError: shards and metadata do not go together, or the column of ids is not known.
    """
    if told.ids:
        raise VbprError(f"{path} has its ids in metadata/; leave --ids out, and choose a column with --id-column")
    names = embeddings_in(path)
    column = told.column or names[0]
    pick(column, names, "folder of embeddings", path, "--column")
    shards = sorted((path / column).glob("*.npy"), key=shard_order)
    tables = sorted((path / "metadata").glob("*.parquet"), key=shard_order)
    if [shard_order(file)[0] for file in shards] != [shard_order(file)[0] for file in tables] or not shards:
        raise VbprError(
            f"{path} has {counted(len(shards), 'shard')} in {column}/ and {len(tables):,} in metadata/, and each needs "
            "its own; fetch or make the missing ones"
        )
    rows = [NpyRows(file) for file in shards]
    ids, how, key = [], "", told.id_column
    for shard, file in zip(rows, tables, strict=True):
        try:
            schema = pyarrow.parquet.read_schema(file)
            key = key or id_column(schema.names, told, file)
            if key not in schema.names:
                raise VbprError(f"{file} has no column {key}; it has {some(schema.names, 8)}; choose with --id-column")
            table = pyarrow.parquet.read_table(file, columns=[key])
        except (OSError, pa.ArrowException) as error:
            raise VbprError(f"{file} is not a readable Parquet file ({first_line(error)}); fetch it again") from error
        if table.num_rows != shard.n:
            raise VbprError(
                f"{file} has {table.num_rows:,} rows for the {shard.n:,} of {shard.file.path}; make both again"
            )
        part, how = cleaned(table[key], f"column {key} of metadata/")
        ids.append(part)
    wrong = next((shard for shard in rows if shard.dim != rows[0].dim), None)
    if wrong is not None:
        raise VbprError(f"{wrong.file.path} has {wrong.dim:,} columns where {shards[0].name} has {rows[0].dim:,}")
    starts = np.cumsum([0, *(shard.n for shard in rows)])

    def read(a: int, b: int) -> Array:
        parts = []
        for shard, start in zip(rows, starts.tolist(), strict=False):
            low, high = max(a - start, 0), min(b - start, shard.n)
            if low < high:
                parts.append(shard.read(low, high))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return Incoming(np.concatenate(ids), rows[0].dim, read, how, column)


def is_folder_of_arrays(path: Path) -> bool:
    return path.is_dir() and next(path.rglob("*.npy"), None) is not None


def open_folder(path: Path, told: Told) -> Incoming:
    """A vector a file, of shape (D,) or (1, D), at any depth; the stem of its name is the item's id.

    Raises:
        VbprError: no file can be read, or one holds a matrix.
    """
    if told.ids or told.column or told.id_column:
        raise VbprError(f"{path} has one .npy an item, called after it; leave --ids, --column and --id-column out")
    files = sorted(file for file in path.rglob("*.npy") if file.is_file() and not file.name.startswith("."))
    ids = np.array([composed(file.name[: -len(".npy")]) for file in files], np.str_)
    dim = next((width for file in files if (width := width_of(file))), 0)
    if not dim:
        raise VbprError(f"{path}: none of its {counted(len(files), '.npy file')} can be read; save them again")
    faults: dict[int, str] = {}

    def read(a: int, b: int) -> Array:
        out = np.full((b - a, dim), np.nan)
        for row in range(a, b):
            try:
                vector = np.load(files[row], allow_pickle=False)
                if vector.size == dim and vector.dtype.kind in "biuf":
                    out[row - a] = vector.reshape(-1)
                else:
                    faults[row] = OTHER_WIDTH
            except DAMAGED as error:
                faults[row] = UNREADABLE if isinstance(error, OSError) and error.errno else CUT
        return out

    return Incoming(ids, dim, read, "the names of the files", faults=faults)


def width_of(file: Path) -> int:
    """Numbers in a file of one vector; 0 where it cannot be read.

    Raises:
        VbprError: it holds a matrix of several items.
    """
    try:
        vector = np.load(file, mmap_mode="r", allow_pickle=False)
    except DAMAGED:
        return 0
    check_numbers(vector.dtype, str(file))
    if vector.ndim > 1 and vector.shape[0] > 1 and vector.size > max(vector.shape):
        raise VbprError(
            f"{file} holds {vector.shape[0]:,} rows, and a folder is read as one vector a file; import that file "
            "itself, with --ids"
        )
    return int(vector.size)


__all__ = [
    "CUT",
    "OTHER_WIDTH",
    "UNREADABLE",
    "is_clip_retrieval",
    "is_folder_of_arrays",
    "open_clip_retrieval",
    "open_folder",
]
