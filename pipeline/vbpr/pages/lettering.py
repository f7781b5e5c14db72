"""Captions of pictures: a font that the machine has, and lines that fit."""

import contextlib
import functools
import textwrap
from typing import Any

from PIL import ImageFont

CELL, GAP, LINE = 140, 10, 14  # pixels: a side of a photograph, the space between two, the height of a line


def wrapped(text: str, small: Any, lines: int = 3) -> list[str]:
    """A text in at most `lines` lines of the font `small`, none wider than a photograph; `…` ends what is cut."""
    width = next(
        (n for n in range(22, 4, -1) if fit(textwrap.wrap(text, n, max_lines=lines, placeholder="…"), small)), 4
    )
    return textwrap.wrap(text, width, max_lines=lines, placeholder="…")


def fit(lines: list[str], small: Any) -> bool:
    """Whether none of these lines is wider than a photograph."""
    return all(small.getlength(line) <= CELL for line in lines)


# The first that is installed is used: these have most alphabets, Pillow's built-in font has Latin letters alone.
FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf")


@functools.cache
def font(size: int) -> Any:
    """Of this size in pixels."""
    for name in FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


__all__ = ["CELL", "GAP", "LINE", "font", "wrapped"]
