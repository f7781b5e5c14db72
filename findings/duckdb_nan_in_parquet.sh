#!/bin/sh
# The same rows answer a DuckDB filter differently from a Parquet file than from memory, where there are NaNs.
#
# Guess:   WHERE gives the same rows whether the table is read from Parquet or held in memory.
# Truth:   DuckDB orders NaN above every number, so `score > 2` is true of NaN. Parquet's min and max leave NaN out,
#          as its standard says, and DuckDB prunes and simplifies filters by them. From a file by pyarrow, `score > 2`
#          loses the NaN rows and `score < 0.5` GAINS them. From a file that DuckDB wrote itself both are right.
# Matters: scores, prices and embeddings' norms do hold NaN (a cold item, 0/0). Counts and training sets depend on
#          which library wrote the file, and on its row groups.
# Remedy:  filter NaN out with isnan() by name, or write NULL.
# Source:  https://github.com/duckdb/duckdb/issues/25521
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "duckdb pyarrow numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

n = np.arange(1000)
rows = pa.table({"item": n, "score": np.where(n % 10 == 0, np.nan, n / 999)})
pq.write_table(rows, "pyarrow.parquet", row_group_size=100)
duckdb.sql("copy rows to 'duckdb.parquet'")


def count(table, where):
    return duckdb.sql(f"select count(*) from {table} where {where}").fetchall()[0][0]


seen = {}
for where in ("score > 2", "score < 0.5", "score >= 0.5", "not (score <= 2)"):
    seen[where] = [count(t, where) for t in ("rows", "'duckdb.parquet'", "'pyarrow.parquet'")]
    print(f"{where:18} memory {seen[where][0]:4}   file by DuckDB {seen[where][1]:4}   file by pyarrow {seen[where][2]:4}")
still(seen["score > 2"] == [100, 100, 0], "`score > 2` loses all 100 NaN rows from the file by pyarrow")
still(seen["score < 0.5"] == [450, 450, 500], "`score < 0.5` gains 50 NaN rows from the file by pyarrow")
PYTHON
