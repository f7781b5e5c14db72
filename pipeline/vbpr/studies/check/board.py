"""The made catalogue of the contract tests: a checkerboard in memory, whose right answers are known.

Users of group A took every red item, users of group B every blue one. One item of each colour nobody took. Six columns
of features, of which two tell red from blue.
"""

import colorsys
import io

import numpy as np
from PIL import Image

from ...base.arrays import Array
from ...data.interactions import Interactions
from ...data.split import Split, SplitConfig
from ...training.item_features import ItemFeatures

ITEMS, USERS = 10, 16  # of each colour
HUES = {"red": 0.0, "blue": 0.62}


class Pictures:
    """A square of its colour for each item: an `ImageSource` in memory."""

    name = "the checkerboard"

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        names = [f"{colour}-{n:02}" for colour in HUES for n in range(ITEMS)] + [f"{colour}-new" for colour in HUES]
        self.item_ids = np.array(sorted(names))
        self.pictures = [square(HUES[name.split("-")[0]] + rng.uniform(-0.03, 0.03), rng) for name in self.item_ids]

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, i: int) -> bytes:
        """The encoded picture of an item."""
        return self.pictures[i]

    def signature(self, i: int) -> int:
        return i


def square(hue: float, rng: np.random.Generator, size: int = 40) -> bytes:
    """An encoded square of about this hue on a white ground."""
    pixels = np.full((size, size, 3), 255, np.uint8)
    a, b = rng.integers(2, size // 4), size - rng.integers(2, size // 4)
    pixels[a:b, a:b] = np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.75, 1), rng.uniform(0.7, 1))) * 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def board(item_ids: Array) -> Split:
    """The purchases, split at random."""
    pairs = [
        (f"{group}{u:02}", f"{colour}-{i:02}")
        for group, colour in zip("AB", HUES, strict=True)
        for u in range(USERS)
        for i in range(ITEMS)
    ]
    users, items = zip(*pairs, strict=True)
    return Split.make(Interactions.of(users, items), SplitConfig("random", seed=1), catalogue=item_ids)


def features_of(item_ids: Array, known: Array | None = None) -> ItemFeatures:
    """(I, 6) float16.

    Args:
        known: (I,) bool; rows of the others hold a number that no model may read.
    """
    known = np.ones(len(item_ids), bool) if known is None else known
    red = np.char.startswith(item_ids, "red")
    matrix = np.concatenate(
        [np.stack([red, ~red], 1) * 2.0 + 5, np.random.default_rng(0).normal(size=(len(red), 4))], 1
    )
    matrix[~known] = 60_000.0
    return ItemFeatures.of(matrix.astype(np.float16), known)


__all__ = ["Pictures", "board", "features_of", "square"]
