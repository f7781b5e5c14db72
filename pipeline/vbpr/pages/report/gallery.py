"""Items as the report shows them: each is numbered when first shown, and its thumbnail is made once, at the end."""

import base64
import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...base.arrays import Array
from ...stores.model.factors import Factors
from ..photos import Photos

SIDE = 200  # pixels of a thumbnail


@dataclasses.dataclass
class Gallery:
    """The items shown so far.

    Attributes:
        number: of an item's position, in the order of first showing; thumbnails have the same order.
    """

    factors: Factors
    photos: Photos
    number: dict[int, int] = dataclasses.field(default_factory=dict)

    def items(self, at: Array, words: Sequence[str] = ()) -> list[dict[str, Any]]:
        """What the template needs to show items, by position; `words` go under the first of them."""
        ids = self.factors.item_ids[at]
        titles = self.photos.titles(ids)
        return [
            {
                "n": self.number.setdefault(int(i), len(self.number)),
                "id": str(item),
                "title": title,
                "words": words[n] if n < len(words) else "",
            }
            for n, (i, item, title) in enumerate(zip(at, ids, titles, strict=True))
        ]

    def thumbnails(self) -> list[str]:
        """The data URL of each numbered item, in order; empty for one without a photograph."""
        ids = self.factors.item_ids[list(self.number)]

        def one(item_id: Any) -> str:
            data = self.photos.thumbnail(str(item_id), SIDE)
            return "" if data is None else data_url(data)

        return threads(one, ids)


def threads(work: Callable[[Any], Any], values: Any) -> list[Any]:
    """What `work` makes of each value, in order; two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, values))


def data_url(webp: bytes) -> str:
    """A picture as an address that holds it."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


__all__ = ["Gallery", "data_url", "threads"]
