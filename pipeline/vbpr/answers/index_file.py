"""The index file: FAISS's bytes, the ids, what made it, and a digest of all that."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array, Strings, update_with_ids
from ..base.errors import VbprError
from ..base.hdf5 import damaged, open_h5, read_numbers, read_strings, read_text


def read_index(saved: Path | str, source: str = "FILE") -> tuple[Array, Strings, dict[str, Any]]:
    """FAISS's bytes, the ids and what is told of an index file.

    Args:
        source: what it was made from, where that is known.

    Raises:
        VbprError: it is none, or does not agree with its digest.
    """
    again = f"delete it or run vbpr index {source} again"
    try:
        with open_h5(saved, "index") as handle:
            about = json.loads(read_text(handle, "about"))
            data, ids = read_numbers(handle, "faiss", (None,)), read_strings(handle, "item_ids")
            if data.dtype != np.uint8:
                raise ValueError("faiss is no array of bytes")
            if read_text(handle, "digest") != digest_of(data, ids, about):
                raise VbprError(f"{saved} is damaged or was altered; {again}")
    except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise VbprError(damaged(Path(saved), error, again)) from error
    return data, ids, about


def index_path(path: Path | str) -> Path:
    """Where the index of a model or feature file lies: artifacts/inc.model.h5 -> artifacts/inc.model.index."""
    return Path(path).with_suffix(".index")


def digest_of(data: Array, ids: Strings, about: dict[str, Any]) -> str:
    total = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    update_with_ids(total, ids)
    total.update(data.data)
    return total.hexdigest()


__all__ = ["digest_of", "index_path", "read_index"]
