"""A ranker as a sum of products, dense or sparse, and how several of them become two matrices.

    score_p(u, i) = sum_t (users_t items_t')_ui + bias_i
    x_ui = sum_p w_p(n_i) z_p(u, i),   z_p = (score_p - its mean over the items) / its deviation, by user

n_i: how often i was bought. Where the scores of everybody are few enough to be held, they are kept as they are (K: the
number of users) or by their leading rank; else the parts' own factors stand side by side, and are kept by theirs.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ...base.arrays import Array
from ...base.progress import Progress
from ...data.split import Split
from ...stores.model.factors import Factors
from ...stores.model.head import Head
from ..item_features import ItemFeatures
from ..model import factors_of

BLOCK = 256  # users at a time, at most
AT_ONCE = 10**8  # scores at a time: 0.4 GB
KEPT = 1.5e9  # bytes of scores that are kept from choosing weights to adding up
HELD = 250_000_000  # scores of everybody, up to which they are held: 1 GB
EXACT = 3072  # users up to which they are kept as they are
RANK = 1024  # columns of what is larger
SWEEPS, IMPUTED = 4, 2  # of subspace iteration; how often scores of what was bought are made up from the others
ROWS = 4096  # at a time
PAIRS = 50_000  # of a user and an item at a time
WARM = 5.0  # purchases of an item that is half warm


@dataclasses.dataclass(frozen=True)
class Part:
    """A ranker of a catalogue.

    Attributes:
        terms: pairs of (U, k) and (I, k), each a float32 array or CSR.
        bias: (I,) float32, or None.
        unseen: (U, k) and (k, D), or None: an item that nobody took has the scores users @ weight @ z, z its
            standardised features at length one.
        curve: of its training.
    """

    terms: list[tuple[Any, Any]]
    bias: Array | None = None
    unseen: tuple[Array, Array] | None = None
    curve: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, factors: Factors) -> "Part":
        """A fitted model as a part."""
        unseen = None
        if factors.head is not None:
            ones = np.ones((len(factors.users), 1), np.float32)
            weight = np.vstack([factors.head.weight, factors.head.bias_weight])
            unseen = np.hstack([factors.users, ones]), weight
        bias = factors.bias if factors.bias.any() else None
        return cls([(factors.users, factors.items)], bias, unseen, factors.about.get("curve", []))

    def scores(self, users: slice) -> torch.Tensor:
        """(n, I) float32, a new tensor."""
        total = product(self.terms[0][0][users], self.terms[0][1])
        for left, right in self.terms[1:]:
            total += product(left[users], right)
        return total if self.bias is None else total.add_(torch.from_numpy(self.bias))


def product(left: Any, right: Any) -> torch.Tensor:
    """left @ right.T, dense; each of the two an array or CSR."""
    if sp.issparse(left) and sp.issparse(right):
        return torch.from_numpy((left @ right.T).toarray())
    if sp.issparse(left):
        return torch.from_numpy(left @ np.ascontiguousarray(right.T))
    if sp.issparse(right):
        return torch.from_numpy(right @ np.ascontiguousarray(left.T)).T.contiguous()
    return torch.from_numpy(left) @ torch.from_numpy(right).T


class Scores:
    """The parts' scores in units of each user's deviation, a block of users at a time; what fits in KEPT stays."""

    def __init__(self, parts: list[Part], users: int, items: int) -> None:
        self.parts, self.shape = parts, (len(parts), users, items)
        self.step = max(1, min(BLOCK, AT_ONCE // (len(parts) * items)))
        self.room = int(KEPT / (4 * len(parts) * self.step * items))
        self.kept: dict[int, torch.Tensor] = {}
        self.mean, self.deviation = (np.zeros((len(parts), users), np.float32) for _ in range(2))

    def blocks(self) -> list[slice]:
        """Stretches of users."""
        users = self.shape[1]
        return [slice(a, min(users, a + self.step)) for a in range(0, users, self.step)]

    def __call__(self, block: slice) -> torch.Tensor:
        """(P, n, I) float32; a user whose scores are all alike has zeros. Not to be written to."""
        if block.start in self.kept:
            return self.kept[block.start]
        out = torch.empty(len(self.parts), block.stop - block.start, self.shape[2])
        for p, part in enumerate(self.parts):
            scores = part.scores(block)
            mean = scores.mean(1, keepdim=True)
            torch.sub(scores, mean, out=out[p])
            deviation = torch.linalg.vector_norm(out[p], dim=1, keepdim=True) / self.shape[2] ** 0.5
            deviation[deviation <= 1e-5 * mean.abs() + 1e-30] = torch.inf
            out[p] /= deviation
            self.mean[p, block], self.deviation[p, block] = mean[:, 0].numpy(), deviation[:, 0].numpy()
        if len(self.kept) < self.room:
            self.kept[block.start] = out
        return out


@dataclasses.dataclass(frozen=True)
class Weights:
    """(P,) of parts, by how often an item was bought: w_p(n) = (warm_p n + cold_p C) / (n + C), C = WARM."""

    warm: Array
    cold: Array

    def of_parts(self, counts: Array) -> Array:
        """(P, I) float32."""
        share = counts / (counts + WARM)
        return np.asarray(np.outer(self.warm, share) + np.outer(self.cold, 1 - share), np.float32)


def add_up(split: Split, scores: Scores, weights: Weights, features: ItemFeatures | None, seed: int = 0) -> Factors:
    """The weighted sum of parts as two matrices and a bias."""
    left, right = (together if held(split) else side_by_side)(split, scores, weights, seed)
    head, shift = head_of(scores, weights, features, left)
    if shift is not None:
        right -= shift
    if left is None:
        left = np.eye(len(right.T), dtype=np.float32)
    curve = [point for part in scores.parts for point in part.curve]
    about = {"curve": curve, "scores_unseen": head is not None}
    return factors_of(split, left, right, head=head, about=about)


def held(split: Split) -> bool:
    """Whether the scores of everybody are few enough to be held."""
    users, items = split.train.shape
    return int(users) * int(items) <= HELD


def columns(split: Split, least: int, numbers: float = 1.5e7) -> int:
    """How many columns of all users and items are about so many numbers."""
    return int(np.clip(numbers / sum(split.train.shape), least, RANK))


def together(split: Split, scores: Scores, weights: Weights, seed: int) -> tuple[Array | None, Array]:
    """(U, K) and (I, K) of the weighted sum of the scores of everybody."""
    users, items = split.train.shape
    w = torch.from_numpy(weights.of_parts(split.item_counts))
    total = torch.zeros(users, items)
    with Progress("blend", users, "users") as bar:
        for block in scores.blocks():
            for z, of_items in zip(scores(block), w, strict=True):
                total[block].addcmul_(z, of_items)
            bar.advance(block.stop - block.start)
    scores.kept.clear()
    return matrices(total, split.train, seed)


def matrices(total: torch.Tensor, train: sp.csr_matrix, seed: int) -> tuple[Array | None, Array]:
    """(U, K) and (I, K) of the scores of everybody, exactly where there are at most EXACT users, K of them; else their
    leading RANK. Scores of what a user bought do not count: they stand out, and nobody is offered it. They become what
    the leading rank of the others makes of them, or the user's highest."""
    users, items = total.shape
    rows, columns = np.repeat(np.arange(users), np.diff(train.indptr)), train.indices.astype(np.int64)
    bought = torch.from_numpy(rows), torch.from_numpy(columns)
    if users <= EXACT:
        total[bought] = -torch.inf
        total[bought] = total.amax(1).nan_to_num_(neginf=0)[bought[0]]
        return None, total.T.contiguous().numpy()
    total[bought] = 0
    rank = min(RANK, items)
    basis = torch.from_numpy(np.random.default_rng(seed).standard_normal((items, min(items, rank + 64)), np.float32))
    with Progress("leading rank", SWEEPS + IMPUTED, "sweeps") as bar:
        for sweep in range(SWEEPS + IMPUTED):
            basis = torch.linalg.qr(basis)[0]
            left = total @ basis
            if sweep >= SWEEPS - 1:  # basis is orthonormal: left @ basis.T is the leading rank of the scores
                for a in range(0, len(rows), PAIRS):
                    u, i = bought[0][a : a + PAIRS], bought[1][a : a + PAIRS]
                    total[u, i] = (left[u] * basis[i]).sum(1)
                left = total @ basis
            basis = total.T @ left
            bar.advance(1)
    basis = torch.linalg.qr(basis)[0]
    u, s, v = torch.linalg.svd(total @ basis, full_matrices=False)
    return (u[:, :rank] * s[:rank].sqrt()).numpy(), (basis @ v[:rank].T * s[:rank].sqrt()).numpy()


