"""Parquet files of items with their photographs, as Hugging Face's `datasets` and data lakes keep them.

convert_parquet(Path("fashion/data"), Path("data/fashion"))     # one file, or a folder with all of its shards
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from ...base.arrays import composed
from ...base.errors import VbprError, first_line, some
from ..images.source import LONGEST_ID, item_id_of
from ..items import KEY, is_scalar, texts
from ..readers.columns import ITEM_COLUMNS, column_key, column_of, refuse_twins
from ..tables import files_of, with_columns
from ..texts import id_text, text
from .canonical import Conversion, begin, finish, finished, shards, write_table, write_tar

IMAGE_COLUMNS = ["image", "img", "photo", "picture"]  # of several, the first that is there
ROWS, BUFFER = 16, 2**20  # images in memory at a time; bytes read at a time of a row group, however large that is


def convert_parquet(source: Path, out: Path) -> Conversion:
    """Write images.tar from a column of images, and items.csv from the columns of text and numbers beside it.

    An image is its encoded bytes, or a record of them and a path, which names the item where no column does.

    Raises:
        VbprError: no such column, rows without an id or with the same, or a file that is damaged.
    """
    done = finished(out, source)
    if done is not None:
        return done
    files = shards(source)
    try:
        image, key, columns = described(source, files)
        ids = columns["item_id"]
        check_ids(source, ids)
        begin(out, source)
        write_table(out / "items.csv", columns)
        if not (out / "images.tar").exists():
            write_tar(out, pictures(files, image, ids), len(ids))
    except (pa.ArrowException, UnicodeEncodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise VbprError(f"{source} cannot be read ({first_line(error)}); fetch it again") from error
    with tarfile.open(out / "images.tar") as archive:
        images = sum(1 for _ in archive)
    if not images:
        raise VbprError(f"{source}: none of its {len(ids):,} rows has an image")
    notes = ["items are named by their images' paths"] if key is None else []
    if images < len(ids):
        notes.append(f"{len(ids) - images:,} of {len(ids):,} items have no image")
    notes.append("this is the catalogue alone: put interactions.csv (user_id,item_id) beside its images.tar")
    return finish(out, source, {"items": len(ids), "images": images}, notes)


def described(source: Path, files: list[Path]) -> tuple[str, str | None, dict[str, list[Any]]]:
    """Which column has the images and which the ids, and the columns of items.csv, ids first."""
    schema = pyarrow.parquet.read_schema(files[0])
    refuse_twins(files[0], [name.strip().lower() for name in schema.names])
    found = [field.name for field in schema if holds_bytes(field.type)]
    image = column_of(found, IMAGE_COLUMNS) or (found[0] if len(found) == 1 else None)
    if image is None:
        shown = some(found or schema.names, 8)
        why = (
            f"several columns of bytes ({shown}); call one"
            if found
            else f"no column of images; it has {shown}; call it"
        )
        raise VbprError(f"{files[0]} has {why} image")
    key = column_of(schema.names, [*ITEM_COLUMNS, "id"])
    has_path = pa.types.is_struct(schema.field(image).type) and schema.field(image).type.get_field_index("path") >= 0
    if key is None and not has_path:
        raise VbprError(f"{files[0]} has no item_id column; it has {some(schema.names, 8)}")
    parts = []
    for path, constants in files_of(source):
        if path in files:
            if set(pyarrow.parquet.read_schema(path).names) != set(schema.names):
                raise VbprError(f"{path} has other columns than {files[0]}; convert them apart")
            parts.append(described_part(path, constants, image, key))
    table = pa.concat_tables(parts, promote_options="default")
    ids = [composed(name) for name in texts(table[KEY]).to_pylist()]
    classes = class_names(schema)
    columns: dict[str, list[Any]] = {"item_id": [item_id_of(path) for path in ids] if key is None else ids}
    for name in (name for name in table.column_names if name != KEY and column_key(name) != "itemid"):
        words = classes.get(name, {})
        columns[name] = [words.get(value, value) for value in texts(table[name]).to_pylist()]
    return image, key, columns


def described_part(path: Path, constants: Mapping[str, str], image: str, key: str | None) -> pa.Table:
    """What one file says of its items, as text, so that it matters not which types its columns have: their ids, or the
    paths of their images, as `KEY`, and every column of text or numbers."""
    schema = pyarrow.parquet.read_schema(path)
    scalar = [field.name for field in schema if field.name not in (image, key) and is_scalar(field.type)]
    with pyarrow.parquet.ParquetFile(path) as opened:
        table = opened.read([*scalar, f"{image}.path" if key is None else key], use_threads=False)
    names = pc.struct_field(table[image], "path") if key is None else table[key]
    table = with_columns(table, constants)
    columns = {name: text(table[name]) for name in table.column_names if name not in (image, key)}
    return pa.table({KEY: id_text(names), **columns})


def holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def class_names(schema: pa.Schema) -> dict[str, dict[str, str]]:
    """What Hugging Face notes of columns of classes: column -> number -> name."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: {str(n): str(name) for n, name in enumerate(feature["names"])}
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def check_ids(source: Path, ids: list[str]) -> None:
    """
    Raises:
        VbprError: an id is missing, occurs twice, or cannot be the name of a file.
    """
    seen: set[str] = set()
    for row, item in enumerate(ids, start=1):
        if not item or len(item) > LONGEST_ID or item[0] == "." or any(sign in item for sign in "/\0\r\n"):
            raise VbprError(
                f"{source}, row {row:,}: {item[:40]!r} is no item id: one has up to {LONGEST_ID} letters, no slash or "
                "line break, and no dot in front"
            )
        if item in seen:
            raise VbprError(f"{source}, row {row:,}: item {item} is there twice; keep one")
        seen.add(item)


def pictures(files: list[Path], image: str, ids: list[str]) -> Iterator[tuple[str, bytes]]:
    """(item id, encoded bytes) of every row that has an image."""
    names = iter(ids)
    for path in files:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as opened:
            for batch in opened.iter_batches(ROWS, columns=[image], use_threads=False):
                column = batch.column(image)
                if pa.types.is_struct(column.type):
                    column = pc.struct_field(column, "bytes")
                for data in column.to_pylist():
                    item = next(names)
                    if data:
                        yield item, data


__all__ = ["convert_parquet"]
