"""Which methods differ by more than chance: paired tests with Holm's correction."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtr

from ...base.arrays import Array
from ...evaluation.evaluate import PARTS
from .cells import USERS

MEANS = ("auc", "auc_strict", "ndcg@10", "recall@20", "hr@10", "mrr", "map", "coverage@10")
RESAMPLES = 2000


def told_apart(rows: list[dict[str, Any]], users: dict[str, dict[str, Array]]) -> list[dict[str, Any]]:
    """Paired tests by every measure, of the methods that have it; each measure is a family of its own."""
    out = []
    for name in USERS:
        part = name if name in PARTS else "all"
        values = {row["method"]: users[row["method"]][name] for row in rows if "auc" in row[part]}
        out += [{"measure": name} | test for test in paired_tests(values)]
    return out


def paired_tests(users: dict[str, Array], seed: int = 0) -> list[dict[str, Any]]:
    """Every pair of methods: the difference of their users' mean, its bootstrap interval, and the p-value of a paired
    t-test, Holm-corrected. Of few users no p-value is below that of a sign test, and of one nothing is known."""
    if len(users) < 2:
        return []
    out: list[dict[str, Any]] = []
    values, rng = np.stack(list(users.values()), 1), np.random.default_rng(seed)
    n = len(values)
    means = np.stack([values[rng.integers(n, size=n)].mean(0) for _ in range(RESAMPLES)])  # the same users for all
    for (i, a), (j, b) in itertools.combinations(enumerate(users), 2):
        difference = values[:, i] - values[:, j]
        low, high = np.quantile(means[:, i] - means[:, j], [0.025, 0.975]) if n > 1 else (-1, 1)
        t = difference.mean() / max(difference.std(ddof=n > 1) / n**0.5, 1e-12)
        out.append(
            {
                "a": a,
                "b": b,
                "difference": float(difference.mean()),
                "interval": [float(low), float(high)],
                "p": float(max(2 * stdtr(max(1, n - 1), -abs(t)), 2.0 ** (1 - n))),
            }
        )
    for test, p in zip(out, holm([test["p"] for test in out]), strict=True):
        test["p_holm"] = p
    return out


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction."""
    order, worst = np.argsort(p, kind="stable"), 0.0
    corrected = [0.0] * len(p)
    for place, n in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[n]))
        corrected[int(n)] = worst
    return corrected


__all__ = ["MEANS", "holm", "paired_tests", "told_apart"]
