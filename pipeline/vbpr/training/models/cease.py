"""CEASE (Jeunen et al. 2020), EASE (Steck 2019) whose items have to explain each other's features as well.

    B minimises |W (X - X B)|^2 + share |F - F B|^2 + penalty |B|^2 with a zero diagonal,   W = (n_u / mean)^-1/4

With G = [W X; share^1/2 F'] and A = (G G' + penalty I)^-1, B = I - (I - G' A G) D, D = 1 / (1 - diag G' A G): of what
a user did not take, the scores of W X B are - penalty (A G)_u D. A is of users and axes; where items are fewer, A G is
G (G' G + penalty I)^-1; where both are many, it is of the leading rank of G.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ...base.arrays import Array
from ...base.errors import VbprError
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig
from ..item_features import ItemFeatures
from .axes import axes
from .entry import Model, Space
from .parts import Part, alone, columns, held
from .singular import leading

PENALTY, SHARE, POWER = 100.0, 30.0, 0.25
SQUARE = 10_000  # rows and columns of what is inverted, at most: 0.4 GB, and about half a minute
LEADING, SWEEPS = 64, 6  # of G beyond: singular values, at least, and sweeps for them


@dataclasses.dataclass(frozen=True)
class CEASE:
    """`reg_items` is the penalty."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`."""
        if features is None:
            raise VbprError("--model cease needs --features")
        part = cease(split, *axes(features, len(split.item_ids)), self.config.reg_items, seed=self.config.seed)
        return alone(split, [part], [1.0], features, self.config.seed)


def cease(
    split: Split, looks: Array, turn: Array, penalty: float = PENALTY, share: float = SHARE, seed: int = 0
) -> Part:
    """The part; without `looks`, (I, 0), it is EASE of weighted users.

    Args:
        looks, turn: see `axes`.
    """
    count = np.maximum(1, np.diff(split.train.indptr))
    weight = (count / count.mean()) ** -POWER
    x = (sp.diags(weight.astype(np.float32)) @ split.train).tocsr().astype(np.float32)
    f = np.float32(share**0.5) * looks
    users, items = x.shape
    try:
        if min(users + f.shape[1], items) > SQUARE or not held(split):
            return by_rank(x, f, turn, share, penalty, columns(split, LEADING), seed)
        through = through_users if users + f.shape[1] <= items else through_items
        return through(x, f, turn, share, penalty)
    except RuntimeError as error:
        raise VbprError(f"EASE cannot be solved with a penalty of {penalty:g}; raise reg_items") from error


def inverse(gram: Array, penalty: float) -> Array:
    """(gram + penalty I)^-1; `gram` is used up."""
    gram[np.diag_indices_from(gram)] += penalty
    lower, _ = torch.linalg.cholesky_ex(torch.from_numpy(gram), check_errors=True)
    return torch.cholesky_inverse(lower).numpy()


def of_new(f: Array, inner: Array, turn: Array, share: float, penalty: float) -> Array:
    """What an item without purchases has for D, on average, times the map of its features."""
    own = np.einsum("id,id->i", f @ inner, f).mean() if len(f) else 0.0
    return np.asarray(penalty * share**0.5 / max(1e-5, 1 - own) * turn, np.float32)


def through_users(x: sp.csr_matrix, f: Array, turn: Array, share: float, penalty: float) -> Part:
    users = x.shape[0]
    gram = np.zeros((users + f.shape[1],) * 2, np.float32)
    gram[:users, :users] = (x @ x.T).toarray()
    gram[users:, :users] = (x @ f).T
    gram[:users, users:] = gram[users:, :users].T
    gram[users:, users:] = f.T @ f
    a = inverse(gram, penalty)
    inner, outer = np.ascontiguousarray(a[users:, users:]), np.ascontiguousarray(a[:users, users:])
    own = np.einsum("id,id->i", f @ inner, f) + 2 * np.einsum("id,id->i", x.T @ outer, f)
    of_items = x.T.tocsr()
    for b in range(0, x.shape[1], 1024):
        some = of_items[b : b + 1024]
        own[b : b + 1024] += np.asarray(some.multiply(some @ a[:users, :users]).sum(1)).ravel()
    d = (penalty / np.maximum(1e-5, 1 - own)).astype(np.float32)
    terms: list[tuple[Any, Any]] = [(-a[:users, :users], sp.diags(d) @ of_items)]
    if not f.shape[1]:
        return Part(terms)
    return Part([*terms, (-outer, f * d[:, None])], unseen=(-outer, of_new(f, inner, turn, share, penalty)))


def through_items(x: sp.csr_matrix, f: Array, turn: Array, share: float, penalty: float) -> Part:
    p = inverse((x.T @ x).toarray() + f @ f.T, penalty)
    d = 1 / p.diagonal()
    terms: list[tuple[Any, Any]] = [(x, -p * d[:, None])]
    if not f.shape[1]:
        return Part(terms)
    inverted = p @ f
    outer = -(x @ inverted) / penalty
    inner = (np.eye(f.shape[1], dtype=np.float32) - f.T @ inverted) / penalty
    return Part(terms, unseen=(-outer, of_new(f, inner, turn, share, penalty)))


class Stacked:
    """[X; F'], X sparse, as a factor of `leading`."""

    def __init__(self, x: Any, f: Array, turned: bool = False) -> None:
        self.x, self.f, self.turned = x, f, turned
        rows, columns = x.shape[0] + f.shape[1], x.shape[1]
        self.shape = (columns, rows) if turned else (rows, columns)

    @property
    def T(self) -> "Stacked":
        return Stacked(self.x, self.f, not self.turned)

    def __matmul__(self, basis: Array) -> Array:
        if self.turned:
            return np.asarray(self.x.T @ basis[: self.x.shape[0]] + self.f @ basis[self.x.shape[0] :])
        return np.vstack([self.x @ basis, self.f.T @ basis])


def by_rank(x: sp.csr_matrix, f: Array, turn: Array, share: float, penalty: float, rank: int, seed: int) -> Part:
    """With G = P S Q' and a rest R, A G = P S / (S^2 + penalty) Q' + R / penalty, nearly. G, which says nothing of
    what a user did not take, less penalty A G is P S^3 / (S^2 + penalty) Q'."""
    left, s, right = leading([Stacked(x, f)], rank, seed, SWEEPS)
    s = np.maximum(s, 1e-6)
    own = (right**2).T @ (s**2 / (s**2 + penalty))
    length = np.asarray(x.multiply(x).sum(0)).ravel() + np.einsum("id,id->i", f, f)
    own += np.maximum(0, length - (right**2).T @ s**2) / penalty
    d = (1 / np.maximum(1e-5, 1 - np.minimum(own, 0.99))).astype(np.float32)
    users = x.shape[0]
    taste = (left[:users] * (s**3 / (s**2 + penalty))).astype(np.float32)
    terms: list[tuple[Any, Any]] = [(taste, np.ascontiguousarray(right.T) * d[:, None])]
    if not f.shape[1]:
        return Part(terms)
    new = left[users:].T / s[:, None] @ turn * np.float32(share**0.5 * d[length > 0].min())
    return Part(terms, unseen=(taste, new.astype(np.float32)))


SPACE: Space = {"reg_items": (10.0, 2000.0, "log")}
MODEL = Model(CEASE, {"dim": 0, "reg_items": 100.0}, frozenset({"reg_items", "seed"}), SPACE, visual=True)

__all__ = ["CEASE", "MODEL", "cease"]