def side_by_side(split: Split, scores: Scores, weights: Weights, seed: int) -> tuple[Array, Array]:
    """(U, K) and (I, K) of the same sum, from parts whose terms are dense: their factors, and of these the leading rank
    of the product, through the moments of both."""
    of_items = weights.of_parts(split.item_counts)
    lefts: Side = []
    rights: Side = []
    for p, part in enumerate(scores.parts):
        left, right = narrow(part)
        ones, zeros = np.ones(len(of_items.T), np.float32), np.zeros(sum(side.shape[1] for side in right), np.float32)
        mean = sum(rows.sum(0, dtype=np.float64) for rows in stretches([(right, ones, zeros)])) / len(ones)
        covariance = moments([(right, ones, mean.astype(np.float32))]) / len(ones)
        ones = np.ones(scores.shape[1], np.float32)
        both = [
            (rows @ mean, np.einsum("uk,uk->u", rows @ covariance, rows)) for rows in stretches([(left, ones, zeros)])
        ]
        scores.mean[p], variance = (np.concatenate(which) for which in zip(*both, strict=True))
        scores.deviation[p] = np.where(variance > 1e-12, variance, np.inf) ** 0.5
        if of_items[p].any():
            lefts.append((left, 1 / scores.deviation[p], zeros))
            rights.append((right, of_items[p], mean.astype(np.float32)))
    (a, of_a), (b, of_b) = (roots(moments(sides)) for sides in (lefts, rights))
    u, s, v = np.linalg.svd(a.T @ b)
    rank = min(len(s), columns(split, 128, 2e8))
    turns = of_a @ u[:, :rank] * s[:rank] ** 0.5, of_b @ v[:rank].T * s[:rank] ** 0.5
    return through(lefts, turns[0]), through(rights, turns[1])


