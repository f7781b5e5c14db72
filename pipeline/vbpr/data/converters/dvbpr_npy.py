"""The original data sets of DVBPR (Kang et al. 2017): `AmazonFashion6ImgPartitioned.npy` and its like, written by
Python 2: [user_train, user_validation, user_test, Item, usernum, itemnum], pickled inside a NumPy object array.

convert_npy(Path("AmazonFashion6ImgPartitioned.npy"), Path("data/amazon-fashion"))
"""

import ast
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import VbprError, some
from .canonical import Conversion, begin, finish, finished, spans, write_table, write_tar
from .pickles import Array, Span, read_pickle
from .published import PUBLISHED

Record = dict[Any, Any]
MAGIC = b"\x93NUMPY"
ID = re.compile(r"[A-Za-z0-9_\-]{1,100}")  # what can be an id and the stem of a file name alike
SPLITS = ("train", "validation", "test")
FILE_NAMES = {"amazonfashion": "Amazon Fashion", "amazonmen": "Amazon Men", "tradesy": "Tradesy"}


def convert_npy(source: Path, out: Path) -> Conversion:
    """Write the canonical folder of an original file: interactions with the file's own split, items, images as one tar.

    Images are copied from the file one by one; a stopped run resumes.

    Raises:
        VbprError: truncated, damaged, malicious, or of another structure.
        Stopped: Ctrl-C or SIGTERM.
    """
    done = finished(out, source)
    if done is not None:
        return done
    parts, items = read_npy(source)
    users = user_ids(parts[0])
    ids = item_ids(items)
    begin(out, source)
    notes = []
    pairs = [(u, record, code) for code in range(3) for u in range(len(users)) for record in parts[code].get(u, [])]
    columns = {
        "user_id": [users[u] for u, _, _ in pairs],
        "item_id": [ids[product(source, record, len(ids))] for _, record, _ in pairs],
        "split": [SPLITS[code] for _, _, code in pairs],
    }
    times = [get(record, "unixReviewTime") for _, record, _ in pairs]
    if all(type(t) is int for t in times):
        columns["timestamp"] = times
    else:
        notes.append(f"{sum(type(t) is not int for t in times):,} interactions have no time, so none is written")
    write_table(out / "interactions.csv", columns)
    write_items(out, ids, items)
    images = {
        item: image
        for item, record in zip(ids, items, strict=True)
        if type(image := get(record, "imgs")) in (Span, bytes) and image
    }
    if len(images) < len(ids):
        missing = [item for item in ids if item not in images]
        notes.append(f"{len(missing):,} of {len(ids):,} items have no image: {some(missing)}")
    if images:
        write_tar(out, pictures(source, images), len(images))
    counts = {
        "users": len(users),
        "items": len(ids),
        "interactions": len(pairs),
        **{name: sum(1 for *_, code in pairs if code == n) for n, name in enumerate(SPLITS)},
        "images": len(images),
    }
    return finish(out, source, counts, notes + compare_with_published(source, counts))


def read_npy(source: Path) -> tuple[list[dict[int, list[Record]]], list[Record]]:
    """([train, validation, test], items) of an original file, checked for structure; images stay in the file as Span.

    Raises:
        VbprError: see `convert_npy`.
    """
    with source.open("rb") as handle:
        size = source.stat().st_size
        data: Any = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    try:
        value = read_pickle(source, data, header_end(source, data))
    finally:
        if size:
            data.close()
    value = value.value if type(value) is Array else value
    if type(value) is not list or len(value) != 6:
        raise VbprError(f"{source} does not hold the six parts of an original data set (user_train ... itemnum)")
    *parts, items, user_count, item_count = value
    for name, part, count in zip((*SPLITS, "Item"), (*parts, items), [user_count] * 3 + [item_count], strict=True):
        if type(part) is not dict or type(count) is not int:
            raise VbprError(f"{source}: its {name} is not a table by number; this is not an original data set")
        strange = [key for key in part if type(key) is not int or not 0 <= key < count]
        if strange:
            raise VbprError(f"{source}: its {name} has the key {strange[0]!r:.40}, outside 0 ... {count - 1:,}")
    if len(items) != item_count or len(parts[0]) != user_count:
        raise VbprError(
            f"{source} announces {user_count:,} users and {item_count:,} items, and holds {len(parts[0]):,} and "
            f"{len(items):,}; fetch it again"
        )
    for name, part in zip(SPLITS, parts, strict=True):
        if not all(type(events) is list and all(type(event) is dict for event in events) for events in part.values()):
            raise VbprError(f"{source}: its {name} does not hold lists of interactions")
    if not all(type(record) is dict for record in items.values()):
        raise VbprError(f"{source}: its Item does not hold a table an item")
    return parts, [items[i] for i in range(item_count)]


