#!/bin/sh
# scikit-learn's normalize() turns float16 rows into zeros, without a warning.
#
# Guess:   normalize(x) gives rows of length 1 whatever the float dtype; float16 costs digits, no more.
# Truth:   float16 is kept, and squares are summed in it: a row longer than 256 (65,504 is the largest float16) has
#          the norm inf and becomes a row of zeros. No error, no RuntimeWarning; rows below stay right.
# Matters: image features are stored as float16. Those of wide, unnormalised layers are that long: exactly the
#          strongest items lose their vector, and all of them become alike, with cosine 0 to everything.
# Remedy:  normalize(x.astype(np.float32)).
# Source:  a neighbour, fixed in 2021: https://github.com/scikit-learn/scikit-learn/issues/21559
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "scikit-learn numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import warnings

import numpy as np
from sklearn.preprocessing import Normalizer, normalize

rng = np.random.default_rng(0)
x = np.abs(rng.normal(size=(6, 2048)))  # six rows as after a ReLU
x *= np.array([1, 3, 5, 6, 10, 30])[:, None]
half = x.astype(np.float16)
lengths = np.linalg.norm(half.astype(np.float64), axis=1)
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    out = normalize(half)
    also = Normalizer().fit_transform(half)
after = np.linalg.norm(out.astype(np.float64), axis=1)
print("largest value of a row:   ", half.max(1))
print("length of a row:          ", lengths.round(1))
print("length after normalize(): ", after.round(3), out.dtype)
print("warnings:", [str(w.message) for w in heard])
still(np.isfinite(half).all() and not heard, "finite input, no warning")
still((abs(after[lengths < 250] - 1) < 0.01).all(), "rows shorter than 256 come out right")
still((out[lengths > 260] == 0).all() and (lengths > 260).sum() >= 3, "rows longer than 256 come out as zeros")
still(np.array_equal(out, also), "so too of Normalizer()")
PYTHON
