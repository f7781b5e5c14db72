"""NumPy's files: a matrix in .npy, with ids beside it, or arrays in .npz.

Nothing in them is unpickled.
"""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...base.arrays import Array
from ...base.errors import VbprError, first_line
from .ids import cleaned, from_array, ids_of_rows
from .incoming import Incoming, Reading, Told, check_numbers, matrix_shape, pick

DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, SyntaxError, TypeError)  # what NumPy raises of its files


def is_array(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (".npy", ".npz")


def open_array(path: Path, told: Told) -> Incoming:
    """A matrix, a row an item.

    Raises:
        VbprError: it is damaged, holds objects, or it is open whose the rows are.
    """
    if path.suffix.lower() == ".npz":
        return open_npz(path, told)
    rows = NpyRows(path)
    ids, ids_from = ids_of_rows(told, rows.n, path)
    return Incoming(ids, rows.dim, rows.read, ids_from)


class NpyRows:
    """(n, D) the rows of a .npy file, read as they are asked for."""

    def __init__(self, path: Path) -> None:
        try:
            mapped: Any = np.load(path, mmap_mode="r", allow_pickle=False)  # for its header; no page of it is read
        except DAMAGED as error:
            raise VbprError(unreadable(path, error)) from error
        if not isinstance(mapped, np.memmap):
            raise VbprError(f"{path} is no array of NumPy's; give one that np.save wrote")
        check_numbers(mapped.dtype, str(path))
        self.n, self.dim = matrix_shape(mapped.shape, str(path))
        self.dtype, self.offset = mapped.dtype, int(mapped.offset)
        self.by_column = not mapped.flags.c_contiguous
        self.file, self.shape = Reading(path), mapped.shape
        del mapped

    def read(self, a: int, b: int) -> Array:
        row = self.dim * self.dtype.itemsize
        if not self.by_column:
            return self.file.array(self.offset + a * row, self.dtype, (b - a, self.dim))
        out = np.empty((self.dim, b - a), self.dtype)  # of a matrix that was saved transposed
        for column in range(self.dim):
            at = self.offset + (column * self.n + a) * self.dtype.itemsize
            out[column] = self.file.array(at, self.dtype, (b - a,))
        return out.reshape(*self.shape[:0:-1], b - a).T.reshape(b - a, self.dim)


def unreadable(path: Path, error: Exception) -> str:
    if "pickle" in str(error).lower() or "object" in str(error).lower():
        return (
            f"{path} holds Python objects, which can run programs and are not read; save plain numbers: "
            "np.save(path, np.stack(list_of_vectors).astype('float32'))"
        )
    return f"{path} is cut short or no array of NumPy's ({first_line(error)}); fetch or save it again"


def open_npz(path: Path, told: Told) -> Incoming:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            heads = {name: head_of(archive, name) for name in names}
    except DAMAGED as error:
        raise VbprError(unreadable(path, error)) from error
    matrices = [name for name, (shape, _, dtype) in heads.items() if len(shape) > 1 and dtype.kind in "biuf"]
    column = pick(told.column, matrices, "matrix of numbers", path, "--column")
    shape, by_column, _ = heads[column]
    if by_column:
        raise VbprError(f"{path}: {column} is saved by columns; save np.ascontiguousarray of it")
    n, dim = matrix_shape(shape, f"{path}, {column}")
    lists = [name for name, (shape, _, dtype) in heads.items() if shape == (n,) and dtype.kind in "SUiu"]
    if told.ids or not (told.id_column or len(lists) == 1):
        ids, ids_from = ids_of_rows(told, n, path)
    else:
        name = pick(told.id_column, lists, f"array of {n:,} ids", path, "--id-column")
        with np.load(path, allow_pickle=False) as archive:
            ids, ids_from = cleaned(
                from_array(archive[name], f"{path}, {name}"), f"{path}, array {name}", f"array {name}"
            )
    stretches = Stretches(lambda start: npz_blocks(path, column, start, n, dim), dim)
    return Incoming(ids, dim, stretches.read, ids_from, column)


def head_of(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is kept by columns, and type of an array in an archive."""
    with archive.open(f"{name}.npy") as handle:
        return header(handle)


def header(handle: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(handle)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(handle)
    return shape, by_column and len(shape) > 1, dtype


def npz_blocks(path: Path, name: str, start: int, n: int, dim: int) -> Iterator[Array]:
    """The rows of a matrix in an archive from `start` on, some at a time: what is packed is unpacked in order."""
    step = max(1, 2**22 // dim)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as handle:
            _, _, dtype = header(handle)
            row = dim * dtype.itemsize
            left = start * row
            while left:  # what has been read before
                left -= len(handle.read(min(left, 2**20))) or left
            for a in range(start, n, step):
                wanted = min(step, n - a) * row
                data = handle.read(wanted)
                if len(data) < wanted:
                    raise VbprError(f"{path} ends too early: {name} is cut short; fetch it again")
                yield np.frombuffer(data, dtype).reshape(-1, dim)
    except DAMAGED as error:
        raise VbprError(unreadable(path, error)) from error


class Stretches:
    """Rows a stretch at a time from what can be read in order only; going back starts again.

    `blocks(start)` yields arrays of rows (m, D) from row `start` on.
    """

    def __init__(self, blocks: Any, dim: int) -> None:
        self.blocks, self.dim = blocks, dim
        self.at, self.left = -1, np.empty((0, dim))
        self.iterator: Iterator[Array] = iter(())

    def read(self, a: int, b: int) -> Array:
        if a != self.at:
            with contextlib.suppress(AttributeError):
                self.iterator.close()  # type: ignore[attr-defined]
            self.at, self.left, self.iterator = a, np.empty((0, self.dim)), self.blocks(a)
        parts, have = [self.left] if len(self.left) else [], len(self.left)
        while have < b - a:
            block = next(self.iterator)
            parts.append(block)
            have += len(block)
        rows: Array = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self.at, self.left = b, rows[b - a :]
        return rows[: b - a]


__all__ = ["DAMAGED", "NpyRows", "Stretches", "is_array", "open_array"]
