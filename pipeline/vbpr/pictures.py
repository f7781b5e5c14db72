"""Picture grids: rows of item photographs with captions, the quickest way to judge a visual recommender.

grid([Row("history", ids), Row("recommended", ids)], photos).save("grid.png")
"""

import contextlib
import dataclasses
import functools
import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .base.arrays import Strings
from .base.errors import VbprError, some
from .base.files import read_bytes, replacing
from .base.progress import console
from .base.targets import SOFTWARE, check_target
from .data.dataset import Dataset
from .data.images import open_images
from .data.images.decode import load
from .data.images.source import MAX_BYTES, BadImage, ImageSource
from .data.items import titles

CELL, GAP, LINE = 140, 10, 14
LARGEST = {"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}  # pixels of a side that the format takes


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a grid: a heading, and items."""

    heading: str
    item_ids: Sequence[str]


class Photos:
    """Photographs and titles of a data set's items, by id; an item without one gets a grey square."""

    def __init__(self, data: Dataset, added: Sequence[dict[str, Any]] = ()) -> None:
        """
        Args:
            added: of a model, `about["added"]`: folders of items that came later.
        """
        self.data, self.folders = data, [data.path, *(Path(a["folder"]) for a in added)]
        self.extra: dict[str, Image.Image] = {}

    @functools.cached_property
    def at(self) -> dict[str, tuple[ImageSource, int]]:
        """Where each item's image is; listed when the first one is looked for."""
        found: dict[str, tuple[ImageSource, int]] = {}
        for folder in self.folders:
            with contextlib.suppress(VbprError):
                source = open_images(folder)
                found = {str(item): (source, i) for i, item in enumerate(source.item_ids)} | found
        return found

    def add(self, path: Path | str) -> None:
        """Let a photo file be shown, under its path as id."""
        with contextlib.suppress(OSError, BadImage):
            self.extra[str(path)] = load(read_bytes(path, MAX_BYTES))

    def get(self, item_id: str) -> Image.Image:
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

    def tell_absent(self, item_ids: Iterable[Any]) -> None:
        """Say so where none of these items has a photograph: all squares are grey then."""
        if not any(str(item) in self.at or str(item) in self.extra for item in item_ids):
            looked = some(map(str, self.folders))
            console.print(f"note: no photograph of any of these items in {looked}; if they have moved, give --data")

    def titles(self, item_ids: Strings | Sequence[str]) -> list[str]:
        return titles(self.data.items(), item_ids)

    def captions(self, item_ids: Sequence[str]) -> list[str]:
        """Each item's id and title."""
        return [f"{i} {title}".strip() for i, title in zip(item_ids, self.titles(item_ids), strict=True)]


def within(image: Image.Image, side: int) -> Image.Image:
    """An image as large as a square of `side` pixels holds it; a sliver keeps one pixel."""
    scale = side / max(image.size)
    width, height = (max(1, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def no_photo() -> Image.Image:
    square = Image.new("RGB", (CELL, CELL), "#dddddd")
    ImageDraw.Draw(square).text((CELL / 2, CELL / 2), "no photo", "#666666", font(11), anchor="mm")
    return square


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
    small, large = font(11), font(15)
    y = GAP
    for row, count in zip(rows, lines, strict=True):
        draw.text((GAP, y), row.heading, "black", large)
        y += 2 * LINE
        for n, (item_id, caption) in enumerate(zip(row.item_ids, photos.captions(row.item_ids), strict=True)):
            x, top = GAP + n % widest * (CELL + GAP), y + n // widest * cell
            photo = within(photos.get(item_id), CELL)
            canvas.paste(photo, (x + (CELL - photo.width) // 2, top + (CELL - photo.height) // 2))
            for i, line in enumerate(wrapped(caption, small)):
                draw.text((x, top + CELL + 2 + i * LINE), line, "#444444", small)
        y += count * cell + GAP
    return canvas


def wrapped(text: str, small: Any, lines: int = 3) -> list[str]:
    """A text in so many lines at most, none of them wider than a picture."""
    width = next(
        (n for n in range(22, 4, -1) if fit(textwrap.wrap(text, n, max_lines=lines, placeholder="…"), small)), 4
    )
    return textwrap.wrap(text, width, max_lines=lines, placeholder="…")


def fit(lines: list[str], small: Any) -> bool:
    return all(small.getlength(line) <= CELL for line in lines)


# The first of these that the machine has writes most alphabets; Pillow's own font has English letters alone.
FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf")


@functools.cache
def font(size: int) -> Any:
    for name in FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_grid(path: Path | str | None) -> None:
    """
    Raises:
        VbprError: the name of a grid's file does not tell its format, or the place holds something else.
    """
    if path is None:
        return
    if Path(path).suffix.lower() not in FORMATS:
        raise VbprError(f"--grid {path}: give a name that ends in {', '.join(FORMATS)}")
    check_target(Path(path), "a picture of ours", "--grid")


def save_grid(path: Path | str, rows: Sequence[Row], photos: Photos, columns: int = 10) -> None:
    """Draw a grid into an image file; the suffix tells the format.

    Raises:
        VbprError: an unknown suffix, a picture larger than its format allows, or the place cannot be written.
    """
    check_grid(path)
    form = FORMATS[Path(path).suffix.lower()]
    with replacing(path, "a picture of ours") as temporary:
        picture = grid(rows, photos, columns)
        if max(picture.size) > LARGEST[form]:
            raise VbprError(
                f"--grid {path}: {picture.width:,} x {picture.height:,} pixels are more than {form} takes; "
                "give a .png, or fewer items"
            )
        told = Image.Exif()
        told[SOFTWARE] = "vbpr"  # by which it is known again, and written over where it lies
        picture.save(temporary, form, exif=told)
    photos.tell_absent(item_id for row in rows for item_id in row.item_ids)


__all__ = ["Photos", "Row", "check_grid", "grid", "save_grid"]
