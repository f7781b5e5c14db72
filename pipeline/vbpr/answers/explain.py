"""Why a model gives an item the score that it has for a user: what each thing that the user took has to do with it.

    score(u, i) = sum over j that u took of share_j + constant + bias_i + rest

explain("artifacts/inc.model.h5", "A0", "B00A1").shares
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from ..base.arrays import Array
from ..data.dataset import Dataset
from ..stores.model.factors import Factors

RIDGE = 0.01  # of the mean square of an item's direction: weights of items that say the same are alike
SAME = 1e-3  # how far, of its length, a taste may be from its rule: what float32 and iterations leave open


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A score, and what it is the sum of.

    Attributes:
        user, item: ids. score: the model's, = sum(shares) + constant + bias + rest.
        history, shares: (n,) ids of the user's train items and what each adds, largest first.
        constant: what the item gets from anybody with a taste. bias: the item's own, the same for all.
        rest: what the shares leave unexplained.
        exact: whether the taste is the sum over the history that `method` names; else it is near to one.
        explained: share of the variance of the user's scores over the catalogue that the sum without `rest` has; 1
            where it is exact, None where the scores do not vary.
        place: of the item among those that the user does not have, 1 the best; None where the user has it.
        parts: of a blend: part and share of the score where the file keeps their columns, else part and the weights of
            items that sell (warm) and hardly do (cold).
        bought, popularity_place, items: train purchases of the item, its place by them, and how many items there are.
    """

    user: str
    item: str
    score: float
    history: list[str]
    shares: list[float]
    constant: float
    bias: float
    rest: float
    exact: bool
    method: str
    explained: float | None
    place: int | None
    parts: list[dict[str, Any]]
    bought: int
    popularity_place: int
    items: int

    def to_json(self, k: int = 5) -> dict[str, Any]:
        """The same as JSON values, with the k largest shares, and the sum of the others."""
        pairs = list(zip(self.history, self.shares, strict=True))
        return {
            "user": self.user,
            "item": self.item,
            "score": self.score,
            "place": self.place,
            "because": [{"item_id": item_id, "share": share} for item_id, share in pairs[:k]],
            "others": {"items": len(pairs[k:]), "share": float(sum(self.shares[k:]))},
            "constant": self.constant,
            "bias": self.bias,
            "rest": self.rest,
            "exact": self.exact,
            "method": self.method,
            "explained": self.explained,
            "parts": self.parts,
            "popularity": {"purchases": self.bought, "place": self.popularity_place, "items": self.items},
        }


def explain(model: Path | str, user: str, item: str, data: str | None = None) -> tuple[Explanation, Factors, Dataset]:
    """Why a user gets an item, with the model and the data set that has its pictures.

    Args:
        data: the data set, where it is not the one on record.

    Raises:
        VbprError: the model has no such user or item, or there is no such data set.
    """
    factors = Factors.load(model)
    found = explanation(factors, factors.user_index(user), factors.item_index(item))
    return found, factors, Dataset.behind(factors.record.data, data)


def explanation(factors: Factors, user: int, item: int) -> Explanation:
    """Why a user (by position) gets an item (by position)."""
    vector, taste = factors.items[item].astype(np.float64), factors.users[user].astype(np.float64)
    bias, score = float(factors.bias[item]), float(vector @ taste) + float(factors.bias[item])
    took = factors.train.indices[factors.train.indptr[user] : factors.train.indptr[user + 1]]
    directions, constant, exact, method = composition(factors, took, taste)
    shares = directions @ vector
    base = float(constant @ vector)
    order = np.argsort(-shares, kind="stable")
    scores = factors.scores(np.array([user]))[0]
    seen = factors.seen_by(user)
    others = np.ones(len(scores), bool)
    others[seen] = False
    counts = factors.train.getnnz(axis=0)
    return Explanation(
        user=str(factors.user_ids[user]),
        item=str(factors.item_ids[item]),
        score=score,
        history=factors.item_ids[took[order]].tolist(),
        shares=shares[order].tolist(),
        constant=base,
        bias=bias,
        rest=score - bias - base - float(shares.sum()),
        exact=exact,
        method=method,
        explained=explained(factors, scores, directions.sum(0) + constant),
        place=1 + int((scores[others] > scores[item]).sum()) if others[item] else None,
        parts=parts_of(factors, vector, taste),
        bought=int(counts[item]),
        popularity_place=1 + int((counts > counts[item]).sum()),
        items=len(counts),
    )


