"""Picture grids: rows of item photographs with captions, the quickest way to judge a visual recommender.

grid([Row("history", ids), Row("recommended", ids)], photos).save("grid.png")
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ..base.errors import VbprError
from ..base.files import replacing
from ..base.targets import SOFTWARE, check_target
from .lettering import CELL, GAP, LINE, font, wrapped
from .photos import LARGEST, Photos, within

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # by suffix


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a grid: a heading, and items."""

    heading: str
    item_ids: Sequence[str]


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


def check_grid(path: Path | str | None) -> None:
    """Refuse a grid's path before any work is done.

    Raises:
        VbprError: its suffix is of no format that is written, or the file there is none of ours.
    """
    if path is None:
        return
    if Path(path).suffix.lower() not in FORMATS:
        raise VbprError(f"--grid {path}: give a name that ends in {', '.join(FORMATS)}")
    check_target(Path(path), "a picture of ours", "--grid")


def save_grid(path: Path | str, rows: Sequence[Row], photos: Photos, columns: int = 10) -> None:
    """Draw a grid into an image file, in the format of its suffix.

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
        exif = Image.Exif()
        exif[SOFTWARE] = "vbpr"  # marks the file as ours: only such a one may be written over
        picture.save(temporary, form, exif=exif)
    photos.warn_if_none(item_id for row in rows for item_id in row.item_ids)


__all__ = ["Row", "check_grid", "grid", "save_grid"]
