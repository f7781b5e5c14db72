"""Implicit ALS (Hu et al. 2008) whose items are drawn to what their features say, as irspack's feature-aware iALS.

    minimises sum_ui c_ui (x_ui - p_u . y_i)^2 + lambda (sum_u |p_u|^2 + sum_i |y_i - B' f_i|^2)

with c_ui = 1 + alpha x_ui, lambda = level (1 + alpha) edge, edge = (mean n_u)^1/2 + (mean n_i)^1/2: where the singular
values of interactions at random end. Users and items take a few steps of conjugate gradients each time (Takacs et al.
2011); B is a ridge regression, items weighted by n / (n + 5). An item that nobody took is B' f.
"""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from ...base.arrays import Array
from ...base.progress import Progress
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ...stores.model.head import Head
from ..config import TrainConfig
from ..item_features import ItemFeatures
from ..model import factors_of, some_factors
from .axes import axes
from .entry import Model, Space
from .parts import WARM, Part

LEVEL, RIDGE, STEPS = 0.35, 0.2, 3
AXES = 128
AT_ONCE = 500_000  # interactions whose factors are gathered at a time


@dataclasses.dataclass(frozen=True)
class FeatureALS:
    """`reg_items` is the level."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`."""
        c = self.config
        some_factors(c)
        looks, turn = axes(features, len(split.item_ids), AXES)
        users, items, weight = feature_als(split, looks, c.factors, c.alpha, c.reg_items, c.epochs, c.seed)
        head = None
        if features is not None:
            new = weight.T @ turn
            head = Head(features.mean, features.scale, new, np.zeros_like(features.mean), unit=True)
        return factors_of(split, users, items, head=head, about={"scores_unseen": head is not None})


def feature_als_part(
    split: Split, looks: Array, turn: Array, factors: int, alpha: float, level: float, seed: int, epochs: int = 10
) -> Part:
    """The same as a part of a blend."""
    looks, turn = looks[:, :AXES], turn[:AXES]
    users, items, weight = feature_als(split, looks, factors, alpha, level, epochs, seed)
    return Part([(users, items)], unseen=(users, weight.T @ turn) if looks.shape[1] else None)


def feature_als(
    split: Split, looks: Array, factors: int, alpha: float, level: float, epochs: int = 10, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Users (U, K), items (I, K) and B (d, K) of coordinates `looks` (I, d), float32."""
    x = split.train.astype(np.float32).tocsr()
    turned = x.T.tocsr()
    counts = split.item_counts
    edge = sum(np.sqrt(x.nnz / max(1, np.count_nonzero(n))) for n in (np.diff(x.indptr), counts))
    penalty = np.float32(level * (1 + alpha) * edge)
    rng = np.random.default_rng(seed)
    users, items = (0.01 * rng.standard_normal((n, factors), np.float32) for n in x.shape)
    trust = (counts / (counts + WARM)).astype(np.float32)
    weighted = looks * trust[:, None]
    moments = looks.T @ weighted
    moments[np.diag_indices_from(moments)] += RIDGE * trust.sum() / max(1, looks.shape[1])
    prior, b = np.zeros_like(items), np.zeros((looks.shape[1], factors), np.float32)
    with Progress("feature-aware ALS", epochs, "epochs") as bar:
        for _ in range(epochs):
            users = steps(x, items, users, np.zeros_like(users), alpha, penalty)
            items = steps(turned, users, items, prior, alpha, penalty)
            if looks.shape[1]:
                b = np.linalg.solve(moments, weighted.T @ items)
                prior = looks @ b
            bar.advance(1)
    items[counts == 0] = prior[counts == 0]
    return users, items, b


def steps(x: sp.csr_matrix, other: Array, start: Array, prior: Array, alpha: float, penalty: np.float32) -> Array:
    """STEPS of conjugate gradients from `start`, (n, K), towards the solutions of
    (other' other + alpha sum_taken o o' + penalty) w = (1 + alpha) sum_taken o + penalty prior, one a row of x."""
    gram = other.T @ other
    blocks = row_blocks(x)

    def times(v: Array) -> Array:
        out = v @ gram
        out += penalty * v
        for a, b in blocks:
            rows = np.repeat(np.arange(a, b), np.diff(x.indptr[a : b + 1]))
            columns = x.indices[x.indptr[a] : x.indptr[b]]
            dots = np.float32(alpha) * np.einsum("nk,nk->n", v[rows], other[columns])
            out[a:b] += sp.csr_matrix((dots, columns, x.indptr[a : b + 1] - x.indptr[a]), (b - a, x.shape[1])) @ other
        return np.asarray(out)

    w = start.copy()
    rest = np.float32(1 + alpha) * (x @ other) + penalty * prior - times(w)
    along = rest.copy()
    square = np.einsum("nk,nk->n", rest, rest)
    for _ in range(STEPS):
        turned = times(along)
        far = (square / np.maximum(np.einsum("nk,nk->n", along, turned), 1e-20))[:, None]
        w += far * along
        rest -= far * turned
        new = np.einsum("nk,nk->n", rest, rest)
        along = rest + (new / np.maximum(square, 1e-20))[:, None] * along
        square = new
    return np.asarray(w)


def row_blocks(x: sp.csr_matrix) -> list[tuple[int, int]]:
    """Stretches of rows of at most AT_ONCE interactions, or of one row."""
    ends = [0]
    while ends[-1] < x.shape[0]:
        last = int(np.searchsorted(x.indptr, x.indptr[ends[-1]] + AT_ONCE, "right")) - 1
        ends.append(max(ends[-1] + 1, last))
    return list(itertools.pairwise(ends))


SPACE: Space = {
    "factors": (16, 256, "log"),
    "epochs": (5, 20),
    "alpha": (1.0, 200.0, "log"),
    "reg_items": (0.1, 3.0, "log"),
}
MODEL = Model(
    FeatureALS,
    {"dim": 0, "factors": 64, "epochs": 10, "reg_items": 0.35},
    frozenset({"factors", "epochs", "reg_items", "alpha", "seed"}),
    SPACE,
    visual=True,
)

__all__ = ["MODEL", "FeatureALS", "feature_als", "feature_als_part"]