def composition(factors: Factors, took: Array, taste: Array) -> tuple[Array, Array, bool, str]:
    """(n, K) what each thing that a user took adds to their taste, (K,) what is the same for all, whether the sum is
    the taste (K,), and by which rule."""
    none = np.zeros_like(taste)
    if not len(taste):
        return np.zeros((len(took), 0)), none, True, "the bias alone: the model has no tastes"
    if len(took):
        rule = RULES.get(factors.record.model)
        directions = none[None] if rule is None else rule[0](factors, took)
        if np.linalg.norm(directions.sum(0) - taste) <= SAME * np.linalg.norm(taste):
            return directions, none, True, RULES[factors.record.model][1]
    if not len(took):
        return np.zeros((0, len(taste))), taste, True, "the taste alone: the user has no train items"
    constant = factors.fold_in(np.zeros((1, len(taste)), np.float32)).astype(np.float64)
    each = np.stack([factors.fold_in(factors.items[j]) for j in took]) - constant
    return each * weights_of(factors, each, taste - constant)[:, None], constant, False, APPROXIMATE


def weights_of(factors: Factors, directions: Array, wanted: Array) -> Array:
    """(n,) weights, none negative, by which directions (n, K) come nearest to a taste (K,) in the scores that they give
    the catalogue: a ridge regression."""
    centred = factors.items - factors.items.mean(0)
    profiles, target = centred @ directions.T, centred @ wanted
    gram = (profiles.T @ profiles).astype(np.float64)
    gram[np.diag_indices_from(gram)] += RIDGE * max(np.trace(gram), 1e-12) / len(gram)
    root = np.linalg.cholesky(gram)
    return np.asarray(nnls(root.T, np.linalg.solve(root, profiles.T @ target))[0])


def explained(factors: Factors, scores: Array, taste: Array) -> float | None:
    """The share of the variance of scores (I,) that those of another taste (K,), with the same biases, have of it."""
    wanted, near = scores - factors.bias, factors.items @ taste
    wanted, near = wanted - wanted.mean(), near - near.mean()
    total = float(wanted @ wanted)
    return None if total <= 1e-12 else 1 - float((wanted - near) @ (wanted - near)) / total


def mean_of_history(factors: Factors, took: Array) -> Array:
    """knn: the mean of the vectors of what was taken."""
    return factors.items[took].astype(np.float64) / len(took)


def filtered(factors: Factors, took: Array) -> Array:
    """spectral: U S = n_u^-1/2 X n_i^-1/2 V, and the vector of an item is n_i^1/2 V_i."""
    counts = factors.train.getnnz(axis=0)[took]
    return np.asarray(factors.items[took] / counts[:, None] / len(took) ** 0.5, np.float64)


RULES: dict[str, tuple[Callable[[Factors, Array], Array], str]] = {  # models whose tastes are sums over the history
    "knn": (mean_of_history, "the mean of the vectors of what the user took"),
    "spectral": (filtered, "the sum of the vectors of what the user took, each over its purchases"),
}
APPROXIMATE = (
    "the taste is nearly a weighted sum of what the model's users teach of each thing that the user took (fold-in), "
    "weights by ridge regression, none negative"
)


def parts_of(factors: Factors, vector: Array, taste: Array) -> list[dict[str, Any]]:
    """What each part of a blend adds, by the columns on record; else their weights, where these are on record."""
    products, start, parts = vector * taste, 0, []
    for entry in factors.record.columns:
        end = start + entry["columns"]
        parts.append({"part": entry["part"], "share": float(products[start:end].sum())})
        start = end
    names = ("part", "warm", "cold")
    return parts or [{name: entry[name] for name in names} for entry in factors.record.blend]


__all__ = ["Explanation", "explain", "explanation"]
