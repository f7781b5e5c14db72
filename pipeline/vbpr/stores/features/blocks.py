"""Blocks of 4,096 rows of a feature file: where each begins and ends, and the digest by which a changed bit is found.

digest = BLAKE2b(states, reasons, signatures, ids, features) of its rows
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ...base.arrays import Array, Strings, update_with_ids
from ...base.progress import Progress
from . import layout
from .layout import DIGEST, DONE, FAILED, PENDING

T = TypeVar("T")


def span_of(block: int, n: int) -> tuple[int, int]:
    """First row of a block of a file of n rows, and the one after its last."""
    return layout.BLOCK * block, min(n, layout.BLOCK * (block + 1))


def blocks_of(rows: Array) -> Array:
    """The blocks that these rows lie in, each once."""
    return np.unique(rows // layout.BLOCK)


def complete(state: Array) -> Array:
    """(blocks,) bool: which blocks have no pending row."""
    return np.logical_and.reduceat(state != PENDING, np.arange(0, len(state), layout.BLOCK))


def block_digest(ids: Strings, state: Array, reason: Array, signature: Array, features: Array) -> bytes:
    """The digest of a block, from what its rows hold.

    A row that is pending now was finished when the digest was written: its features say whether done or failed.
    """
    state = state.copy()
    again = np.flatnonzero(state == PENDING)
    state[again] = np.where(features[again].any(1), DONE, FAILED)
    total = hashlib.blake2b(state.tobytes(), digest_size=DIGEST)
    total.update(reason.tobytes())
    total.update(signature.tobytes())
    update_with_ids(total, ids)
    total.update(features.data)
    return total.digest()


def map_blocks(look: Callable[[int], T], blocks: Sequence[int]) -> list[T]:
    """What `look` returns for each block, several at a time: reading and hashing hold no lock of Python's."""
    results: list[T] = []
    with (
        ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0))), "digest") as pool,
        Progress("compare with digests", len(blocks), "blocks") as bar,
    ):
        for result in pool.map(look, blocks):
            results.append(result)
            bar.advance(1)
    return results


__all__ = ["block_digest", "blocks_of", "complete", "map_blocks", "span_of"]
