"""HDF5 files of others: a data set of vectors with one of ids, or a data set an item, called by its id."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from ...base.arrays import Array
from ...base.errors import VbprError, first_line
from ...base.hdf5 import check_closed, kind_in, opened
from .ids import cleaned, ids_of_rows
from .incoming import Incoming, Told, check_numbers, matrix_shape, pick

UNFIT = (OSError, KeyError, RuntimeError, TypeError, ValueError)  # what h5py raises of damaged files


def is_hdf5(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (".h5", ".hdf5", ".hdf", ".he5")


def open_hdf5(path: Path, told: Told) -> Incoming:
    """
    Raises:
        VbprError: it is damaged, points outside itself, or it is open which data set it is or whose its rows are.
    """
    handle = opened(path, "give an HDF5 file with a data set of vectors")
    kind = kind_in(handle, path)
    if kind == "features":
        raise VbprError(f"{path} is a feature file already; give it to vbpr train --features")
    if kind:
        raise VbprError(f"{path} is vbpr's own ({kind}), and holds no features made elsewhere")
    check_closed(handle, path)
    sets: dict[str, Any] = {}
    handle.visititems(lambda name, value: sets.update({name: value}) if isinstance(value, h5py.Dataset) else None)
    matrices = [name for name, data in sets.items() if len(data.shape or ()) > 1 and data.dtype.kind in "biuf"]
    rows = {data.size for data in sets.values() if data.dtype.kind in "biuf"}
    if not told.column and not told.ids and len(rows) == 1 and all(len(d.shape or ()) == 1 for d in sets.values()):
        return open_named(path, sets, int(rows.pop()))
    column = pick(told.column.strip("/"), matrices, "matrix of numbers", path, "--column")
    data = sets[column]
    check_numbers(data.dtype, f"{path}, {column}")
    n, dim = matrix_shape(data.shape, f"{path}, {column}")
    lists = [name for name, other in sets.items() if other.shape == (n,) and other.dtype.kind in "SOiu"]
    if told.ids or not (told.id_column or len(lists) == 1):
        ids, ids_from = ids_of_rows(told, n, path)
    else:
        name = pick(told.id_column.strip("/"), lists, f"data set of {n:,} ids", path, "--id-column")
        ids, ids_from = cleaned(texts_of(sets[name], path), f"{path}, data set {name}", f"data set {name}")

    def read(a: int, b: int) -> Array:
        try:
            return np.asarray(data[a:b]).reshape(b - a, dim)
        except UNFIT as error:
            raise VbprError(f"{path}: {column} cannot be read ({first_line(error)}); fetch or make it again") from error

    return Incoming(ids, dim, read, ids_from, column)


def texts_of(data: Any, path: Path) -> pa.ChunkedArray:
    """A data set of ids, of whole numbers or texts.

    Raises:
        VbprError: they are objects of another kind, or cannot be read.
    """
    try:
        if h5py.check_string_dtype(data.dtype) is not None:
            return pa.chunked_array([pa.array(data.asstr()[:].tolist(), pa.string())])
        if data.dtype.kind in "iu":
            return pa.chunked_array([pa.array(data[:])])
    except UNFIT as error:
        raise VbprError(f"{path}: {data.name} cannot be read ({first_line(error)}); make it again") from error
    raise VbprError(f"{path}: {data.name} holds {data.dtype}; ids are texts or whole numbers")


def open_named(path: Path, sets: dict[str, Any], dim: int) -> Incoming:
    """A data set an item; of a name with groups the last part is the id."""
    names = sorted(sets)
    last = [name.rsplit("/", 1)[-1] for name in names]
    ids, _ = cleaned(pa.chunked_array([pa.array(last, pa.string())]), f"the names of the data sets of {path}")

    def read(a: int, b: int) -> Array:
        try:
            return np.stack([sets[name][:] for name in names[a:b]])
        except UNFIT as error:
            raise VbprError(f"{path} cannot be read ({first_line(error)}); fetch or make it again") from error

    return Incoming(ids, dim, read, "the names of the data sets")


__all__ = ["is_hdf5", "open_hdf5"]
