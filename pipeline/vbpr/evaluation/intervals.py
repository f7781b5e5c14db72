"""How far a mean over users may be trusted: bootstrap intervals, paired t-tests, Holm's correction.

interval(auc); paired_tests({"visual": auc, "vbpr": other})[0]["p_holm"]
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtr

from ..base.arrays import Array

RESAMPLES = 2000  # of paired tests


def interval(values: Array, resamples: int = 1000, seed: int = 0) -> list[float]:
    """The 95% percentile bootstrap interval of the mean over users, of figures from 0 to 1; of one: all of that."""
    return intervals({"": values}, resamples, seed)[""]


def intervals(values: Mapping[str, Array], resamples: int = 1000, seed: int = 0) -> dict[str, list[float]]:
    """`interval` of several measures of the same users, (n,) each, by the same draws."""
    columns = np.stack(list(values.values()), 1)
    n = len(columns)
    if n < 2:
        return {name: [0.0, 1.0] for name in values}
    rng = np.random.default_rng(seed)
    times = (np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(resamples))  # each user was drawn
    low, high = np.quantile([each @ columns / n for each in times], [0.025, 0.975], axis=0)
    return {name: [float(a), float(b)] for name, a, b in zip(values, low, high, strict=True)}


def paired_tests(users: Mapping[str, Array], seed: int = 0) -> list[dict[str, Any]]:
    """Every pair of methods compared over the same users.

    Args:
        users: of each method by name, (n,) figures of the users, from 0 to 1.

    Returns:
        Of each pair its names a and b, the mean `difference` a - b, its 95% bootstrap `interval`, the `p` of a paired
        t-test, and `p_holm`, corrected for all pairs. Empty for fewer than two methods.
    """
    if len(users) < 2:
        return []
    out: list[dict[str, Any]] = []
    values, rng = np.stack(list(users.values()), 1), np.random.default_rng(seed)
    n = len(values)
    means = np.stack([values[rng.integers(n, size=n)].mean(0) for _ in range(RESAMPLES)])  # the same users for all
    for (i, a), (j, b) in itertools.combinations(enumerate(users), 2):
        difference = values[:, i] - values[:, j]
        low, high = np.quantile(means[:, i] - means[:, j], [0.025, 0.975]) if n > 1 else (-1, 1)
        out.append(
            {
                "a": a,
                "b": b,
                "difference": float(difference.mean()),
                "interval": [float(low), float(high)],
                "p": t_test(difference),
            }
        )
    for test, p in zip(out, holm([test["p"] for test in out]), strict=True):
        test["p_holm"] = p
    return out


def t_test(difference: Array) -> float:
    """The two-sided p-value of (n,) paired differences. Of few users it is never below that of a sign test."""
    n = len(difference)
    t = difference.mean() / max(difference.std(ddof=n > 1) / n**0.5, 1e-12)
    return float(max(2 * stdtr(max(1, n - 1), -abs(t)), 2.0 ** (1 - n)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values, in their order."""
    order, worst = np.argsort(p, kind="stable"), 0.0
    corrected = [0.0] * len(p)
    for place, n in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[n]))
        corrected[int(n)] = worst
    return corrected


__all__ = ["holm", "interval", "intervals", "paired_tests"]