def header_end(source: Path, data: Any) -> int:
    """Where the pickle begins: after the header of a `.npy` of objects."""
    if bytes(data[:6]) != MAGIC or len(data) < 12:
        raise VbprError(f"{source} is not a .npy file (or is cut short); fetch it again")
    wide = data[6] > 1
    start = 12 if wide else 10
    length = int.from_bytes(data[8:start], "little")
    if length > 10_000 or start + length > len(data):
        raise VbprError(f"{source} is cut short, or its header is forged; fetch it again")
    try:
        header = ast.literal_eval(bytes(data[start : start + length]).decode("latin-1").strip())
        shape, kind = header["shape"], header["descr"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise VbprError(f"{source} has a damaged header; fetch it again") from error
    if shape != (6,) or kind not in ("|O", "O", "|O8", "|O4"):
        raise VbprError(f"{source} is an array {shape} of {kind}, not six Python objects as in the original data sets")
    return start + length


def get(record: Record, key: str) -> Any:
    """A field under its text or its bytes name; None where there is none."""
    value = record.get(key)
    return record.get(key.encode()) if value is None else value


def text(value: Any) -> str:
    """A field as text; nothing for one that is absent or long."""
    if type(value) is bytes:
        return value.decode("utf-8", "replace")
    return value if type(value) is str else ""


def product(source: Path, record: Record, count: int) -> int:
    index = get(record, "productid")
    if type(index) is not int or not 0 <= index < count:
        raise VbprError(f"{source}: an interaction has the productid {index!r:.40}, outside 0 ... {count - 1:,}")
    return index


def unique(names: list[str], prefix: str) -> list[str]:
    """Names that can serve as ids; where any is missing, strange or repeated, all become numbers."""
    if len(set(names)) == len(names) and all(ID.fullmatch(name) for name in names):
        return names
    return [f"{prefix}{n}" for n in range(len(names))]


def user_ids(train: dict[int, list[Record]]) -> list[str]:
    return unique([text(get(train[u][0], "reviewerID")) if train[u] else "" for u in range(len(train))], "u")


def item_ids(items: list[Record]) -> list[str]:
    return unique([text(get(record, "asin")) for record in items], "i")


def write_items(out: Path, ids: list[str], items: list[Record]) -> None:
    """items.csv: asin, title, the leaf category, the path to it, and the class of the six where the file has it."""
    paths = [category_path(get(record, "categories")) for record in items]
    columns: dict[str, list[Any]] = {
        "item_id": ids,
        "asin": [text(get(record, "asin")) for record in items],
        "title": [text(get(record, "title")) for record in items],
        "category": [path[-1] if path else "" for path in paths],
        "categories": [" > ".join(path) for path in paths],
        "image_url": [text(get(record, "imUrl")) for record in items],
    }
    classes = [class_of(get(record, "c")) for record in items]
    if any(classes):
        columns["class"] = classes
    write_table(out / "items.csv", columns)


def category_path(categories: Any) -> list[str]:
    """The first path of Amazon's list of paths."""
    while type(categories) is list and categories and type(categories[0]) is list:
        categories = categories[0]
    return [text(word) for word in categories if text(word)] if type(categories) is list else []


def class_of(one_hot: Any) -> str:
    """The number of the class in a one-hot array: 0 to 5, or nothing."""
    value = one_hot.value if type(one_hot) is Array else None
    return str(int(value.argmax())) if isinstance(value, np.ndarray) and value.any() else ""


def pictures(source: Path, images: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """(item id, bytes) in order, out of the file or, for the few short ones, out of memory."""
    read = spans(source, [(item_id, *image) for item_id, image in images.items() if type(image) is Span])
    for item_id, image in images.items():
        yield next(read) if type(image) is Span else (item_id, image)


def compare_with_published(source: Path, counts: dict[str, int]) -> list[str]:
    """Where the counts stand beside the published ones of the data set that the file's name announces."""
    stem = source.name.lower().replace("_", "").replace("-", "")
    name = next((title for start, title in FILE_NAMES.items() if stem.startswith(start)), None)
    if name is None:
        return []
    published = PUBLISHED[name]
    wanted = {name: getattr(published, name) for name in ("users", "items", "interactions", "train")}
    wrong = [
        f"{counts[key]:,} {key} where {value:,} are published" for key, value in wanted.items() if counts[key] != value
    ]
    if not wrong:
        return [f"counts agree with what is published of {name}"]
    return [f"not the published {name}: {', '.join(wrong)}"]


__all__ = ["convert_npy", "read_npy"]
