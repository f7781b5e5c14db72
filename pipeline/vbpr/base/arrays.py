"""Arrays of ids and numbers, and where ids stand in them."""

import unicodedata
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Strings = np.ndarray[tuple[int], np.dtype[np.str_]]


def composed(text: str) -> str:
    """An id with its letters and their marks in one (Unicode's NFC): a Mac's file names have them apart, and nobody can
    see the difference."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def places(ids: Strings, wanted: Strings) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(n,) int64: where each id that is wanted stands among distinct ids, -1 where it does not."""
    order = np.argsort(ids, kind="stable")
    nearest = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(ids[nearest] == wanted, nearest, -1)


class Digest(Protocol):
    """Any digest of hashlib's that is being computed."""

    def update(self, data: bytes, /) -> None: ...


def update_with_ids(digest: Digest, ids: Strings) -> None:
    """Add ids, in their order, to a digest; every file and checkpoint that names its ids by a digest does it so."""
    digest.update("\0".join(ids.tolist()).encode())


__all__ = ["Array", "Strings", "composed", "places", "update_with_ids"]
