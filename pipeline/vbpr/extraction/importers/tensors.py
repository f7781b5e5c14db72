"""safetensors: a matrix with ids in its metadata or beside it, or a tensor an item, called by its id."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...base.arrays import Array
from ...base.errors import VbprError, first_line
from .ids import cleaned, ids_of_rows
from .incoming import Incoming, Reading, Told, matrix_shape, pick

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
TYPES |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
ID_KEYS = ("item_ids", "ids")  # in the metadata, as JSON


def is_tensors(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".safetensors"


def open_tensors(path: Path, told: Told) -> Incoming:
    """
    Raises:
        VbprError: it is damaged, or it is open which tensor it is or whose its rows are.
    """
    tensors, metadata, start = contents(path)
    file = Reading(path)
    matrices = [name for name, tensor in tensors.items() if len(tensor["shape"]) > 1 and tensor["shape"][0] > 1]
    widths = {int(np.prod(tensor["shape"])) for tensor in tensors.values()}
    if not told.column and not matrices and len(widths) == 1 and not told.ids:
        return open_named(path, file, tensors, start, widths.pop())
    column = pick(told.column, matrices, "matrix", path, "--column")
    n, dim = matrix_shape(tuple(tensors[column]["shape"]), f"{path}, {column}")
    kind = type_of(tensors[column], f"{path}, {column}")
    listed = next((key for key in ID_KEYS if key in metadata), None)
    if listed and not told.ids and not told.id_column:
        names = json.loads(metadata[listed])
        if not isinstance(names, list) or len(names) != n:
            raise VbprError(f"{path}: {listed} in its metadata are not the ids of {n:,} rows; give --ids FILE")
        where = f"{listed} in the metadata of {path}"
        ids, ids_from = cleaned(
            pa.chunked_array([pa.array([str(name) for name in names], pa.string())]), where, f"{listed} in the metadata"
        )
    else:
        ids, ids_from = ids_of_rows(told, n, path)
    first, row = start + tensors[column]["data_offsets"][0], dim * np.dtype(TYPES[kind]).itemsize

    def read(a: int, b: int) -> Array:
        return as_numbers(file.array(first + a * row, TYPES[kind], (b - a, dim)), kind)

    return Incoming(ids, dim, read, ids_from, column)


def open_named(path: Path, file: Reading, tensors: dict[str, Any], start: int, dim: int) -> Incoming:
    """A tensor an item."""
    order = sorted(tensors, key=lambda name: int(tensors[name]["data_offsets"][0]))
    kinds = [type_of(tensors[name], f"{path}, {name}") for name in order]
    ids, _ = cleaned(pa.chunked_array([pa.array(order, pa.string())]), f"the names of the tensors of {path}")

    def read(a: int, b: int) -> Array:
        out = np.empty((b - a, dim))
        for row in range(a, b):
            at = start + tensors[order[row]]["data_offsets"][0]
            out[row - a] = as_numbers(file.array(at, TYPES[kinds[row]], (dim,)), kinds[row])
        return out

    return Incoming(ids, dim, read, "the names of the tensors")


def contents(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """The tensors of a file by name, its metadata, and where its numbers begin. The library has looked at it first."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass
        file = Reading(path)
        size = int.from_bytes(file.bytes(0, 8), "little")
        head = json.loads(bytes(file.bytes(8, size)))
    except (SafetensorError, OSError, ValueError) as error:
        raise VbprError(f"{path} is cut short or no safetensors file ({first_line(error)}); fetch it again") from error
    metadata = head.pop("__metadata__", {})
    if not head:
        raise VbprError(f"{path} has no tensors; give a file with a matrix of features")
    return head, metadata, 8 + size


def type_of(tensor: dict[str, Any], what: str) -> str:
    """
    Raises:
        VbprError: its numbers are of a type that is not read.
    """
    kind = str(tensor["dtype"])
    if kind not in TYPES:
        raise VbprError(f"{what} holds {kind}, which is not read; save it as float32")
    return kind


def as_numbers(values: Array, kind: str) -> Array:
    """bfloat16, which NumPy lacks, are the upper halves of float32."""
    return (values.astype("<u4") << 16).view("<f4") if kind == "BF16" else values


__all__ = ["is_tensors", "open_tensors"]
