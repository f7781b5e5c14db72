"""The model file: reading and writing, with a digest by which a damaged one is found; and the same as safetensors.

HDF5: users (U, K), items (I, K) and bias (I,) float32, user_ids and item_ids, train, validation and test as groups of
indptr and indices, head as a group where there is one; checks, a group of the CRC-32 of blocks of each of these but the
head; `about`, as JSON, and the digest are attributes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ...base.arrays import Array
from ...base.errors import VbprError
from ...base.files import replacing, replacing_h5
from ...base.hdf5 import damaged, encoded, open_h5, read_numbers, read_strings, read_text, write_text
from ...data.parts import MATRICES, digest_of
from .about import check_about
from .blocks import ROWS, sums_of
from .head import HEAD_ARRAYS, LAYER_ARRAYS, Head

if TYPE_CHECKING:
    import scipy.sparse as sp

    from .factors import Factors

CHECKS = "checks"  # the group of CRC-32 of blocks; files of old have none
SAFE_TEXTS = 100_000_000 - 1000  # bytes of a safetensors header, less what names three arrays


def digest_of_model(factors: "Factors") -> str:
    """Of every id and number (BLAKE2b, 32 hexadecimal digits)."""
    total = digest_of(factors)
    heads = [] if factors.head is None else factors.head.arrays().values()
    for array in (factors.users, factors.items, factors.bias, *heads):
        total.update(np.ascontiguousarray(array, "<f4").data)
    return total.hexdigest()


def write_model(path: Path | str, factors: "Factors") -> None:
    """Write the model file, atomically."""
    about, head = json.dumps(factors.about), factors.head
    arrays: dict[str, Array] = {name: np.asarray(getattr(factors, name), "<f4") for name in ("users", "items", "bias")}
    arrays |= {name: encoded(getattr(factors, name)) for name in ("user_ids", "item_ids")}
    for name in MATRICES:
        part = getattr(factors, name)
        arrays |= {f"{name}/indptr": part.indptr.astype("<i8"), f"{name}/indices": part.indices.astype("<i4")}
    of_head = {} if head is None else {name: array.astype("<f4") for name, array in head.arrays().items()}
    size = sum(array.nbytes for array in (arrays | of_head).values()) + len(about)
    with replacing_h5(path, "model", size) as handle:
        write_text(handle, "about", about)
        write_text(handle, "digest", digest_of_model(factors))
        for name, array in arrays.items():
            handle.create_dataset(name, data=array)
        if head is not None:
            group = handle.create_group("head")
            for name, array in of_head.items():
                group.create_dataset(name, data=array)
            group.attrs["unit"] = head.unit
        checks = handle.create_group(CHECKS)
        for name, array in arrays.items():
            sums, rows = sums_of(array)
            checks.create_dataset(name, data=sums).attrs[ROWS] = rows


def read_model(path: Path | str, make: Callable[..., "Factors"]) -> "Factors":
    """Read a model file.

    Args:
        make: `Factors` itself.

    Raises:
        VbprError: not a model file, damaged, or foreign.
    """
    try:
        with open_h5(path, "model") as handle:
            user_ids, item_ids = read_strings(handle, "user_ids"), read_strings(handle, "item_ids")
            shape = (len(user_ids), len(item_ids))
            fields: dict[str, Any] = {"user_ids": user_ids, "item_ids": item_ids}
            for name in MATRICES:
                fields[name] = read_matrix(handle[name], shape, name)
            fields["head"] = read_head(handle["head"]) if "head" in handle else None
            shapes = {"users": (shape[0], None), "items": (shape[1], None), "bias": (shape[1],)}
            for name, of in shapes.items():
                fields[name] = read_numbers(handle, name, of).astype(np.float32, copy=False)
            fields["about"] = json.loads(read_text(handle, "about"))
            check_about(fields["about"])
            written = read_text(handle, "digest") if "digest" in handle.attrs else None  # none in files of old
    except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise VbprError(damaged(Path(path), error, "train again")) from error
    try:
        factors = make(**fields)
    except VbprError as error:
        raise VbprError(f"{path}: {error}") from error
    if written not in (None, digest_of_model(factors)):
        raise VbprError(f"{path} is damaged (its numbers are not those that were written); train again")
    return factors


def read_matrix(group: h5py.Group, shape: tuple[int, int], name: str) -> "sp.csr_matrix":
    """A (U, I) CSR matrix of ones.

    Raises:
        KeyError, ValueError: there is none of this shape.
    """
    import scipy.sparse as sp

    indptr = read_numbers(group, "indptr", (shape[0] + 1,))
    indices = read_numbers(group, "indices", (None,))
    if (
        indptr[0] != 0
        or indptr[-1] != len(indices)
        or (np.diff(indptr) < 0).any()
        or (len(indices) and not 0 <= indices.min() <= indices.max() < shape[1])
    ):
        raise ValueError(f"{name} is not a matrix of {shape}")
    return sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=shape)


def read_head(group: h5py.Group) -> Head:
    """How new items get their vectors.

    Raises:
        KeyError, ValueError, TypeError: it is not there, or not as `write_model` writes it.
    """
    arrays = {
        name: read_numbers(group, name, (None,) * (1 + (name in ("weight", *LAYER_ARRAYS)))).astype(np.float32)
        for name in HEAD_ARRAYS
        if name in group or name not in LAYER_ARRAYS
    }
    return Head(**arrays, unit=bool(group.attrs["unit"]))


def write_safetensors(path: Path | str, factors: "Factors") -> None:
    """Write users, items and bias as safetensors, with the ids and `about` as JSON in its metadata. Atomic.

    Raises:
        VbprError: more texts than the format holds.
    """
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(getattr(factors, name), np.float32) for name in ("users", "items", "bias")}
    texts = {name: json.dumps(getattr(factors, name).tolist()) for name in ("user_ids", "item_ids")}
    texts["about"] = json.dumps(factors.about)
    if len(json.dumps(texts)) > SAFE_TEXTS:
        raise VbprError(
            f"{path}: the ids of {len(factors.user_ids):,} users and {len(factors.item_ids):,} items are more text "
            "than safetensors holds (100 MB); use the model file as it is, or write_recommendations"
        )
    with replacing(path, "tensors") as temporary:
        save_file(arrays, temporary, texts)


__all__ = ["CHECKS", "digest_of_model", "read_head", "read_model", "write_model", "write_safetensors"]
