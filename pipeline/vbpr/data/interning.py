"""Ids as they come, a block of a file at a time, as positions among the distinct ones.

interner = Interner(); interner.add(block); places, names = interner.result()     # (n,) int32, -1 for null; StringArray
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..base.arrays import Array, Strings

LEAST = 2**19  # rows that wait at least: each settling hashes the ids so far again


class Interner:
    """A table of distinct texts that grows. Blocks wait until they hold more rows than twice the texts so far, so that
    a row is hashed twice at most on the average, and what waits is no more than what there is."""

    def __init__(self) -> None:
        self.names = pa.array([], pa.string())
        self.waiting: list[tuple[pa.Array, Array | None]] = []
        self.codes: list[Array] = []
        self.rows = 0

    def add(self, column: pa.ChunkedArray) -> None:
        """Texts or categories of texts, null where there is none."""
        for chunk in column.chunks:
            if pa.types.is_dictionary(chunk.type):
                self.waiting.append((pc.cast(chunk.dictionary, pa.string()), coded(chunk.indices)))
                self.rows += len(chunk.dictionary)
            else:
                self.waiting.append((chunk, None))
                self.rows += len(chunk)
        if self.rows > max(LEAST, 2 * len(self.names)):
            self.settle()

    def settle(self) -> None:
        """Find what waits among the names, and add what is new to them."""
        parts = [self.names, *(texts for texts, _ in self.waiting)]
        found = pa.chunked_array(parts, pa.string()).dictionary_encode()  # one dictionary, and no chunk of no texts
        chunks = iter(found.chunks)
        encoded = [coded(next(chunks).indices) if len(part) else np.empty(0, np.int32) for part in parts]
        if found.num_chunks:
            self.names = found.chunk(0).dictionary
        for codes, (_, indices) in zip(encoded[1:], self.waiting, strict=True):
            self.codes.append(codes if indices is None else np.append(codes, np.int32(-1))[indices])
        self.waiting, self.rows = [], 0

    def result(self) -> tuple[Array, pa.StringArray]:
        """(n,) int32 positions of all that was added, -1 for null, and the distinct texts."""
        self.settle()
        codes, self.codes = self.codes, []
        return np.concatenate([np.empty(0, np.int32), *codes]), self.names


def coded(indices: pa.Array) -> Array:
    """Positions, -1 for null."""
    return np.asarray(pc.fill_null(indices.cast(pa.int32()), -1))


def strings(texts: pa.Array) -> Strings:
    """Texts of Arrow's as an array of NumPy's, a stretch at a time: as Python's objects they take twice the room."""
    width = max(pc.max(pc.utf8_length(texts)).as_py() or 1, 1)
    made = np.empty(len(texts), f"<U{width}")
    for start in range(0, len(texts), STRETCH):
        made[start : start + STRETCH] = texts[start : start + STRETCH].to_pylist()
    return made


STRETCH = 2**16

__all__ = ["Interner", "strings"]
