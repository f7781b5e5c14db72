"""How far a mean over users may be trusted."""

import numpy as np

from ..base.arrays import Array


def interval(values: Array, resamples: int = 1000, seed: int = 0) -> list[float]:
    """The 95% percentile bootstrap interval of the mean over users, of figures from 0 to 1; of one: all of that."""
    if len(values) < 2:
        return [0.0, 1.0]
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    return [float(q) for q in np.quantile(means, [0.025, 0.975])]


__all__ = ["interval"]
