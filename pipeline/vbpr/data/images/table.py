"""The table of a data set's pictures, written out: whose picture each file is."""

import csv
import io
from typing import TYPE_CHECKING

from ...base.arrays import Strings
from ..same_ids import suffixed
from .naming import natural

if TYPE_CHECKING:
    from ..dataset import Dataset


def table_of(data: "Dataset", suffixes: bool) -> str:
    """`item_id,file,position` of each picture, as CSV, in the order of ids and positions.

    Args:
        suffixes: whether items that nobody took, named like another one and a suffix, are further pictures of it.

    Raises:
        VbprError: see `open_images`.
    """
    images = data.images()
    ids = images.item_ids.tolist()
    own = further_pictures(images.item_ids, data.known_items()) if suffixes else {}
    rows: list[tuple[str, bool, int, str]] = []
    for n, item in enumerate(ids):
        for at, path in enumerate(images.paths_of(n)):
            rows.append((own.get(item, item), item in own, at, path))
    rows.sort(key=lambda row: (row[0], row[1], row[2], natural(row[3])))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["item_id", "file", "position"])
    position, before = 0, None
    for item, _, _, path in rows:
        position = position + 1 if item == before else 1
        before = item
        writer.writerow([item, path, position])
    return text.getvalue()


def further_pictures(item_ids: Strings, taken: Strings | None) -> dict[str, str]:
    """Images named like another one and a suffix, each with that item; one that somebody took is nobody's picture."""
    named = suffixed(item_ids, None)
    if taken is None:
        return named
    items = set(taken.tolist())
    return {item: base for item, base in named.items() if item not in items} | suffixed(item_ids, taken)


__all__ = ["table_of"]
