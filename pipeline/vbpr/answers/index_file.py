"""The index file: FAISS's bytes, the ids, what made it, which items share a vector, and a digest of all that.

FAISS itself loads most damaged indexes without a word, so its bytes are not handed to it before the digest is right.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array, Strings, update_with_ids
from ..base.errors import VbprError
from ..base.files import replacing_h5
from ..base.hdf5 import damaged, open_h5, read_numbers, read_strings, read_text, write_strings, write_text


def write_index(
    path: Path | str, data: Array, ids: Strings, about: dict[str, Any], row_of: Array | None = None
) -> None:
    """Write an index file, atomically.

    Args:
        data: FAISS's bytes. ids: (n,). about: JSON values.
        row_of: (n,) int64, which of FAISS's vectors each item has; None where each has its own, as in files of old.
    """
    with replacing_h5(path, "index", data.nbytes + ids.nbytes + (0 if row_of is None else row_of.nbytes)) as handle:
        write_text(handle, "about", json.dumps(about))
        write_text(handle, "digest", digest_of(data, ids, about, row_of))
        handle.create_dataset("faiss", data=data)
        write_strings(handle, "item_ids", ids)
        if row_of is not None:
            handle.create_dataset("row_of", data=row_of.astype("<i8"))


def read_index(saved: Path | str, source: str = "FILE") -> tuple[Array, Strings, dict[str, Any], Array | None]:
    """What `write_index` wrote.

    Args:
        source: what the index was made from, where that is known, for the message.

    Raises:
        VbprError: it is no index, or does not agree with its digest.
    """
    again = f"delete it or run vbpr index {source} again"
    try:
        with open_h5(saved, "index") as handle:
            about = json.loads(read_text(handle, "about"))
            data, ids = read_numbers(handle, "faiss", (None,)), read_strings(handle, "item_ids")
            row_of = read_numbers(handle, "row_of", (len(ids),)).astype(np.int64) if "row_of" in handle else None
            if data.dtype != np.uint8:
                raise ValueError("faiss is no array of bytes")
            if read_text(handle, "digest") != digest_of(data, ids, about, row_of):
                raise VbprError(f"{saved} is damaged or was altered; {again}")
    except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise VbprError(damaged(Path(saved), error, again)) from error
    return data, ids, about, row_of


def read_about(saved: Path | str, source: str = "FILE") -> dict[str, Any]:
    """What an index file tells of itself, unchecked: it is not read whole; see `read_index`."""
    with open_h5(saved, "index") as handle:
        try:
            about = json.loads(read_text(handle, "about"))
            return {"source": str(about["source"]), "metric": str(about["metric"])}
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            raise VbprError(damaged(Path(saved), error, f"delete it or run vbpr index {source} again")) from error


def index_path(path: Path | str) -> Path:
    """Where the index of a model or feature file lies: artifacts/inc.model.h5 -> artifacts/inc.model.index."""
    return Path(path).with_suffix(".index")


def digest_of(data: Array, ids: Strings, about: dict[str, Any], row_of: Array | None = None) -> str:
    """Of all that an index file holds (BLAKE2b, 32 hexadecimal digits)."""
    total = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    update_with_ids(total, ids)
    total.update(data.data)
    if row_of is not None:
        total.update(np.ascontiguousarray(row_of, "<i8").data)
    return total.hexdigest()


__all__ = ["digest_of", "index_path", "read_about", "read_index", "write_index"]
