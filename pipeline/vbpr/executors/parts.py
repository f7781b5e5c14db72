"""A job's fixed ranges, and which of them are left to do: the cut depends on the catalogue, never on who works.

Ranges(10_000, 256).left(pending)   # the pending rows of each range that has any
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from ..base.arrays import Array


@dataclasses.dataclass(frozen=True)
class Ranges:
    """`total` rows in ranges of `size`, the last one shorter."""

    total: int
    size: int

    def __len__(self) -> int:
        return -(-self.total // self.size)

    def span(self, number: int) -> tuple[int, int]:
        """First row of a range, and the one after its last."""
        return number * self.size, min(self.total, (number + 1) * self.size)

    def left(self, rows: Array) -> Iterator[Array]:
        """Of these rows, ascending, those of each range that has any: nothing of a range that is done."""
        numbers = rows // self.size
        edges = np.flatnonzero(np.diff(numbers)) + 1
        yield from (part for part in np.split(rows, edges) if len(part))


__all__ = ["Ranges"]
