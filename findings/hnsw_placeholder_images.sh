#!/bin/sh
# Items that share one placeholder picture make an HNSW graph lose OTHER items, at any search effort.
#
# Guess:   identical vectors crowd their own neighbourhood at most; an item with a vector of its own is found as before,
#          and what is missed comes back with a larger efSearch.
# Truth:   with a fifth of the catalogue on one vector, inserted first, 10 to 20 of 100 items with pictures of their own
#          are not found even by their own vector; sixteen times the effort brings hardly any back: links of the copies
#          lead to copies, so what is behind them cannot be reached. True of FAISS and of Voyager (hnswlib).
# Matters: "image coming soon" is the commonest picture of a shop. Recall measured on random vectors says 1.0.
# Remedy:  index each distinct vector once and map copies to it.
# Source:  https://github.com/qdrant/qdrant/pull/10239 (the effect, told and mended in Qdrant in 2026)
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check faiss-cpu==1.15.1 voyager==2.2.3 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "faiss-cpu voyager numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import faiss
import numpy as np
import voyager

N, DIM = 10000, 32
faiss.omp_set_num_threads(1)


def found(share, seed):
    """Of 1000 items of their own vector, the share found first by that vector: each library, little and much effort."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, DIM)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    copies = np.arange(int(share * N))
    x[copies] = rng.normal(size=DIM) / DIM**0.5
    own = np.arange(N)[-1000:]
    exact = faiss.IndexFlatL2(DIM)
    exact.add(x)
    assert (exact.search(x[own], 1)[1][:, 0] == own).all()
    graph = faiss.IndexHNSWFlat(DIM, 32)
    graph.add(x)
    other = voyager.Index(voyager.Space.Euclidean, DIM, M=16, ef_construction=200, random_seed=seed)
    other.add_items(x, num_threads=1)
    out = []
    for effort in (16, 256):
        graph.hnsw.efSearch = effort
        out.append((graph.search(x[own], 1)[1][:, 0] == own).mean())
        out.append((other.query(x[own], 1, query_ef=effort)[0][:, 0] == own).mean())
    return out


got = {}
for share in (0, 0.2):
    got[share] = np.mean([found(share, seed) for seed in (1, 2)], 0)
    print("{:4.0%} of items on one vector; other items found by their own vector: "
          "efSearch 16: faiss {:.3f}, voyager {:.3f}; 256: faiss {:.3f}, voyager {:.3f}".format(share, *got[share]))
still((got[0] > 0.99).all(), "without copies every item is found")
still((got[0.2] < 0.95).all(), "with a fifth of copies, other items are lost by both libraries")
still((got[0.2][2:] - got[0.2][:2] < 0.04).all(), "sixteen times the effort does not bring them back")
PYTHON
