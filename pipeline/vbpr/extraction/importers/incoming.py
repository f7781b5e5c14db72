"""Features made elsewhere as every importer hands them over: ids, and rows that are read a stretch at a time."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...base.arrays import Array, Strings
from ...base.errors import VbprError

NUMBERS = "numbers"  # in place of a file of ids: the number of a row is the id of its item


@dataclasses.dataclass(frozen=True)
class Told:
    """What the user says of a source.

    Attributes:
        ids: a file of ids, or `NUMBERS`; "" where the source has them.
        column: the vectors' column, tensor, data set or array; "" where there is but one.
        id_column: the same of the ids, in the source or in the file of ids.
        known: items of the data set that the features are for, by which one of two columns of ids is chosen.
    """

    ids: str = ""
    column: str = ""
    id_column: str = ""
    known: Strings | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Incoming:
    """A source that is open.

    Attributes:
        ids: (n,) strings, one a row; they may repeat. dim: D.
        read: (a, b) -> (b - a, D) numbers of rows a to b, NaN throughout where a row could not be read; stretches are
            asked for in order.
        ids_from: where the ids came from, in words.
        column: the vectors' own name in the source; "" where it has none.
        notes: what the user is to know of how it was read.
        faults: why a row could not be read, by its number; filled as rows are read.
    """

    ids: Strings
    dim: int
    read: Callable[[int, int], Array]
    ids_from: str
    column: str = ""
    notes: tuple[str, ...] = ()
    faults: Mapping[int, str] = dataclasses.field(default_factory=dict)


class Reading:
    """A file that is read by place and length: it is not mapped, for a disk that fails would kill the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.handle = path.open("rb", buffering=0)
        except OSError as error:
            raise VbprError(f"{path} cannot be read ({error.strerror}); mend its disk or permissions") from error

    @property
    def size(self) -> int:
        return os.fstat(self.handle.fileno()).st_size

    def bytes(self, offset: int, size: int) -> bytearray:
        """
        Raises:
            VbprError: the disk fails, or the file ends before.
        """
        out = bytearray(size)
        view, at = memoryview(out), offset
        while len(view):
            try:
                count = os.preadv(self.handle.fileno(), [view], at)
            except OSError as error:
                raise VbprError(f"{self.path} could not be read ({error.strerror}); mend the disk") from error
            if not count:
                raise VbprError(f"{self.path} ends too early: it is cut short; fetch it again")
            view, at = view[count:], at + count
        return out

    def array(self, offset: int, dtype: Any, shape: tuple[int, ...]) -> Array:
        """Numbers of this type and shape, in C order."""
        kind = np.dtype(dtype)
        return np.frombuffer(self.bytes(offset, int(np.prod(shape)) * kind.itemsize), kind).reshape(shape)


def matrix_shape(shape: tuple[int, ...], what: str) -> tuple[int, int]:
    """(n, D) of an array whose first axis are the items; what a network's pooling leaves behind counts as columns.

    Raises:
        VbprError: it has no rows, or rows of no numbers.
    """
    if len(shape) < 2 or 0 in shape:
        raise VbprError(f"{what} has the shape {shape}; features are a matrix, a row an item")
    return shape[0], int(np.prod(shape[1:]))


def check_numbers(dtype: Any, what: str) -> None:
    """
    Raises:
        VbprError: these are no real numbers.
    """
    if np.dtype(dtype).kind not in "biuf":
        raise VbprError(f"{what} holds {np.dtype(dtype)}, and features are real numbers; save them as float32")


def pick(asked: str, names: list[str], what: str, source: Path, option: str) -> str:
    """The name that was asked for, or the only one.

    Raises:
        VbprError: there is none, or there are several.
    """
    if asked:
        if asked not in names:
            raise VbprError(f"{option} {asked}: {source} has no such {what}; it has {', '.join(names[:8]) or 'none'}")
        return asked
    if len(names) != 1:
        raise VbprError(
            f"{source} has {'no' if not names else f'{len(names)}'} {what}"
            + (f" ({', '.join(names[:8])}); choose one with {option}" if names else "; give a file that has one")
        )
    return names[0]


__all__ = ["NUMBERS", "Incoming", "Reading", "Told", "check_numbers", "matrix_shape", "pick"]
