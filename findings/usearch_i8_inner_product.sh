#!/bin/sh
# USearch with dtype="i8" forgets how long vectors are: metric "ip" and "l2sq" become cosine.
#
# Guess:   i8 stores what was given at 8 bits (one scale for the index, or the caller's): the metric keeps its meaning.
# Truth:   every float vector is scaled by its OWN length to 127 on its way in, and so is the query. By "ip" and by
#          "l2sq" the answer of an exact search is the answer of the cosine; f32, f16 and bf16 keep the metric.
# Matters: inner products of factors are the score of BPR and ALS, where length carries popularity. To save memory by
#          dtype="i8" answers with another ranking, a fifth of it right, that looks like plain quantisation loss.
# Remedy:  scale to int8 oneself by one factor and give int8 vectors, or keep f16/bf16.
# Source:  by measurement; int8 vectors as input (then it is the inner product of the integers):
#          https://github.com/huggingface/sentence-transformers/issues/3188
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check usearch==2.26.6 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "usearch numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import numpy as np
from usearch.index import Index

rng = np.random.default_rng(0)
x = (rng.normal(size=(2000, 32)) * rng.lognormal(0, 0.5, (2000, 1))).astype(np.float32)
queries = rng.normal(size=(200, 32)).astype(np.float32)
inner = queries @ x.T
best = {
    "ip": np.argsort(-inner, axis=1)[:, :10],
    "cos": np.argsort(-inner / np.linalg.norm(x, axis=1), axis=1)[:, :10],
    "l2sq": np.argsort((x**2).sum(1) - 2 * inner, axis=1)[:, :10],
}


def share(found, wanted):
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, wanted)]))


got = {}
for dtype in ("f32", "f16", "i8"):
    for metric in ("ip", "l2sq", "cos"):
        index = Index(ndim=32, metric=metric, dtype=dtype)
        index.add(np.arange(len(x)), x)
        found = index.search(queries, 10, exact=True).keys
        got[dtype, metric] = {name: share(found, wanted) for name, wanted in best.items()}
        shares = {name: round(value, 2) for name, value in got[dtype, metric].items()}
        print(dtype, f"metric={metric:5}", "exact search, of the true ten by", shares)
kept = [np.linalg.norm(index.get(i).astype(float)) for i in range(50)]
print("lengths given:", np.linalg.norm(x[:4], axis=1).round(2), " lengths kept by i8:", np.round(kept[:4], 1))
still(all(got[d, m][m] > 0.97 for d in ("f32", "f16") for m in best), "f32 and f16 answer by the metric asked for")
for metric in ("ip", "l2sq"):
    still(got["i8", metric]["cos"] > 0.9 > 0.5 > got["i8", metric][metric], f"i8 answers {metric} by the cosine")
still(np.ptp(kept) < 3, "i8 keeps every vector at the length 127")
PYTHON
