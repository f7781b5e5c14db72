"""Rows of a file, each stretch of them one read or write."""

import contextlib
import itertools
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from ...base.arrays import Array
from ...base.errors import VbprError


class Rows:
    """(N, D) float16 rows of a file, each stretch of them one read: `rows[5]`, `rows[a:b]`, `rows[positions]`.

    They are not mapped, for then a disk that fails would kill the process, where here it is an error.
    """

    dtype = np.dtype("<f2")

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...]) -> None:
        self.path, self.offset, self.shape = path, offset, shape
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, close_quietly, self.descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.path, self.offset, self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype)

    def __getitem__(self, rows: Any) -> Array:
        """
        Raises:
            IndexError: there is no such row.
            VbprError: the disk fails, or the file has been cut off.
        """
        at = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        if (
            isinstance(rows, tuple)
            or at.ndim > 1
            or (len(at) != len(self) if at.dtype == bool else at.dtype.kind not in "iu")
        ):
            raise IndexError(f"{self.path} is read by row: a whole number, a slice, positions, or a mask of all rows")
        flat = np.flatnonzero(at) if at.dtype == bool else np.atleast_1d(at)
        if len(flat) and not 0 <= flat.min() <= flat.max() < len(self):
            raise IndexError(f"{self.path} has rows 0 to {len(self) - 1}; asked for {flat.min()} to {flat.max()}")
        out = np.empty((len(flat), self.shape[1]), self.dtype)
        for run in runs(flat):
            self.fill(out[run], self.offset + int(flat[run.start]) * out[0].nbytes)
        return out if at.ndim else out[0]

    def fill(self, out: Array, offset: int) -> None:
        """Read the file from `offset` on into a contiguous array."""
        left = out.reshape(-1).view(np.uint8).data
        while len(left):
            try:
                read = os.preadv(self.descriptor, [left], offset)
            except OSError as error:
                raise VbprError(f"{self.path} could not be read ({error.strerror}); mend the disk") from error
            if not read:
                raise VbprError(f"{self.path} ends too early; delete the file and run vbpr extract again")
            left, offset = left[read:], offset + read


def close_quietly(descriptor: int) -> None:
    """Nothing was written there: a disk that fails now is nobody's concern."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def runs(rows: Array) -> list[slice]:
    """Where stretches of consecutive positions lie in an array of them: each is one read or write."""
    edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)] if len(rows) else []


def pwrite(descriptor: int, data: Array, offset: int) -> None:
    view = data.data.cast("B")
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


__all__ = ["Rows", "pwrite", "runs"]
