#!/bin/sh
# implicit's precision_at_k is no precision, and its AUC_at_k is no AUC of the ranking.
#
# Guess:   precision_at_k(K) is hits / K averaged over users and can only fall when relevant items run out; AUC_at_k
#          is the share of correctly ordered pairs whatever K.
# Truth:   precision is (hits of all users) / (sum over users of min(K, held out)): with one held-out item a user it IS
#          the hit rate, rises with K and reaches 1. AUC depends on K: what is below place K counts as a coin toss.
# Matters: numbers in papers and dashboards that come from implicit cannot stand beside those of ranx, RecBole, cornac
#          or one's own: here 10 times the textbook precision@10, and "AUC" 0.54 of a ranking whose AUC is 0.75.
# Source:  https://github.com/benfred/implicit/issues/713 (precision), /issues/158 (the author: so as to reach 1)
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
from implicit.evaluation import AUC_at_k, precision_at_k
from implicit.als import AlternatingLeastSquares

rng = np.random.default_rng(0)
users, items = 300, 500
kind = rng.integers(5, size=users)
likes = rng.random((users, items)) < np.where(np.arange(items) % 5 == kind[:, None], 0.12, 0.01)
held = np.array([rng.choice(np.flatnonzero(row)) for row in likes])  # one held-out item a user
train = likes.copy()
train[np.arange(users), held] = False
test = sp.csr_matrix((np.ones(users, np.float32), (np.arange(users), held)), shape=likes.shape)
train = sp.csr_matrix(train.astype(np.float32))
model = AlternatingLeastSquares(factors=8, iterations=10, random_state=0, num_threads=1)
model.fit(train, show_progress=False)

scores = model.user_factors @ model.item_factors.T
scores[train.toarray() > 0] = -np.inf
own = scores[np.arange(users), held][:, None]
place = (scores > own).sum(1)
free = np.isfinite(scores).sum(1)
auc = (1 - place / (free - 1)).mean()

got = {}
for k in (5, 10, 50, 450):
    got[k] = (precision_at_k(model, train, test, K=k, show_progress=False),
              AUC_at_k(model, train, test, K=k, show_progress=False), (place < k).mean())
    print(f"K={k:3}: implicit's precision {got[k][0]:.3f}, textbook {got[k][2] / k:.4f}, hit rate {got[k][2]:.3f}; "
          f"implicit's AUC {got[k][1]:.3f}, AUC {auc:.3f}")
still(all(abs(p - hit) < 1e-6 for p, _, hit in got.values()), "precision_at_k is the hit rate")
still(got[5][0] < got[10][0] < got[50][0] < got[450][0], "precision rises with K")
still(auc - got[10][1] > 0.1 and got[10][1] < got[50][1] < got[450][1], "AUC_at_k depends on K, far below the AUC")
PYTHON