def narrow(part: Part) -> tuple[list[Array], list[Array]]:
    """The columns of users and items of a part whose terms are dense, as they lie: a large one is not copied."""
    lefts, rights = ([term[side] for term in part.terms] for side in (0, 1))
    if part.bias is not None:
        lefts.append(np.ones((len(lefts[0]), 1), np.float32))
        rights.append(part.bias[:, None])
    return lefts, rights


Side = list[tuple[list[Array], Array, Array]]  # columns, (n,) what a row is multiplied by, what each column has less


def stretches(sides: Side) -> Iterator[Array]:
    """Rows of all parts side by side."""
    for a in range(0, len(sides[0][1]), ROWS):
        yield np.hstack(
            [(np.hstack([m[a : a + ROWS] for m in each]) - less) * by[a : a + ROWS, None] for each, by, less in sides]
        )


def through(sides: Side, turn: Array) -> Array:
    """All rows times a matrix."""
    out = np.empty((len(sides[0][1]), turn.shape[1]), np.float32)
    turn = turn.astype(np.float32)
    for a, rows in enumerate(stretches(sides)):
        out[a * ROWS : (a + 1) * ROWS] = rows @ turn
    return out


def moments(sides: Side) -> Array:
    total = np.zeros((0, 0))
    for rows in stretches(sides):
        product = (torch.from_numpy(rows).T @ torch.from_numpy(rows)).numpy()
        total = total + product if total.size else product.astype(np.float64)
    return total


def roots(moments: Array) -> tuple[Array, Array]:
    """A and what turns rows of these moments A A' into rows of orthonormal columns."""
    values, vectors = np.linalg.eigh(moments)
    keep = values > 1e-7 * values[-1]
    root = values[keep] ** 0.5
    return vectors[:, keep] * root, vectors[:, keep] / root


def head_of(
    scores: Scores, weights: Weights, features: ItemFeatures | None, left: Array | None
) -> tuple[Head | None, Array | None]:
    """What makes a vector of a new item's features, and what all vectors of the catalogue give up for it, so that it
    has no constant in it: for one user the same of every item. `left`: (U, K), None for the identity."""
    unseen = [(p, part.unseen) for p, part in enumerate(scores.parts) if part.unseen is not None and weights.cold[p]]
    if features is None or not unseen:
        return None, None

    def columns_of(wanted: Array) -> Array:
        """What of `left` comes nearest to what is wanted of users."""
        if left is None:
            return wanted
        return np.asarray(np.linalg.solve((left.T @ left).astype(np.float64), left.T @ wanted), np.float32)

    shift = np.zeros(scores.shape[1], np.float32)
    weight = np.zeros((0, 0))
    for p, (of_users, of_features) in unseen:
        share = (weights.cold[p] / scores.deviation[p]).astype(np.float32)
        shift -= share * scores.mean[p]
        each = columns_of(share[:, None] * of_users) @ of_features
        weight = weight + each if weight.size else each
    none = np.zeros_like(features.mean)
    return Head(features.mean, features.scale, np.asarray(weight, np.float32), none, unit=True), columns_of(shift)


def alone(split: Split, parts: list[Part], shares: list[float], features: ItemFeatures | None, seed: int) -> Factors:
    """A model of one part, or of several by constant shares."""
    scores = Scores(parts, *split.train.shape)
    return add_up(split, scores, Weights(np.array(shares), np.array(shares)), features, seed)


__all__ = ["WARM", "Part", "Scores", "Weights", "add_up", "alone", "columns", "held"]
