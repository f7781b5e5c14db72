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
from .model import Diverged
from .models import MODELS

# What is copied from the provenance of a feature file: how a new photo must be encoded.
RECORDED = ("backbone", "weights", "weights_digest", "weights_file", "preprocessing", "precision", "fallback")


def fit(
    split: Split,
    features: ItemFeatures | None,
    config: TrainConfig,
    checkpoint: Path | None = None,
    images: ImageSource | None = None,
) -> Factors:
    """Fit one model; the factors know their configuration and learning curve.

    Raises:
        Diverged: its `factors`, of the best epoch before, know the same.
    """
    recommender = MODELS[config.model].build(config, checkpoint)
    try:
        factors = recommender.fit(split, features, images)
    except Diverged as error:
        if error.factors is not None:
            error.factors = described(error.factors, split, config)
        raise
    return described(with_average_tastes(factors), split, config)


def with_average_tastes(factors: Factors) -> Factors:
    """Give users without train interactions, whom training has not moved, the mean of the other users' vectors.

    A split by time leaves such users.
    """
    trained = factors.train.getnnz(axis=1) > 0
    if trained.all() or not trained.any():
        return factors
    users = factors.users.copy()
    users[~trained] = users[trained].mean(0, dtype=np.float64)
    return dataclasses.replace(factors, users=users)


def described(factors: Factors, split: Split, config: TrainConfig) -> Factors:
    """Factors whose `about` says how they were made: configuration, split, versions."""
    random, own = MODELS[config.model].images and config.network_weights == "random", MODELS[config.model].own
    about = {
        **factors.about,
        "model": config.model,
        "title": (config.model if own is None else own.title) + " (RANDOM weights)" * random,
        **({} if own is None else {"own": own.told()}),
        "config": config.to_json(),
        "split": split.rule,
        "dropped_users": split.dropped_users,
        **({"read_columns": dict(split.columns)} if split.columns else {}),
        "versions": versions(),
    }
    return dataclasses.replace(factors, about=about)


def made_from(factors: Factors, data: Dataset | None, stores: Sequence[FeatureStore], digests: list[str]) -> Factors:
    """Factors whose `about` also names the data set and the feature files, and whose title tells of random weights.

    Args:
        digests: of each of the feature files.
    """
    about = dict(factors.about)
    if data is not None:
        about |= {"data": data.name, "data_title": data.title, "simulated": data.simulated}
    about["features"] = [
        {"path": str(s.path.resolve()), "digest": d, **{k: s.provenance[k] for k in RECORDED if k in s.provenance}}
        for s, d in zip(stores, digests, strict=True)
    ]
    random = [s.provenance["backbone"] for s in stores if s.provenance["weights"] == "random"]
    if random and MODELS[factors.record.model].visual:
        about["title"] += f" (RANDOM weights: {some(random)})"
    return dataclasses.replace(factors, about=about)


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("vbpr", "torch", "numpy")}


__all__ = ["fit", "made_from", "versions"]
