"""Words in pictures, in a font that the machine has."""

import contextlib
import functools
import textwrap
from typing import Any

from PIL import ImageFont

CELL, GAP, LINE = 140, 10, 14


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


__all__ = ["CELL", "GAP", "LINE", "font", "wrapped"]
