"""Arrays of a model file by blocks of rows, each with its CRC-32: what one answer needs is read and checked alone.

A CRC finds what disks and copies do to a file, at four times the speed of the digest of all, which goes over every
number whenever a model is loaded whole.
"""

import os
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from ...base.arrays import Array

BLOCK = 2**21  # bytes, about: so that a block is in the caches when it is checked and used
ROWS = "rows"  # attribute: of a block


def sums_of(array: Array) -> tuple[Array, int]:
    """(blocks,) uint32, the CRC-32 of each block of an array (n, ...), and how many rows a block has."""
    array = np.ascontiguousarray(array)
    rows = max(1, BLOCK // max(1, array[:1].nbytes))
    sums = [zlib.crc32(array[a : a + rows].view(np.uint8).data) for a in range(0, len(array), rows)]
    return np.array(sums, "<u4"), rows


class Blocks:
    """An array (n, ...) of a model file that is open, read by blocks."""

    def __init__(
        self, file: int, handle: h5py.File, checks: h5py.Group, name: str, shape: tuple[int | None, ...]
    ) -> None:
        """
        Args:
            file: a descriptor of the file, to read from. checks: see `sums_of`.
            shape: that it must have; None stands for any length.

        Raises:
            KeyError, TypeError, ValueError: it is not there, or not as `write_model` writes it.
        """
        data, sums = handle[name], checks[name]
        self.name, self.file, self.offset = name, file, data.id.get_offset() or 0
        self.shape, self.rows = data.shape, int(sums.attrs[ROWS])
        kind = f"S{data.dtype.itemsize}" if data.dtype.kind == "S" else data.dtype
        self.dtype: np.dtype[Any] = np.dtype(kind)
        if len(data.shape) != len(shape) or any(w not in (None, n) for n, w in zip(data.shape, shape, strict=True)):
            raise ValueError(f"{name} is no array of {shape}")
        self.width = self.dtype.itemsize * int(np.prod(data.shape[1:]))
        count = -(-len(self) // self.rows) if self.rows > 0 else -1
        if data.dtype.kind not in "fiS" or self.rows * self.width > 2**28 or sums.shape != (count,):
            raise ValueError(f"{name} is not in blocks")
        size = len(self) * self.width
        if size and not 0 < self.offset <= os.fstat(file).st_size - size:
            raise ValueError(f"{name} is not whole")
        self.sums: Array = sums[...]

    def __len__(self) -> int:
        return int(self.shape[0])

    def block(self, number: int, buffer: Array | None = None) -> Array:
        """The rows of a block, in `buffer` (bytes) where one is given.

        Raises:
            ValueError: they are not those that were written. OSError: they cannot be read.
        """
        first = number * self.rows
        many = min(self.rows, len(self) - first)
        memory = np.empty(many * self.width, np.uint8) if buffer is None else buffer[: many * self.width]
        done = 0
        while done < len(memory):
            read = os.preadv(self.file, [memory[done:].data], self.offset + first * self.width + done)
            if not read:
                raise ValueError(f"{self.name} is not whole")
            done += read
        if zlib.crc32(memory.data) != self.sums[number]:
            raise ValueError(f"its {self.name} are not those that were written")
        return memory.view(self.dtype).reshape(many, *self.shape[1:])

    def __iter__(self) -> Iterator[tuple[int, Array]]:
        """Each block: the position of its first row, and its rows, which the next block overwrites."""
        buffer = np.empty(min(self.rows, max(1, len(self))) * self.width, np.uint8)
        for number in range(len(self.sums)):
            yield number * self.rows, self.block(number, buffer)

    def span(self, start: int, stop: int) -> Array:
        """(stop - start, ...) rows one after another."""
        if start >= stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        first, last = start // self.rows, (stop - 1) // self.rows
        rows = np.concatenate([self.block(number) for number in range(first, last + 1)])
        return rows[start - first * self.rows : stop - first * self.rows]

    def __getitem__(self, of: slice) -> Array:
        """Rows of a slice without steps."""
        start, stop, _ = of.indices(len(self))
        return self.span(start, stop)

    def take(self, at: Array) -> Array:
        """(m, ...) rows at positions (m,)."""
        out = np.empty((len(at), *self.shape[1:]), self.dtype)
        which = np.asarray(at, np.int64) // self.rows
        for number in sorted(set(which.tolist())):  # np.unique imports masked arrays
            mine = which == number
            out[mine] = self.block(number)[at[mine] - number * self.rows]
        return out


__all__ = ["ROWS", "Blocks", "sums_of"]
