#!/bin/sh
# implicit's recommend() fills a short list up with the user's own items, and then with item 0 at the score 0.
#
# Guess:   filter_already_liked_items=True (the default) and filter_items= keep those items out; a short list is short,
#          or ends in -1.
# Truth:   the list always has N entries. Filtered items come back after the free ones with the score -3.4e38. Past the
#          number of items it goes on with item id 0 and score 0.0: again and again, and above the scores of -3.4e38.
# Matters: heavy users and narrow candidate lists get their own purchases recommended; a metric that counts ids counts
#          item 0 many times; and a sort by score lifts item 0 above real items of negative score.
# Source:  by measurement
# Remedy:  N <= number of items, and drop every entry whose score is below -1e38.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check implicit==0.7.3 scipy==1.17.1 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "implicit scipy numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import numpy as np
import scipy.sparse as sp
from implicit.als import AlternatingLeastSquares

rng = np.random.default_rng(0)
taken = (rng.random((50, 20)) < 0.3).astype(np.float32)
taken[0] = 1
taken[0, [18, 19]] = 0
matrix = sp.csr_matrix(taken)
model = AlternatingLeastSquares(factors=4, iterations=5, random_state=0, num_threads=1)
model.fit(matrix, show_progress=False)

ids, scores = model.recommend(0, matrix[0], N=5)
print("two items left, N=5: ", ids, scores)
still(sorted(ids[:2]) == [18, 19] and len(ids) == 5, "five entries, though two items are left")
still(all(taken[0, ids[2:]] == 1) and (scores[2:] < -1e38).all(), "the other three are the user's own, at -3.4e38")

ids, scores = model.recommend(0, matrix[0], N=30)
print("twenty items, N=30:  ", ids, scores)
still(len(ids) == 30 and (ids[20:] == 0).all() and (scores[20:] == 0).all(), "entries 21-30 are item 0 at score 0.0")
still(taken[0, 0] == 1, "item 0 is one that the user has")

ids, scores = model.recommend(0, matrix[0], N=3, items=[0, 1, 2])
print("items=[0, 1, 2], all taken:", ids, scores)
still(set(ids) == {0, 1, 2}, "a candidate list of taken items alone is returned whole")
PYTHON
