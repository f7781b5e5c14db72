"""Rankers of who bought what: implicit's ALS and BPR, and two closed forms of the item-item kind.

EASE (Steck, 2019): scores X B, B of zero diagonal that minimises |X - X B|^2 + l |B|^2, kept to its leading rank.
With `looks`, coordinates of the items, the features of a kernel of them are further rows of X, which B has to
reconstruct as well (collective EASE; Jeunen et al. 2020): items that look alike then stand in for each other.
Spectral: the leading rank of the normalised interactions, an ideal low-pass filter on their graph; GF-CF (Shen et al.
2021) adds a linear filter to it, which is no product of small factors.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.progress import Progress, console
from ..data.split import Split
from ..recommender import ItemFeatures, factors_of
from ..stores.model.factors import Factors
from .config import TrainConfig

HISTORY_ONLY = {"scores_unseen": False}  # these know an item by its history alone
EASE_ITEMS = 25_000  # EASE inverts an (I, I) matrix: three of 2.5 GB, and about a minute at this size


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
        some_factors(c)
        common = {
            "factors": c.factors,
            "iterations": c.epochs,
            "random_state": c.seed,
            "regularization": c.reg_items,
            "num_threads": 1,
        }
        count = split.train.nnz
        with warnings.catch_warnings(), Progress(f"train {c.model}", count * c.epochs, "positives") as bar:
            warnings.simplefilter("ignore")
            if c.model == "als":
                model = AlternatingLeastSquares(alpha=c.alpha, **common)
            else:
                model = BayesianPersonalizedRanking(learning_rate=c.lr, **common)
            model.fit(split.train, show_progress=False, callback=lambda *_: bar.advance(count))
        return factors_of(split, model.user_factors, model.item_factors, about=HISTORY_ONLY)


@dataclasses.dataclass(frozen=True)
class EASE:
    """score(u, i) = (X B)_ui, X B kept to its `factors` leading singular values; `reg_items` is lambda."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            VbprError: the catalogue is too large for an (I, I) inverse.
        """
        some_factors(self.config)
        taken = np.flatnonzero(split.item_counts)  # an item nobody took has a row and column of zeros in B
        if len(taken) > EASE_ITEMS:
            raise VbprError(
                f"--model ease inverts an items x items matrix: {len(taken):,} bought items are more than its "
                f"{EASE_ITEMS:,}; use --model hybrid, which takes the most bought of them, or --model als"
            )
        return ease(split, taken, self.config.factors, self.config.seed, self.config.reg_items)


@dataclasses.dataclass(frozen=True)
class Spectral:
    """score(u, i) = n_i^1/2 (U S V')_ui of the leading rank of X / (n_u n_i)^1/2; scales to any catalogue."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`."""
        some_factors(self.config)
        return spectral(split, self.config.factors, self.config.seed)


def some_factors(c: TrainConfig) -> None:
    """Refuse a model whose one part is switched off."""
    if not c.factors:
        raise VbprError(f"--factors is 0: --model {c.model} has nothing else; give it a size")


def ease(
    split: Split, among: Array, rank: int, seed: int, penalty: float, looks: Array | None = None, share: float = 0.0
) -> Factors:
    """score(u, i) = (X B)_ui among some items (positions), its `rank` leading singular values; else 0.

    B has a zero diagonal and minimises |X - X B|^2 + penalty (|B|^2 + share |F - F B|^2), F'F = the kernel of `looks`.

    Args:
        looks: (I, d) coordinates of the items, or None; two items' kernel is exp((cosine - 1) / KERNEL_WIDTH).
    """
    x = split.train[:, among]
    gram = torch.from_numpy((x.T @ x).toarray().astype(np.float32))
    if looks is not None:
        unit = F.normalize(torch.from_numpy(looks[among]), dim=1, eps=1e-12)
        gram.add_((unit @ unit.T).sub_(1).div_(KERNEL_WIDTH).exp_(), alpha=penalty * share)
    gram.diagonal().add_(penalty)
    try:
        b = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    except RuntimeError as error:
        raise VbprError(f"EASE cannot be solved with a penalty of {penalty:g}; raise reg_items") from error
    b.div_(-b.diagonal().clone())
    b.fill_diagonal_(0)
    left, values, right = leading([x, b.numpy()], min(rank, len(among) - 1), seed)
    items = np.zeros((len(split.item_ids), len(values)), np.float32)
    items[among] = right.T
    return factors_of(split, left * values, items, about=HISTORY_ONLY)


KERNEL_WIDTH = 0.4


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


def leading(chain: list[Any], rank: int, seed: int) -> tuple[Array, Array, Array]:
    """The leading singular values of a product of matrices and their vectors: (n, r), (r,) descending, (r, m).

    By subspace iteration (Halko et al. 2011), until the values have settled; their vectors take longer to. Dense
    matrices are read for all vectors at once, where ARPACK would read them for each.
    """
    rng = np.random.default_rng(seed)
    columns = chain[-1].shape[1]
    basis = rng.standard_normal((columns, min(rank + 16, chain[0].shape[0], columns)), np.float32)
    turned = [matrix.T for matrix in reversed(chain)]
    before = 0.0
    with Progress("singular values", SWEEPS, "sweeps at most") as bar:
        for _ in range(SWEEPS):
            product = torch.from_numpy(times(turned, times(chain, basis)))
            q, r = torch.linalg.qr(product)
            basis, total = q.numpy(), float(r.diagonal().double().abs().sqrt().sum())
            bar.advance(1)
            if abs(total - before) <= SETTLED * total:
                break
            before = total
    left, values, turn = torch.linalg.svd(torch.from_numpy(times(chain, basis)), full_matrices=False)
    return left.numpy()[:, :rank], values.numpy()[:rank], (turn.numpy() @ basis.T)[:rank]


def times(chain: list[Any], basis: Array) -> Array:
    """A product of matrices with a basis; dense ones through torch, whose threads are the run's own."""
    for matrix in reversed(chain):
        if sp.issparse(matrix):
            basis = np.ascontiguousarray(matrix @ basis)
        else:
            basis = (torch.from_numpy(matrix) @ torch.from_numpy(basis)).numpy()
    return basis


SWEEPS, SETTLED = 50, 1e-3  # at most; and how little the sum of the values may still change


__all__ = ["EASE", "Implicit", "Spectral", "ease", "spectral"]
