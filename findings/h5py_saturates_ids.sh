#!/bin/sh
# h5py does not wrap integers as NumPy does, nor refuse: it moves them to the nearest end. The id -1 becomes item 0.
#
# Guess:   numbers that do not fit the dataset's type raise, or wrap as in NumPy's astype (-1 becomes 4294967295,
#          which any check of bounds catches).
# Truth:   HDF5 clamps. -1, the usual "no neighbour" of FAISS and of lookups, is stored in uint32 as 0: a real item.
#          All ids past 2^31 become the ONE id 2147483647 in int32. On reading too: dataset.astype("u4")[:].
# Matters: neighbour lists and row maps of a feature store point at item 0, and many items share one id; no warning, and
#          no check of bounds can tell.
# Remedy:  check the range before writing; store positions as signed 64-bit.
# Source:  https://support.hdfgroup.org/HDF5/doc/Supplements/dtype_conversion/Overflow.html (HDF5 does it by design)
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check h5py==3.16.0 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "h5py numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import warnings

import h5py
import numpy as np

warnings.simplefilter("error")
neighbours = np.array([[17, 4, -1], [8, -1, -1]])  # -1: fewer than three were found
ids = np.array([2**40 + 1, 2**40 + 2, 2**31, 5])
with h5py.File("a.h5", "w") as file:
    made = file.create_dataset("made", data=neighbours, dtype="u4")[:]
    file.create_dataset("filled", neighbours.shape, "u4")[...] = neighbours
    signed = file.create_dataset("signed", data=neighbours)
    narrow = file.create_dataset("ids", data=ids, dtype="i4")[:]
    print("given", neighbours.tolist(), "-> uint32 by h5py", made.tolist())
    print("NumPy's astype:", neighbours.astype(np.uint32).tolist())
    print("read as uint32:", signed.astype("u4")[:].tolist())
    print("ids", ids.tolist(), "-> int32 by h5py", narrow.tolist())
    still(made.tolist() == [[17, 4, 0], [8, 0, 0]], "-1 is stored as 0")
    still((file["filled"][:] == made).all() and (signed.astype("u4")[:] == made).all(), "by each way of writing and reading")
    still(narrow.tolist() == [2**31 - 1] * 3 + [5], "three ids become one")
    still(neighbours.astype(np.uint32).max() == 2**32 - 1, "NumPy would wrap")
PYTHON
