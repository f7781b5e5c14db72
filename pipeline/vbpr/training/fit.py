"""Fit one model: factors that know how they were made, and of what."""

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..base.errors import some
from ..data.dataset import Dataset
from ..data.images.source import ImageSource
from ..data.split import Split
from ..stores.features.store import FeatureStore
from ..stores.model.factors import Factors
from .config import TrainConfig
from .item_features import ItemFeatures
from .models import MODELS
from .models.dvbpr.dvbpr import DVBPR

# Of a feature file: what a photo must go through.
RECORDED = ("backbone", "weights", "weights_digest", "weights_file", "preprocessing", "precision", "fallback")


def fit(
    split: Split,
    features: ItemFeatures | None,
    config: TrainConfig,
    checkpoint: Path | None = None,
    images: ImageSource | None = None,
) -> Factors:
    """Fit one model; the factors know their configuration and learning curve."""
    recommender = MODELS[config.model].build(config, checkpoint)
    if isinstance(recommender, DVBPR):
        recommender.images = images
    return described(with_average_tastes(recommender.fit(split, features)), split, config)


def with_average_tastes(factors: Factors) -> Factors:
    """Factors in which users without train interactions, as a split by time leaves some, have the mean of the others'
    vectors: what is liked on the whole. What training left there says nothing."""
    known = factors.train.getnnz(axis=1) > 0
    if known.all() or not known.any():
        return factors
    users = factors.users.copy()
    users[~known] = users[known].mean(0, dtype=np.float64)
    return dataclasses.replace(factors, users=users)


def described(factors: Factors, split: Split, config: TrainConfig) -> Factors:
    """Factors that know how they were made."""
    random = MODELS[config.model].images and config.network_weights == "random"
    about = {
        **factors.about,
        "model": config.model,
        "title": config.model + " (RANDOM weights)" * random,
        "config": config.to_json(),
        "split": split.rule,
        "dropped_users": split.dropped_users,
        "versions": versions(),
    }
    return dataclasses.replace(factors, about=about)


def made_from(factors: Factors, data: Dataset | None, stores: Sequence[FeatureStore], digests: list[str]) -> Factors:
    """Factors that know the data set and the feature files behind them, and say so where the weights were random."""
    about = dict(factors.about)
    if data is not None:
        about |= {"data": data.name, "data_title": data.title, "simulated": data.simulated}
    about["features"] = [
        {"path": str(s.path.resolve()), "digest": d, **{k: s.provenance[k] for k in RECORDED if k in s.provenance}}
        for s, d in zip(stores, digests, strict=True)
    ]
    random = [s.provenance["backbone"] for s in stores if s.provenance["weights"] == "random"]
    if random and MODELS[about["model"]].visual:
        about["title"] += f" (RANDOM weights: {some(random)})"
    return dataclasses.replace(factors, about=about)


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("vbpr", "torch", "numpy")}


__all__ = ["described", "fit", "made_from", "versions"]
