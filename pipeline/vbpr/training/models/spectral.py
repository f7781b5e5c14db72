"""The leading rank of the normalised interactions, an ideal low-pass filter on their graph; GF-CF (Shen et al. 2021)
adds a linear filter to it, which is no product of small factors.
"""

import dataclasses
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from ...base.arrays import Array
from ...base.progress import console
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig
from ..item_features import ItemFeatures
from ..model import HISTORY_ONLY, factors_of, some_factors
from .entry import Model
from .singular import leading


@dataclasses.dataclass(frozen=True)
class Spectral:
    """score(u, i) = n_i^1/2 (U S V')_ui of the leading rank of X / (n_u n_i)^1/2; scales to any catalogue."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`."""
        some_factors(self.config)
        return spectral(split, self.config.factors, self.config.seed)


def spectral(split: Split, rank: int, seed: int) -> Factors:
    """score(u, i) = n_i^1/2 (U S V')_ui of the leading rank of n_u^-1/2 X n_i^-1/2."""
    user = np.maximum(1, np.diff(split.train.indptr)) ** -0.5
    item = np.maximum(1, split.item_counts) ** -0.5
    x = (sp.diags(user) @ split.train @ sp.diags(item)).tocsr().astype(np.float32)
    rank = min(rank, min(x.shape) - 1)
    left, values, right = by_lanczos(x, rank, seed) or leading([x], rank, seed)
    return factors_of(split, left * values, right.T / item[:, None], about=HISTORY_ONLY)


def by_lanczos(x: sp.csr_matrix, rank: int, seed: int) -> tuple[Array, Array, Array] | None:
    """What `leading` finds, exactly and in a third of the time; None where Lanczos' method would not find it: each part
    of the interactions that hangs together by itself has the same largest value."""
    graph = sp.block_array([[None, x], [x.T, None]], format="csr")
    part_of = connected_components(graph, directed=False)[1]
    if rank < 1 or len(np.unique(part_of[np.diff(graph.indptr) > 0])) > PARTS:
        return None
    if x.nnz * rank > LONG:
        console.print(f"spectral: finding {rank} singular values of {x.shape[0]:,} users x {x.shape[1]:,} items")
    short = x if x.shape[0] <= x.shape[1] else x.T.tocsr()
    square = LinearOperator((short.shape[0],) * 2, matvec=lambda v: short @ (short.T @ v), dtype=np.float32)
    rng = np.random.default_rng(seed)
    try:
        squares, found = eigsh(square, rank, tol=1e-4, v0=rng.standard_normal(short.shape[0], np.float32), rng=rng)
    except ArpackError:
        return None
    order = np.argsort(-squares)
    values, one = np.sqrt(np.maximum(squares[order], 1e-12)), found[:, order]
    other = (short.T @ one) / values
    return (one, values, other.T) if short is x else (other, values, one.T)


LONG = 2 * 10**7  # numbers times values, above which it takes seconds
PARTS = 4
MODEL = Model(Spectral, {"dim": 0, "factors": 64}, frozenset({"factors", "seed"}), {"factors": (16, 512, "log")})

__all__ = ["MODEL", "Spectral", "spectral"]
