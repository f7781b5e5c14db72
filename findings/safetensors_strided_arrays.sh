#!/bin/sh
# safetensors' NumPy writer stores the wrong numbers for any array that is not C-contiguous.
#
# Guess:   save_file() writes what the array holds, or refuses (its torch writer refuses strided tensors).
# Truth:   0.8.0 writes the memory as it lies, under the logical shape. A transposed matrix, every second column, a
#          reversed view and scikit-learn's fitted PCA axes all come back with the right shape and dtype, wrong values.
#          No error, no warning. By the issue below 0.7.0 was right.
# Matters: projections of features and factor matrices are often transposed or sliced; a model that is saved and
#          loaded ranks by scrambled numbers, while the one still in memory evaluates well.
# Remedy:  np.ascontiguousarray(x) before saving.
# Source:  https://github.com/safetensors/safetensors/issues/825
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6 scikit-learn==1.9.1
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "safetensors numpy scikit-learn".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA

rng = np.random.default_rng(0)
x = rng.normal(size=(300, 64)).astype(np.float32)
axes = PCA(64, svd_solver="full").fit(x).components_.astype(np.float32)
cases = {
    "C-contiguous": (x, True),
    "transposed": (x.T, False),
    "every second column": (x[:, ::2], False),
    "rows in reverse": (x[::-1], False),
    "Fortran order": (np.asfortranarray(x), False),
    "PCA(...).fit(x).components_": (axes, False),
}
for name, (array, whole) in cases.items():
    save_file({"a": array}, "a.safetensors")
    back = load_file("a.safetensors")["a"]
    same = np.array_equal(back, array)
    print(f"{name:28} shape kept: {back.shape == array.shape}, values kept: {same}, C: {array.flags.c_contiguous}")
    still(same == whole, f"{name}: values {'kept' if whole else 'scrambled'}")
PYTHON
