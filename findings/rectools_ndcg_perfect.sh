#!/bin/sh
# RecTools' NDCG of a perfect list is 0.22 where one item is held out: its ideal is a list of k hits.
#
# Guess:   NDCG@10 of a list that begins with all of a user's held-out items is 1, as of any other library's.
# Truth:   by default DCG is divided by that of k hits, whatever the user has: 0.22 at most for one held-out item of ten
#          places, 0.47 for three. MAP and recall of the same call divide by what the user has and reach 1.
#          `divide_by_achievable=True` gives the usual NDCG.
# Matters: leave-one-out results come out 4.5 times too low beside papers and other tools, and a mean over users weighs
#          those with many held-out items more: the better of two models can change places, as here.
# Remedy:  NDCG(k, divide_by_achievable=True).
# Source:  the docstring of rectools.metrics.NDCG (the option); the figures by measurement
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check rectools==0.19.0 numpy==1.26.4 pandas==2.3.3
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "rectools numpy pandas".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import numpy as np
import pandas as pd
from rectools import Columns
from rectools.metrics import MAP, NDCG, Recall

K = 10


def table(lists):
    rows = [(user, item, rank) for user, items in lists.items() for rank, item in enumerate(items, 1)]
    return pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Rank])


def held(lists):
    return pd.DataFrame([(u, i) for u, items in lists.items() for i in items], columns=[Columns.User, Columns.Item])


others = list(range(100, 100 + K))
truth = {1: [7], 2: [1, 2, 3], 3: list(range(K))}
perfect = table({user: (items + others)[:K] for user, items in truth.items()})
each = {m.__class__.__name__: m.calc_per_user(perfect, held(truth)).round(4).to_dict()
        for m in (NDCG(K), MAP(K), Recall(K))}
for name, values in each.items():
    print(f"{name}@10 of perfect lists, by user with 1, 3 and 10 held-out items:", list(values.values()))
discounts = 1 / np.log2(np.arange(2, K + 2))
expected = [discounts[:n].sum() / discounts.sum() for n in (1, 3, K)]
still(np.allclose(list(each["NDCG"].values()), expected, atol=1e-4), "NDCG divides by the DCG of ten hits")
still(set(each["MAP"].values()) == set(each["Recall"].values()) == {1.0}, "MAP and recall of the same lists are 1")
usual = NDCG(K, divide_by_achievable=True).calc_per_user(perfect, held(truth))
still(np.allclose(usual, 1), "with divide_by_achievable=True it is 1")

# Model A serves those with one held-out item, B those with ten.
truth = {user: [user] for user in range(6)} | {user: list(range(50, 50 + K)) for user in range(6, 10)}
a = table({user: (truth[user] + others)[:K] if user < 6 else others for user in truth})
b = table({user: others if user < 6 else truth[user] for user in truth})
default = [NDCG(K).calc(lists, held(truth)) for lists in (a, b)]
usual = [NDCG(K, divide_by_achievable=True).calc(lists, held(truth)) for lists in (a, b)]
print("A right for 6 users of 10, B for 4; NDCG@10 by default:", np.round(default, 3), "usual:", np.round(usual, 3))
still(default[0] < default[1] and usual[0] > usual[1], "the two models change places")
PYTHON
