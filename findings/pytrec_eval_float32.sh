#!/bin/sh
# pytrec_eval keeps scores as float32 and lets the items' NAMES decide between the ties that makes.
#
# Guess:   scores given as Python floats are compared as such; two runs that differ in item names alone get one result.
# Truth:   trec_eval holds float32. Scores of about 2e7 have steps of 2 there: what differs less is a tie, and ties go to
#          the name that sorts LAST. Renaming the items turns the same ranking from 1.0 into 0.39.
# Matters: two-part scores (purchases + cosine, a timestamp + tie-breaker) keep their order in float64 and lose it here.
#          ranx, on the same run, keeps it: the two tools disagree by names.
# Source:  by measurement
# Remedy:  give ranks (or n - rank) as the scores.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check pytrec_eval-terrier==0.5.11 ranx==0.3.21 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "pytrec_eval-terrier ranx numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import pytrec_eval
from ranx import Qrels, Run, evaluate


def ndcg(names):
    """Of five items in true order of liking, the first one relevant: scores 20,000,000 + 0.9, 0.8, 0.7, 0.6, 0.5."""
    run = {name: 20_000_000 + (9 - i) / 10 for i, name in enumerate(names)}
    assert sorted(run, key=run.get, reverse=True) == list(names)  # no ties in float64
    truth = {"u": {names[0]: 1}}
    trec = pytrec_eval.RelevanceEvaluator(truth, {"ndcg"}).evaluate({"u": run})["u"]["ndcg"]
    return trec, float(evaluate(Qrels(truth), Run({"u": run}), "ndcg"))


got = {names: ndcg(names) for names in ("abcde", "edcba")}
for names, (trec, ranx) in got.items():
    print(f"best to worst {' > '.join(names)}: pytrec_eval {trec:.3f}, ranx {ranx:.3f}")
still(got["edcba"] == (1.0, 1.0), "names that sort last first: both say 1.0")
still(abs(got["abcde"][0] - 0.387) < 0.001 and got["abcde"][1] == 1.0, "other names, same scores: 0.387 and 1.0")
PYTHON
