#!/bin/sh
# A model that says nothing (every score equal) has an NDCG@10 of 1.0 by ranx and irspack, if items lie kindly.
#
# Guess:   evaluators treat ties neutrally: a constant scorer gets what chance gets; one more candidate hardly matters.
# Truth:   scikit-learn alone averages over ties. irspack takes the lowest item index first: 1.0 or 0. ranx sorts by
#          an unstable sort: up to 15 candidates ties keep the order of insertion (held-out item first: 1.0); with
#          a 16th the ten best are those inserted 15th, 14th, ... 6th, and the very same user has 0.
# Matters: candidate lists are often built positive first, then sampled negatives, and item indices often follow
#          popularity: a collapsed model (all vectors alike, quantised or clipped scores) then looks perfect, and a
#          change of the number of negatives turns it into the worst.
# Source:  by measurement
# Remedy:  shuffle candidates before scoring; count ties in every evaluation.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check ranx==0.3.21 irspack==0.5.2 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "ranx irspack scikit-learn scipy numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import warnings

warnings.simplefilter("ignore")
import numpy as np
import scipy.sparse as sp
from irspack import BaseRecommender, Evaluator
from ranx import Qrels, Run, evaluate
from sklearn.metrics import ndcg_score


class Constant(BaseRecommender):
    recommender_name = "constant"

    def _learn(self):
        pass

    def get_score(self, user_indices):
        return np.zeros((len(user_indices), self.n_items))

    def get_score_block(self, begin, end):
        return np.zeros((end - begin, self.n_items))


def ndcg(items, held):
    """NDCG@10 of one user whose held-out item is at this place of the candidates, by three evaluators."""
    truth = np.zeros((1, items))
    truth[0, held] = 1
    names = [f"i{i:03}" for i in range(items)]
    by_ranx = evaluate(Qrels({"u": {names[held]: 1}}), Run({"u": {name: 0.5 for name in names}}), "ndcg@10")
    model = Constant(sp.csr_matrix((1, items))).learn()
    by_irspack = Evaluator(sp.csr_matrix(truth), cutoff=10).get_score(model)["ndcg"]
    by_sklearn = ndcg_score(truth, np.full((1, items), 0.5), k=10)
    return float(by_ranx), float(by_irspack), float(by_sklearn)


got = {}
for items, held in ((15, 0), (16, 0), (16, 14), (200, 0), (200, 199)):
    got[items, held] = ndcg(items, held)
    print("{:3} candidates of equal score, the held-out one at place {:3}: ranx {:.3f}, irspack {:.3f}, scikit-learn {:.3f}"
          .format(items, held + 1, *got[items, held]))
still(got[15, 0][0] == 1 and got[16, 0][0] == 0, "ranx: 1.0 with 15 candidates, 0 with 16")
still(got[16, 14][0] == 1, "ranx: with 16 candidates the one inserted 15th is first")
still(got[200, 0][1] == 1 and got[200, 199][1] == 0, "irspack: the lowest index is first")
still(abs(got[200, 0][2] - got[200, 199][2]) < 1e-9 and 0.01 < got[200, 0][2] < 0.05, "scikit-learn: that of chance")
PYTHON
