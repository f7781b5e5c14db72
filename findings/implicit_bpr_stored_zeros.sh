#!/bin/sh
# implicit's BPR takes every stored cell for a liking: a stored 0 or -1 pushes the item UP.
#
# Guess:   in a CSR of interactions 0 is "nothing" and a negative value is a dislike: so implicit's ALS reads them (its
#          documentation says so of negative values), and BPR of the same package gets the same matrix.
# Truth:   BPR reads where cells are stored and never what they hold. Items that users marked with 0 or -1 are ranked
#          above the items they liked, when they were marked more often; a matrix of 1s in their place gives the same.
# Matters: zeros get stored by undoing a purchase, by `matrix - matrix`, by thresholding `.data` in place, by
#          ratings minus their mean; dislikes by design. Nothing warns; the model recommends what people rejected.
# Source:  https://github.com/benfred/implicit/issues/385 (ALS: the author on negative values), /issues/122 (BPR: a wish)
# Remedy:  matrix.data[matrix.data < 0] = 0; matrix.eliminate_zeros() before BPR.
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
from implicit.bpr import BayesianPersonalizedRanking

USERS, LIKED, MARKED, UNSEEN = 400, slice(0, 20), slice(20, 40), slice(40, 60)


def scores(value, make):
    rng, cells = np.random.default_rng(0), []
    for user in range(USERS):
        cells += [(user, item, 1.0) for item in rng.choice(20, 6, replace=False)]
        cells += [(user, item, value) for item in 20 + rng.choice(20, 12, replace=False)]
    user, item, data = map(np.array, zip(*cells))
    matrix = sp.csr_matrix((data.astype(np.float32), (user, item)), shape=(USERS, 60))
    model = make()
    model.fit(matrix, show_progress=False)
    full = model.user_factors @ model.item_factors.T
    return [float(full[:, part].mean()) for part in (LIKED, MARKED, UNSEEN)]


def bpr():
    return BayesianPersonalizedRanking(factors=8, iterations=100, random_state=0, num_threads=1)


def als():
    return AlternatingLeastSquares(factors=8, iterations=10, random_state=0, num_threads=1)


got = {}
for value in (0.0, -1.0, 1.0):
    for make in (bpr, als):
        got[make.__name__, value] = scores(value, make)
        print("{} marks of {:+.0f}: mean score of liked {:+.2f}, marked {:+.2f}, unseen {:+.2f}".format(
            make.__name__.upper(), value, *got[make.__name__, value]))
for value in (0.0, -1.0):
    liked, marked, unseen = got["bpr", value]
    still(marked > unseen + 0.1 and marked > liked + 0.3, f"BPR ranks items marked {value:+.0f} above the liked ones")
    still(abs(marked - got["bpr", 1.0][1]) < 0.1, f"and as high as if the marks of {value:+.0f} were likings")
    liked, marked, unseen = got["als", value]
    still(liked > marked + 0.2, f"ALS ranks items marked {value:+.0f} below the liked ones")
PYTHON
