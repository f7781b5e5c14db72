#!/bin/sh
# Chroma's get(ids=[...]) returns vectors in an order of its own, leaves out unknown ids, and add() keeps old vectors.
#
# Guess:   get(ids, include=["embeddings"]) answers row by row; an unknown id is an error or a gap; add() of an id that
#          exists replaces it or refuses (upsert() is there to replace).
# Truth:   rows come in order of insertion; unknown ids are left out; add() of an existing id does nothing, in silence.
# Matters: features[i] then belongs to another item than ids[i], all shapes right: a feature matrix shuffled against
#          its ids, or shifted from the first unknown id on. Features extracted anew and added again stay the old ones.
# Remedy:  reorder by the ids that come back; upsert().
# Source:  https://github.com/chroma-core/chroma/issues/1325 and /issues/907 (order); the rest by measurement
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check chromadb==1.5.9 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "chromadb numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import chromadb
import numpy as np
from chromadb.config import Settings

rng = np.random.default_rng(0)
vectors = rng.normal(size=(100, 8)).astype(np.float32)
names = [f"item{i}" for i in range(100)]
store = chromadb.EphemeralClient(Settings(anonymized_telemetry=False)).create_collection("items", embedding_function=None)
store.add(ids=names, embeddings=vectors)

asked = ["item50", "item2", "item97", "item9"]
answer = store.get(ids=asked, include=["embeddings"])
right = [np.allclose(v, vectors[int(name[4:])]) for name, v in zip(asked, answer["embeddings"])]
print("asked for", asked, "came", answer["ids"], "row i is of asked[i]:", right)
still(answer["ids"] == sorted(asked, key=names.index), "rows come in order of insertion")
still(not all(right), "so rows and the ids asked for do not belong together")

answer = store.get(ids=["item5", "gone", "item9"], include=["embeddings"])
print("asked for item5, gone, item9; came", answer["ids"])
still(answer["ids"] == ["item5", "item9"], "an unknown id is left out in silence")

store.add(ids=["item5"], embeddings=vectors[:1] + 10)
kept = store.get(ids=["item5"], include=["embeddings"])["embeddings"][0]
still(np.allclose(kept, vectors[5]), "add() of an existing id keeps the old vector, in silence")
PYTHON
