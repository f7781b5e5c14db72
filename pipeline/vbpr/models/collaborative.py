"""Rankers that see no images: implicit's ALS and BPR, and two closed forms of the item-item kind.

EASE (Steck, 2019): scores X B, B of zero diagonal that minimises |X - X B|^2 + l |B|^2, kept to its leading rank.
Spectral (GF-CF; Shen et al. 2021): the leading rank of the normalised interactions, a low-pass filter on their graph.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..errors import VbprError
from ..factors import Factors
from ..interactions import Split
from ..recommender import ItemFeatures, factors_of
from .config import TrainConfig

Array = np.ndarray[Any, Any]

HISTORY_ONLY = {"scores_unseen": False}  # these know an item by its history alone
EASE_ITEMS = 25_000  # EASE inverts an (I, I) matrix: 2.5 GB and about a minute at this size


@dataclasses.dataclass(frozen=True)
class Implicit:
    """A model of the implicit library; its BPR draws negatives by popularity and keeps the bias in a last column.

    One thread each: with more, its results depend on which comes first."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`."""
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        c = self.config
        common = {
            "factors": c.factors,
            "iterations": c.epochs,
            "random_state": c.seed,
            "regularization": c.reg_items,
            "num_threads": 1,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if c.model == "als":
                model = AlternatingLeastSquares(**common)
            else:
                model = BayesianPersonalizedRanking(learning_rate=c.lr, **common)
            model.fit(split.train, show_progress=False)
        return factors_of(split, model.user_factors, model.item_factors, about=HISTORY_ONLY)


@dataclasses.dataclass(frozen=True)
class EASE:
    """score(u, i) = (X B)_ui, B kept to its `factors` leading singular values; `reg_items` is lambda."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            VbprError: the catalogue is too large for an (I, I) inverse.
        """
        n = split.train.shape[1]
        if n > EASE_ITEMS:
            raise VbprError(
                f"--model ease inverts an items x items matrix: {n:,} items are more than its {EASE_ITEMS:,}; use "
                "--model als, or --k-core to keep the items that sell"
            )
        taken = np.flatnonzero(split.item_counts)  # an item nobody took has a row and column of zeros in B
        x = split.train[:, taken]
        gram = (x.T @ x).toarray().astype(np.float32)
        gram[np.diag_indices_from(gram)] += self.config.reg_items
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gram))).numpy()
        b = inverse / -np.diag(inverse)
        np.fill_diagonal(b, 0)
        left, values, right = leading(b, min(self.config.factors, len(taken) - 1), self.config.seed)
        items = np.zeros((n, len(values)), np.float32)
        items[taken] = right.T
        return factors_of(split, x @ (left * values), items, about=HISTORY_ONLY)


@dataclasses.dataclass(frozen=True)
class Spectral:
    """score(u, i) = n_i^1/2 (U S V')_ui of the leading rank of X / (n_u n_i)^1/2; scales to any catalogue."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`."""
        return spectral(split, self.config.factors, self.config.seed)


def spectral(split: Split, rank: int, seed: int, exponent: float = 0.5, power: float = 1.0) -> Factors:
    """score(u, i) = n_i^q (U S^p V')_ui of the leading rank of n_u^-1/2 X n_i^-q.

    Args:
        exponent: q, how far an item's popularity is taken out before the decomposition (and put back after it).
        power: p, how much more the strong directions count than the weak.
    """
    user = np.maximum(1, np.diff(split.train.indptr)) ** -0.5
    item = np.maximum(1, split.item_counts) ** -exponent
    x = (sp.diags(user) @ split.train @ sp.diags(item)).tocsr().astype(np.float32)
    left, values, right = leading(x, min(rank, min(x.shape) - 1), seed)
    return factors_of(split, left * values**power, right.T / item[:, None], about=HISTORY_ONLY)


def leading(matrix: Any, rank: int, seed: int) -> tuple[Array, Array, Array]:
    """The leading singular values of a matrix and their vectors, by subspace iteration (Halko et al. 2011):
    (n, r), (r,) descending, (r, m)."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((matrix.shape[1], min(rank + 16, *matrix.shape)), np.float32)
    for _ in range(SWEEPS):
        basis = torch.linalg.qr(torch.from_numpy(times(matrix.T, times(matrix, basis))))[0].numpy()
    left, values, turn = torch.linalg.svd(torch.from_numpy(times(matrix, basis)), full_matrices=False)
    return left.numpy()[:, :rank], values.numpy()[:rank], (turn.numpy() @ basis.T)[:rank]


def times(matrix: Any, basis: Array) -> Array:
    """A product with a sparse or dense matrix; dense ones through torch, whose threads are the run's own."""
    if sp.issparse(matrix):
        return np.ascontiguousarray(matrix @ basis)
    return (torch.from_numpy(matrix) @ torch.from_numpy(basis)).numpy()


SWEEPS = 6


__all__ = ["EASE", "Implicit", "Spectral", "spectral"]
