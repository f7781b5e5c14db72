#!/bin/sh
# Polars' mean_horizontal() of small integer columns is wrong, though it returns a Float64.
#
# Guess:   a mean of uint8 columns is a number between their minimum and maximum, the more so as the type is Float64.
# Truth:   the columns are added in their own type, wrap, and only then are divided: the mean of 200, 100 and 250 is
#          12.67. mean() down a column, list.mean() and arr.mean() of the same numbers are right.
# Matters: ratings of several aspects, pixel channels and quantised features are UInt8 columns; no error, no warning.
# Remedy:  cast first, or concat_list(...).list.mean().
# Source:  https://github.com/pola-rs/polars/issues/21515 (of sum_horizontal; the mean inherits it)
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


import polars as pl

pixels = {"red": [200, 10], "green": [100, 20], "blue": [250, 30]}
frame = pl.DataFrame(pixels, schema=dict.fromkeys(pixels, pl.UInt8))
out = frame.select(
    mean_horizontal=pl.mean_horizontal(pl.all()),
    list_mean=pl.concat_list(pl.all()).list.mean(),
    after_cast=pl.mean_horizontal(pl.all().cast(pl.Int64)),
)
print(frame)
print(out)
still(out.schema["mean_horizontal"] == pl.Float64, "the result is a Float64")
still(abs(out["mean_horizontal"][0] - 38 / 3) < 1e-6, "mean_horizontal(200, 100, 250) is 12.67")
still(abs(out["list_mean"][0] - 550 / 3) < 1e-6 and abs(out["after_cast"][0] - 550 / 3) < 1e-6, "the true mean is 183.33")
still(abs(frame["red"].mean() - 105) < 1e-6, "mean() down a column is right")
PYTHON
