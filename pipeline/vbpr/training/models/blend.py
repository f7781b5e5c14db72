"""Models of several parts: each trained on its own, then added in units of its deviation."""

import dataclasses
from pathlib import Path

import numpy as np

from ...base.arrays import Array
from ...data.split import Split
from ...stores.model.factors import Factors
from ...stores.model.head import Head
from ..config import TrainConfig
from ..item_features import ItemFeatures
from ..model import Diverged
from .bpr.bpr import BPR


def fit_part(
    config: TrainConfig,
    checkpoint: Path | None,
    name: str,
    split: Split,
    features: ItemFeatures | None,
    failures: list[str],
) -> Factors:
    """Train a part by itself, with a checkpoint of its own that stays until the whole model is done.

    If training diverges, the message is added to `failures`, and the part is that of its best epoch.

    Raises:
        Diverged: in the first epoch, so that there is no such part.
    """
    own_checkpoint = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}-{name}")
    try:
        return BPR(config, own_checkpoint, part=True).fit(split, features)
    except Diverged as error:
        if error.factors is None:
            raise
        failures.append(str(error))  # the error itself would keep the training's tensors in memory
        return error.factors


def unless_diverged(factors: Factors, failures: list[str]) -> Factors:
    """The blended model.

    Raises:
        Diverged: with the model, if a part failed.
    """
    if failures:
        raise Diverged(failures[0], factors)
    return factors


def blend(parts: list[tuple[float, Factors]], names: list[str]) -> Factors:
    """The weighted sum of named models, each divided, for each user, by the standard deviation of its scores.

    A bias divided by a user's deviation is one more column. New items get their vector from the parts that have a head.
    """
    users: list[Array] = []
    items: list[Array] = []
    heads: list[tuple[Head | None, int, bool]] = []
    for weight, part in parts:
        scale = (weight / deviation(part))[:, None]
        biased = bool(part.bias.any())
        users += [part.users * scale] + [scale] * biased
        items += [part.items] + [part.bias[:, None]] * biased
        heads.append((part.head, part.items.shape[1], biased))
    first = parts[0][1]
    curve = [
        {**point, "part": name} for name, (_, part) in zip(names, parts, strict=True) for point in part.record.curve
    ]
    return dataclasses.replace(
        first,
        users=np.hstack(users).astype(np.float32),
        items=np.hstack(items).astype(np.float32),
        bias=np.zeros(len(first.item_ids), np.float32),
        head=stack(heads),
        about={
            "curve": curve,
            "scores_unseen": any(head is not None for head, _, _ in heads),
            "columns": [
                {"part": name, "columns": columns + biased}
                for name, (_, columns, biased) in zip(names, heads, strict=True)
            ],
        },
    )


def stack(heads: list[tuple[Head | None, int, bool]]) -> Head | None:
    """One head for the columns of all parts: weights, bias weights as one more row, zeros for a part without a head. Of
    these at most one has a hidden layer."""
    known = next((head for head, _, _ in heads if head is not None), None)
    if known is None:
        return None

    def stacked(rows: list[Array | None]) -> Array:
        width = next(len(of[0]) for of in rows if of is not None)
        parts = []
        for of, (_, columns, biased) in zip(rows, heads, strict=True):
            both = np.zeros((columns + 1, width), np.float32) if of is None else of
            parts.append(both if biased else both[:-1])
        return np.vstack(parts)

    weight = stacked([None if head is None else np.vstack([head.weight, head.bias_weight]) for head, _, _ in heads])
    none = np.zeros(len(known.mean), np.float32)
    if known.outer is None:
        return dataclasses.replace(known, weight=weight, bias_weight=none)
    outer = stacked([None if head is None else head.outer for head, _, _ in heads])
    outer = np.vstack([outer, np.zeros_like(outer[:1])])
    return dataclasses.replace(known, weight=weight, bias_weight=none, outer=outer)


def deviation(factors: Factors) -> Array:
    """(U,) the standard deviation of each user's scores over the catalogue, from the factors alone."""
    users = np.hstack([factors.users, np.ones((len(factors.users), 1), np.float32)])
    items = np.hstack([factors.items, factors.bias[:, None]]).astype(np.float64)
    items -= items.mean(0)
    covariance = items.T @ items / len(items)
    variance = np.einsum("uk,uk->u", users @ covariance, users)
    spread: Array = np.sqrt(np.maximum(variance, 1e-12)).astype(np.float32)
    return spread


__all__ = ["blend", "fit_part", "unless_diverged"]
