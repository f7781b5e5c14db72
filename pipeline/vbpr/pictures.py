"""Picture grids: rows of item photographs with captions, the quickest way to judge a visual recommender.

grid([Row("history", ids), Row("recommended", ids)], photos).save("grid.png")
"""

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from .datasets import Dataset, titles
from .errors import VbprError
from .files import Strings, replacing
from .images import BadImage, ImageSource, load

CELL, GAP, LINE = 140, 10, 14


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a grid: a heading, and items with a caption each."""

    heading: str
    item_ids: Sequence[str]
    captions: Sequence[str] = ()


class Photos:
    """Photographs and titles of a data set's items, by id; an item without one gets a grey square."""

    def __init__(self, data: Dataset) -> None:
        try:
            self.source: ImageSource | None = data.images()
        except VbprError:
            self.source = None
        self.at = {} if self.source is None else {str(item): i for i, item in enumerate(self.source.item_ids)}
        self.data = data
        self.extra: dict[str, Image.Image] = {}

    def get(self, item_id: str) -> Image.Image:
        if item_id in self.extra:
            return self.extra[item_id]
        try:
            if self.source is not None and item_id in self.at:
                return load(self.source.read(self.at[item_id]))
        except BadImage:
            pass
        return Image.new("RGB", (CELL, CELL), "#dddddd")

    def titles(self, item_ids: Strings | Sequence[str]) -> list[str]:
        return titles(self.data.items(), item_ids)


def grid(rows: Sequence[Row], photos: Photos, columns: int = 10) -> Image.Image:
    """Draw rows of items, wrapped at `columns`, each under its heading."""
    rows = [row for row in rows if row.item_ids]
    widest = max(1, min(columns, max((len(row.item_ids) for row in rows), default=1)))
    cell = CELL + 3 * LINE + GAP
    lines = [-(-len(row.item_ids) // widest) for row in rows]
    canvas = Image.new(
        "RGB", (widest * (CELL + GAP) + GAP, sum(n * cell + 2 * LINE + GAP for n in lines) + GAP), "white"
    )
    draw = ImageDraw.Draw(canvas)
    small, large = ImageFont.load_default(11), ImageFont.load_default(15)
    y = GAP
    for row, count in zip(rows, lines, strict=True):
        draw.text((GAP, y), row.heading, "black", large)
        y += 2 * LINE
        for n, item_id in enumerate(row.item_ids):
            x, top = GAP + n % widest * (CELL + GAP), y + n // widest * cell
            photo = ImageOps.contain(photos.get(item_id), (CELL, CELL), Image.Resampling.LANCZOS)
            canvas.paste(photo, (x + (CELL - photo.width) // 2, top + (CELL - photo.height) // 2))
            caption = row.captions[n] if n < len(row.captions) else item_id
            for i, line in enumerate(textwrap.wrap(caption, 24, max_lines=3, placeholder="…")):
                draw.text((x, top + CELL + 2 + i * LINE), line, "#444444", small)
        y += count * cell + GAP
    return canvas


def save_grid(path: Path | str, rows: Sequence[Row], photos: Photos, columns: int = 10) -> None:
    """Draw a grid into an image file; the suffix tells the format.

    Raises:
        VbprError: an unknown suffix, or the place cannot be written.
    """
    suffix = Path(path).suffix.lower()
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    if suffix not in formats:
        raise VbprError(f"--grid {path}: give a name that ends in {', '.join(formats)}")
    with replacing(path) as temporary:
        grid(rows, photos, columns).save(temporary, formats[suffix])


__all__ = ["Photos", "Row", "grid", "save_grid"]
