#!/bin/sh
# Polars sums a Float16 column to 5000 in select() and to 2048 in group_by(), the same rows.
#
# Guess:   sum() is one function: a single group and the whole column give the same.
# Truth:   the column's sum is accumulated wider and rounded once; a group's is accumulated in float16, where 2048 + 1 is
#          2048. mean() of the group is right, so sum / count is not the mean.
# Matters: Float16 is a new type in Polars and the natural one for cached features and weights; sums per user or brand
#          stick at 2048 times the size of a term, without a warning.
# Source:  https://github.com/pola-rs/polars/pull/28361 (grouped means of Float16, mended in July 2026); sums by measurement
# Remedy:  cast to Float32 before a grouped sum.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "polars numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import numpy as np
import polars as pl

frame = pl.DataFrame({"brand": np.zeros(5000, np.int64), "weight": np.ones(5000, np.float16)})
whole = frame.select(total=pl.col("weight").sum(), mean=pl.col("weight").mean())
group = frame.group_by("brand").agg(total=pl.col("weight").sum(), mean=pl.col("weight").mean(), rows=pl.len())
print(frame.schema, whole, group, sep="\n")
still(frame.schema["weight"] == pl.Float16, "the column is a Float16")
still(abs(whole["total"][0] - 5000) <= 4, "select: the sum of 5000 ones is 5000")
still(group["total"][0] == 2048, "group_by: it is 2048")
still(group["mean"][0] == 1.0, "the mean of the group is 1.0 all the same")
PYTHON
