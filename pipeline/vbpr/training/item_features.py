"""The features of a catalogue's items, in the order of a split, with their mean and deviation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..base.arrays import Array
from ..base.errors import VbprError
from ..stores.features.rows import Rows

# Of features at a time: what is done to them stays in the cache, and torch widens float16 five times as fast as NumPy.
ROWS = 512


class Aligned:
    """(I, D) float16: what feature files have of a catalogue's items, side by side, read when it is asked for."""

    def __init__(self, files: Sequence[tuple[Rows, Array]]) -> None:
        """
        Args:
            files: each one's rows, and (I,) int64 which of them is whose, -1 where it has none: the mean stands there.
        """
        self.shape = len(files[0][1]), sum(rows.shape[1] for rows, _ in files)
        known = np.logical_or.reduce([place >= 0 for _, place in files])
        self.parts = []
        for rows, place in files:
            mean = np.zeros(rows.shape[1])
            if (known & (place < 0)).any():
                found = place[place >= 0]
                for a in range(0, len(found), ROWS):
                    mean += rows[found[a : a + ROWS]].sum(0, dtype=np.float64) / len(found)
            self.parts.append((rows, place, mean.astype(np.float16)))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: Any) -> Array:
        """The features of items: a position, a slice, positions, or a mask of all of them."""
        columns = []
        for rows, place, mean in self.parts:
            wanted = np.asarray(place[items])
            there = wanted >= 0
            out = np.empty((*wanted.shape, rows.shape[1]), np.float16)
            out[:] = mean
            out[there] = rows[wanted[there]]
            columns.append(out)
        return columns[0] if len(columns) == 1 else np.concatenate(columns, -1)


@dataclasses.dataclass(frozen=True)
class ItemFeatures:
    """The catalogue's features, aligned with a split's `item_ids`.

    Attributes:
        matrix: (I, D) float16, in memory or of feature files; rows of items without features are not to be read.
        known: (I,) bool.
        mean, scale: (D,) float32, over the known rows; a constant column has scale 1.
    """

    matrix: Array | Rows | Aligned
    known: Array
    mean: Array
    scale: Array

    @classmethod
    def of(cls, matrix: Array | Rows | Aligned, known: Array) -> "ItemFeatures":
        """Take the statistics of the known rows, in one pass over blocks.

        Raises:
            VbprError: no row is known, a value is not finite, or every column is constant.
        """
        rows = np.flatnonzero(known)
        if not len(rows):
            raise VbprError("no item of the interactions has features; extract them from this data set's images")
        shift = np.asarray(matrix[rows[:ROWS]], np.float32).mean(0)  # so that the sums of squares do not cancel
        total, square = np.zeros(matrix.shape[1]), np.zeros(matrix.shape[1])
        for a in range(0, len(rows), ROWS):
            f = torch.from_numpy(matrix[rows[a : a + ROWS]]).float().sub_(torch.from_numpy(shift))
            total += f.sum(0).numpy()
            square += f.square_().sum(0).numpy()
        if not np.isfinite(square).all():
            bad = next(i for i in rows.tolist() if not np.isfinite(matrix[i]).all())
            raise VbprError(
                f"row {bad} of the features holds a value that is not finite; vbpr extract --verify encodes what has "
                "changed in a feature file"
            )
        mean = total / len(rows)
        std = np.sqrt(np.maximum(0, square / len(rows) - mean**2))
        constant = std <= 1e-6 * np.maximum(1, np.abs(shift))
        if constant.all():
            raise VbprError(
                "every image has the same features, as float16 keeps them; the backbone or the images are at fault, or "
                "the scale of numbers from elsewhere"
            )
        return cls(matrix, known, (mean + shift).astype(np.float32), np.where(constant, 1, std).astype(np.float32))

    def standardised(self, rows: Array, device: torch.device | str = "cpu") -> torch.Tensor:
        """(n, D) float32, mean 0 and deviation 1 a column; items without features have the mean, that is 0."""
        mean, scale, unknown = (
            torch.from_numpy(a).to(device) for a in (self.mean, self.scale, np.flatnonzero(~self.known[rows]))
        )
        z = torch.from_numpy(self.matrix[rows]).to(device).float().sub_(mean).div_(scale)
        z[unknown] = 0
        return z


__all__ = ["ROWS", "Aligned", "ItemFeatures"]
