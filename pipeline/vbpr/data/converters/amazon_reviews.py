"""Amazon's reviews of 2014 (McAuley et al.): gzipped lines, JSON or Python literals; nothing is ever evaluated.

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

from ...base.errors import VbprError
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


def field(source: Path, number: int, record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise VbprError(f"{source}, line {number:,} has no {name}; it has {', '.join(sorted(map(str, record)))[:120]}")
    if not ID.fullmatch(value):
        raise VbprError(f"{source}, line {number:,}: {name} {value[:100]!r} is no id; mend or remove the line")
    return value


def convert_reviews(source: Path, out: Path) -> Conversion:
    """Write interactions.csv from a review file, and items.csv from the `meta_` file beside it, where there is one."""
    done, meta = finished(out, source), metadata_of(source)
    if done is not None and ((out / "items.csv").exists() or meta is None):
        return done
    users, items, times = [], [], []
    for number, record in lines(source):
        users.append(field(source, number, record, "reviewerID"))
        items.append(field(source, number, record, "asin"))
        when = record.get("unixReviewTime")
        if type(when) is not int:
            raise VbprError(f"{source}, line {number:,} has no unixReviewTime; remove it")
        times.append(when)
    if not users:
        raise VbprError(f"{source} holds no reviews")
    begin(out, source)
    write_table(out / "interactions.csv", {"user_id": users, "item_id": items, "timestamp": times})
    notes = ["review files hold no pictures: put them into images/, named by item id (items.csv has their addresses)"]
    if meta is None:
        notes.append("no meta_ file lies beside it, so titles and categories are missing")
    else:
        write_metadata(meta, out, set(items))
    counts = {"users": len(set(users)), "items": len(set(items)), "interactions": len(users)}
    return finish(out, source, counts, notes)


def metadata_of(source: Path) -> Path | None:
    """`reviews_X_5.json.gz` -> `meta_X.json.gz` beside it."""
    stem = source.name.removeprefix("reviews_").removesuffix(".gz").removesuffix(".json").removesuffix("_5")
    found = (source.with_name(f"meta_{stem}{suffix}") for suffix in (".json.gz", ".json"))
    return next((path for path in found if path.is_file()), None)


def write_metadata(meta: Path, out: Path, wanted: set[str]) -> None:
    rows: dict[str, tuple[str, str, str, str]] = {}
    for number, record in lines(meta):
        item = field(meta, number, record, "asin")
        if item in wanted:
            paths = record.get("categories")
            path = paths[0] if isinstance(paths, list) and paths else None
            words = [str(word) for word in path] if isinstance(path, list) else []
            leaf = words[-1] if words else ""
            rows[item] = (str(record.get("title") or ""), leaf, " > ".join(words), str(record.get("imUrl") or ""))
    columns = list(zip(*rows.values(), strict=True)) or [()] * 4
    names = ("title", "category", "categories", "image_url")
    write_table(out / "items.csv", {"item_id": list(rows), **dict(zip(names, columns, strict=True))})


__all__ = ["ID", "convert_reviews", "field", "lines"]
