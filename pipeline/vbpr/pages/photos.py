"""Photographs of items, small, for grids and pages."""

import contextlib
import functools
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ..base.arrays import Strings
from ..base.errors import VbprError, some
from ..base.files import read_bytes
from ..base.progress import console
from ..data.dataset import Dataset
from ..data.images import open_images
from ..data.images.decode import load
from ..data.images.source import MAX_BYTES, BadImage, ImageSource
from .lettering import CELL, font

LARGEST = {"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}  # most pixels of a side, by format


class Photos:
    """Photographs and titles of a data set's items, by id; an item without one gets a grey square."""

    def __init__(self, data: Dataset, added: Sequence[dict[str, Any]] = ()) -> None:
        """
        Args:
            added: of a model, `record.added`: folders of items that came later.
        """
        self.data, self.folders = data, [data.path, *(Path(a["folder"]) for a in added)]
        self.extra: dict[str, Image.Image] = {}

    @functools.cached_property
    def at(self) -> dict[str, tuple[ImageSource, int]]:
        """Each item's source and position in it; the folders are listed on first use, and the first that has an item
        counts."""
        places: dict[str, tuple[ImageSource, int]] = {}
        for folder in self.folders:
            with contextlib.suppress(VbprError):
                source = open_images(folder)
                places = {str(item): (source, i) for i, item in enumerate(source.item_ids)} | places
        return places

    def add(self, path: Path | str) -> None:
        """Let a photo file be shown, under its path as id."""
        with contextlib.suppress(OSError, BadImage):
            self.extra[str(path)] = load(read_bytes(path, MAX_BYTES))

    def get(self, item_id: str) -> Image.Image:
        """The photograph of an item, or a grey square."""
        return self.extra.get(item_id) or self.photo(item_id) or no_photo()

    def photo(self, item_id: str) -> Image.Image | None:
        """The photograph of an item, or None where there is none that can be shown."""
        if item_id not in self.at:
            return None
        source, i = self.at[item_id]
        try:
            return load(source.read(i))
        except BadImage:
            return None

    def thumbnail(self, item_id: str, side: int, quality: int = 70) -> bytes | None:
        """A WebP of an item's photograph that fits a square of `side` pixels, or None where there is none."""
        image = self.photo(item_id)
        if image is None:
            return None
        buffer = io.BytesIO()
        within(image, side).save(buffer, "WEBP", quality=quality)
        return buffer.getvalue()

    def warn_if_none(self, item_ids: Iterable[Any]) -> None:
        """Print a note if none of these items has a photograph, so that all squares are grey."""
        if not any(str(item) in self.at or str(item) in self.extra for item in item_ids):
            folders = some(map(str, self.folders))
            console.print(f"note: no photograph of any of these items in {folders}; if they have moved, give --data")

    def titles(self, item_ids: Strings | Sequence[str]) -> list[str]:
        """Each item's title, empty where it has none."""
        return self.data.titles(item_ids)

    def captions(self, item_ids: Sequence[str]) -> list[str]:
        """Each item's id and title."""
        return [f"{i} {title}".strip() for i, title in zip(item_ids, self.titles(item_ids), strict=True)]


def within(image: Image.Image, side: int) -> Image.Image:
    """An image scaled so that its longer side has `side` pixels, and its shorter one at least one."""
    scale = side / max(image.size)
    width, height = (max(1, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def no_photo() -> Image.Image:
    """A grey square that says so."""
    square = Image.new("RGB", (CELL, CELL), "#dddddd")
    ImageDraw.Draw(square).text((CELL / 2, CELL / 2), "no photo", "#666666", font(11), anchor="mm")
    return square


__all__ = ["LARGEST", "Photos", "within"]
