"""WebDataset's and img2dataset's samples: `KEY.jpg, KEY.json, KEY.txt` in tars, perhaps with `00000.parquet` beside
`00000.tar`; KEY is the name up to its first dot. One field of the json, or column of the Parquet file, is the item's
id: that whose values the interactions have, or the one that is called like an id.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ...base.arrays import composed
from ...base.errors import VbprError, counted, first_line, some
from ...base.progress import console
from ..readers.columns import ITEM_COLUMNS, column_of
from ..tables import UNFIT
from ..texts import id_text
from .naming import Claim, Known, images_of, looked_at, natural
from .source import MAX_BYTES, BadImage, Files, Images, endings, is_image_name, item_id_of

SAMPLE = 1000  # samples that are looked at to find the field
LARGEST = min(2**20, MAX_BYTES)  # bytes of a json
Fields = dict[str, dict[str, str]]  # field -> key -> value


def key_of(path: str) -> str:
    """WebDataset's key: the path up to the first dot of its name."""
    folder, slash, base = path.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def by_sample(files: Files, known: Known, field: str | None) -> Images | None:
    """The images of a source as the fields of its samples tell; None where it has no samples, or their fields tell
    nothing of items.

    Args:
        field: the one to take; None: that which fits.

    Raises:
        VbprError: no sample has this field.
    """
    jsons = {key_of(path): row for row, path in enumerate(files.paths) if path.endswith(".json")}
    keys = {row: key_of(path) for row, path in enumerate(files.paths) if is_image_name(path)}
    keys = {row: key for row, key in keys.items() if key in jsons} if not files.tables else keys
    if not keys:
        if field is not None:
            raise VbprError(
                f"{files.name} has no KEY.json beside an image, nor a Parquet file beside a tar; leave --id-field out"
            )
        return None
    few = list(keys.values())[:: max(1, len(keys) // SAMPLE)]
    tables = [table for path in files.tables if (table := read_table(path)) is not None]
    fields: Fields = {}
    if not tables:
        for key, record in records(files, jsons, few):
            for name, value in record.items():
                fields.setdefault(name, {})[key] = value
    names = sorted({name for table in tables for name in table.column_names} - {KEY}) if tables else sorted(fields)
    taken = field if field in names else None
    if field is not None and taken is None:
        raise VbprError(
            f"--id-field {field}: the samples of {files.name} have no such field; they have {some(names, 12)}"
        )
    if taken is None:
        if tables:
            fields = {name: values_of(tables, name) for name in names}
        taken = chosen(fields, {item_id_of(files.paths[row]) for row in keys}, few, known)
    if taken is None:
        return None
    ids = (fields.get(taken) or values_of(tables, taken)) if tables else {}
    rest = [key for key in keys.values() if key not in ids]
    ids |= {key: record[taken] for key, record in records(files, jsons, rest) if taken in record}
    if lost := [files.paths[row] for row, key in keys.items() if key not in ids]:
        console.print(
            f"note: {counted(len(lost), 'image')} of {files.name} without {taken} ({some(lost)}); passed over"
        )
    rows = sorted((row for row, key in keys.items() if key in ids), key=lambda row: natural(files.paths[row]))
    console.print(f"note: items of {files.name} are told by the field {taken} of its samples")
    told = set(looked_at(files))
    others = endings(path for row, path in enumerate(files.paths) if row not in told and key_of(path) not in ids)
    return images_of(files, [Claim(composed(ids[keys[row]]), row) for row in rows], Counter(others))


def chosen(fields: Fields, stems: set[str], few: list[str], known: Known) -> str | None:
    """The field that is the item's id: that whose values are most often ids of the interactions, if they are so more
    often than names of files; without interactions, the one that is called like an id."""
    ids = known()
    if ids is not None:
        items = set(ids.tolist())
        matches = {name: sum(values.get(key) in items for key in few) for name, values in fields.items()}
        best = max(matches, key=lambda name: matches[name], default=None)
        if best is not None and matches[best] > 0:
            named = sum(key.rsplit("/", 1)[-1] in items for key in few)
            return best if matches[best] > named else None
        if items & stems:
            return None
    return column_of(list(fields), ITEM_COLUMNS)


def records(files: Files, jsons: Mapping[str, int], keys: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """The scalar fields of these samples, as text."""
    for key in keys:
        row = jsons.get(key)
        if row is None or files.size(row) > LARGEST:
            continue
        try:
            record = json.loads(files.read(row))
        except (BadImage, ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield key, {name: text for name, value in record.items() if (text := as_id(value))}


def as_id(value: Any) -> str:
    """A number or text of a json as an id; "" for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


KEY = "key"


def read_table(path: Path) -> pa.Table | None:
    """The Parquet file beside a tar, if it has keys.

    Raises:
        VbprError: it cannot be read.
    """
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if KEY not in file.schema_arrow.names:
                return None
            flat = [
                f.name for f in file.schema_arrow if not pa.types.is_nested(f.type) and not pa.types.is_binary(f.type)
            ]
            return file.read(columns=flat)
    except (*UNFIT, OSError) as error:
        raise VbprError(f"{path} cannot be read ({first_line(error)}); fetch it again, or move it away") from error


def values_of(tables: list[pa.Table], name: str) -> dict[str, str]:
    """Key -> value of a column, as an id; nothing where it has no exact text."""
    found: dict[str, str] = {}
    for table in tables:
        if name in table.column_names:
            try:
                values = id_text(table[name]).to_pylist()
            except pa.ArrowException:
                continue
            found |= {key: value for key, value in zip(id_text(table[KEY]).to_pylist(), values, strict=True) if value}
    return found


__all__ = ["by_sample"]
