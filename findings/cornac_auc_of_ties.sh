#!/bin/sh
# cornac's AUC counts a tie as a loss.
#
# Guess:   AUC gives half a point for a tie, as in scikit-learn and in statistics: constant scores have an AUC of 0.5.
# Truth:   cornac counts strictly greater pairs only: a constant scorer has an AUC of 0, and its negation too. A model
#          with few distinct scores (popularity, rounded or quantised scores) comes out far below 0.5.
# Matters: cornac is the usual source of VBPR and BPR baselines. "Worse than chance" there can be a tie; a model of
#          continuous scores beats the most-popular baseline by ties alone.
# Source:  by measurement
# Remedy:  break ties at random, or compute the AUC oneself.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check cornac==3.0.1 scikit-learn==1.9.1 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "cornac scikit-learn numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import numpy as np
from cornac.metrics import AUC
from sklearn.metrics import roc_auc_score

rng = np.random.default_rng(0)
items = np.arange(1000)
popularity = rng.geometric(0.75, 1000).astype(float)  # three of four items were bought once
chosen = rng.choice(1000, 50, replace=False, p=popularity / popularity.sum())
truth = np.isin(items, chosen)
got = {}
for name, scores in {"constant": np.ones(1000), "popularity": popularity, "unpopularity": -popularity,
                     "popularity, ties broken at random": popularity + rng.random(1000)}.items():
    ours = AUC().compute(item_indices=items, pd_scores=scores, gt_pos=chosen)
    got[name] = float(ours), float(roc_auc_score(truth, scores))
    print(f"{name:34} cornac {got[name][0]:.3f}   scikit-learn {got[name][1]:.3f}")
still(got["constant"][0] == 0 and got["constant"][1] == 0.5, "a constant scorer: 0 by cornac, 0.5 by scikit-learn")
still(got["popularity"][0] < 0.5 < got["popularity"][1], "popularity: below chance by cornac, above it in truth")
still(got["popularity"][0] + got["unpopularity"][0] < 0.8, "a ranking and its reverse do not add up to 1")
broken = got["popularity, ties broken at random"]
still(abs(broken[0] - broken[1]) < 1e-6, "without ties the two agree")
PYTHON
