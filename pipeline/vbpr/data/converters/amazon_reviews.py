"""Amazon's reviews of 2014, 2018 and 2023 (McAuley et al.): lines of JSON or Python literals; nothing is evaluated.

convert_reviews(Path("reviews_Clothing_Shoes_and_Jewelry_5.json.gz"), Path("data/clothing"))
"""

import ast
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...base.errors import VbprError, counted
from ..readers.columns import column_key
from ..where import ALL_ROWS, Rows
from .canonical import Conversion, begin, finish, finished, write_table

ID = re.compile("[^\0\r\n\ud800-\udfff]+")  # what a table of UTF-8 can hold
LINE = 4 * 2**20  # bytes; a longer line is a bomb or no text


def lines(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, record) of each line of a file, gzipped or not.

    Raises:
        VbprError: cut short, or a line that is neither JSON nor a Python literal; the message has its number.
    """
    opener: Any = gzip.open if source.suffix == ".gz" else Path.open
    number = 0
    try:
        with opener(source, "rb") as handle:
            while raw := handle.readline(LINE):
                number += 1
                if len(raw) >= LINE:
                    raise VbprError(f"{source}, line {number:,} is longer than {LINE:,} bytes; this is no review file")
                if raw.strip():
                    yield number, parse_line(source, number, raw)
    except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
        raise VbprError(f"{source} breaks off after line {number:,} ({error}); fetch it again") from error


def parse_line(source: Path, number: int, raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise VbprError(f"{source}, line {number:,} is neither JSON nor a plain Python literal; remove it") from error
    if not isinstance(value, dict):
        raise VbprError(f"{source}, line {number:,} is not a record with named fields; remove it")
    return value


def field(source: Path, number: int, record: dict[str, Any], *names: str) -> str:
    """The first of these fields that is there."""
    name = next((name for name in names if record.get(name)), names[0])
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise VbprError(
            f"{source}, line {number:,} has no {' or '.join(names)}; it has {', '.join(sorted(map(str, record)))[:120]}"
        )
    if not ID.fullmatch(value):
        raise VbprError(f"{source}, line {number:,}: {name} {value[:100]!r} is no id; mend or remove the line")
    return value


def convert_reviews(source: Path, out: Path, rows: Rows = ALL_ROWS) -> Conversion:
    """Write interactions.csv from a review file, and items.csv from the `meta_` file beside it, where there is one.

    Args:
        rows: which reviews are taken, by their fields.
    """
    done, meta = finished(out, source, rows), metadata_of(source)
    if done is not None and ((out / "items.csv").exists() or meta is None):
        return done
    columns: dict[str, list[Any]] = {"user_id": [], "item_id": [], "timestamp": []}
    chosen: dict[str, list[str | None]] = {}
    wanted: dict[str, str] | None = None
    for number, record in lines(source):
        if wanted is None:
            wanted = rows.fields(source, list(map(str, record)), column_key)
        columns["user_id"].append(field(source, number, record, *USER))
        columns["item_id"].append(field(source, number, record, *ITEM))
        columns["timestamp"].append(seconds_of(source, number, record))
        for name in wanted:
            value = record.get(name)
            chosen.setdefault(name, []).append(None if value is None else str(value))
    if wanted is None:
        raise VbprError(f"{source} holds no reviews")
    notes = []
    if rows:
        bound = rows.bound(source, list(chosen), column_key)
        assert bound is not None
        keep, _ = bound.keep(
            pa.table({k: pa.array(v, pa.string()) for k, v in chosen.items()}),
            lambda row: f"{source}, line {row + 1:,}",
        )
        if not keep.any():
            raise VbprError(f"{source}: {rows.rule} are none of its {counted(len(keep), 'row')}")
        notes.append(f"{rows.rule}: {int(keep.sum()):,} of {counted(len(keep), 'row')}")
        columns = {name: [v for v, kept in zip(values, keep, strict=True) if kept] for name, values in columns.items()}
    begin(out, source, rows)
    write_table(out / "interactions.csv", columns)
    notes += ["review files hold no pictures: put them into images/, named by item id (items.csv has their addresses)"]
    if meta is None:
        notes.append("no meta_ file lies beside it, so titles and categories are missing")
    else:
        write_metadata(meta, out, set(columns["item_id"]))
    counts = {"users": len(set(columns["user_id"])), "items": len(set(columns["item_id"]))}
    return finish(out, source, counts | {"interactions": len(columns["user_id"])}, notes, rows)


USER, ITEM = ("reviewerID", "user_id"), ("parent_asin", "asin")  # of 2014 and 2018, and of 2023


def seconds_of(source: Path, number: int, record: dict[str, Any]) -> int | float:
    """When a review was written: seconds in 2014 and 2018, milliseconds in 2023."""
    when = record.get("unixReviewTime")
    if type(when) is int:
        return when
    when = record.get("timestamp", record.get("sort_timestamp"))
    if type(when) is int:
        return when / 1000 if when > MILLISECONDS else when
    raise VbprError(f"{source}, line {number:,} has no unixReviewTime and no timestamp; remove it")


MILLISECONDS = 10**11  # no review is of the year 5138


def metadata_of(source: Path) -> Path | None:
    """`reviews_X_5.json.gz` -> `meta_X.json.gz` beside it; of 2023 also in meta_categories/ beside its folder."""
    stem = re.sub(r"\.(jsonl?)(\.gz)?$", "", source.name).removeprefix("reviews_").removesuffix("_5")
    ends = (".json.gz", ".json", ".jsonl.gz", ".jsonl")
    folders = (source.parent, source.parent.parent / "meta_categories")
    found = (folder / f"meta_{stem}{end}" for folder in folders for end in ends)
    return next((path for path in found if path.is_file()), None)


def write_metadata(meta: Path, out: Path, wanted: set[str]) -> None:
    """items.csv: title, the leaf category, the path to it, and the address of the picture."""
    rows: dict[str, tuple[str, str, str, str]] = {}
    for number, record in lines(meta):
        item = field(meta, number, record, *ITEM)
        if item in wanted:
            words = categories_of(record)
            leaf = words[-1] if words else str(record.get("main_category") or record.get("main_cat") or "")
            rows[item] = (str(record.get("title") or ""), leaf, " > ".join(words), address_of(record))
    columns = list(zip(*rows.values(), strict=True)) or [()] * 4
    names = ("title", "category", "categories", "image_url")
    write_table(out / "items.csv", {"item_id": list(rows), **dict(zip(names, columns, strict=True))})


def categories_of(record: dict[str, Any]) -> list[str]:
    """The path of an item: the first of several in 2014, the only one in 2018 and 2023."""
    path = record.get("categories") or record.get("category")
    if isinstance(path, list) and path and isinstance(path[0], list):
        path = path[0]
    return [str(word) for word in path if isinstance(word, str | int)] if isinstance(path, list) else []


def address_of(record: dict[str, Any]) -> str:
    """Where the largest picture of an item is: imUrl in 2014; a list in 2018; in 2023 records, or lists by size."""
    images = record.get("images")
    if isinstance(images, dict):
        images = [{size: value} for size in SIZES for value in (images.get(size) or []) if value]
    found = [record.get("imUrl")]
    for listed in (record.get("imageURLHighRes"), record.get("imageURL")):
        found += listed if isinstance(listed, list) else [listed]
    for image in images if isinstance(images, list) else []:
        found += [image.get(size) for size in SIZES] if isinstance(image, dict) else [image]
    return next((address for address in found if isinstance(address, str) and address), "")


SIZES = ("hi_res", "large", "thumb")

__all__ = ["ID", "convert_reviews", "field", "lines"]
