"""A hybrid for popular, cold and never-seen items at once: four rankers, blended.

    score = V / sd(V) + .85 E / sd(E) + .2 S / sd(S) + .4 M / sd(M),   sd over the catalogue, for each user

V: the visual ranker (bpr.py). All its negatives are drawn by popularity, so that its scores do not depend on popularity
and it is good at cold items. E: EASE (ease.py), which also reconstructs each item from items that look alike to V: so
what buyers say of popular items reaches rarely bought ones. S: a low-pass filter of the interactions (spectral.py). M:
the mean of SEEDS latent BPR models with uniform negatives, whose item vectors are shrunk where an item has few buyers.
The weights were chosen by validation.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig, fields_of
from ..item_features import ItemFeatures
from .blend import blend, fit_part, unless_diverged
from .bprmf import DEFAULTS as BPRMF
from .ease import ease
from .entry import Model, Space
from .spectral import spectral
from .visual import SPACE as VISUAL_SPACE

WEIGHTS = {"visual": 1.0, "ease": 0.85, "low-pass": 0.2, "latent": 0.4}  # python bench/blend.py
SEEDS = 4  # latent models averaged
EASE: dict[str, Any] = {"penalty": 300.0, "share": 0.03}
MOST_BOUGHT = 15_000  # items in EASE: an (I, I) matrix of 0.9 GB; the others live by the other parts


class Hybrid:
    """The blend, fitted part by part; a killed run resumes in the part it was in.

    `dim` 0 leaves out the visual part, `factors` 0 the three others. Epochs, rates and penalties of the configuration
    are the visual part's.
    """

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None) -> None:
        self.config, self.checkpoint = config, checkpoint

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            Diverged: a part did; the model is made of its best epoch and of the others.
        """
        failures: list[str] = []
        parts = self.parts(split, features, failures)
        weighted = [(WEIGHTS[name], factors) for name, factors in parts.items()]
        return unless_diverged(blend(weighted, list(parts)), failures)

    def parts(self, split: Split, features: ItemFeatures | None, failures: list[str]) -> dict[str, Factors]:
        """The models that are blended, each fitted by itself, by their names in WEIGHTS. `failures`: see `fit_part`."""
        c = self.config
        parts: dict[str, Factors] = {}
        if c.dim or not c.factors:  # with neither, the visual part says what is wrong
            visual = c.changed(factors=0, item_bias=False)
            parts["visual"] = fit_part(visual, self.checkpoint, "visual", split, features, failures)
        if c.factors:
            looks = parts["visual"].items if c.dim else None
            popular = np.sort(np.argsort(-split.item_counts, kind="stable")[:MOST_BOUGHT])
            parts["ease"] = ease(split, popular, 12 * c.factors, c.seed, looks=looks, **EASE)
            parts["low-pass"] = spectral(split, 2 * c.factors, c.seed)
            of_bprmf = {**BPRMF, "factors": c.factors, "batch": c.batch}
            latent = [c.changed(**of_bprmf, seed=(c.seed * SEEDS + n + 1) % 2**31) for n in range(SEEDS)]
            parts["latent"] = mean(
                [fit_part(one, self.checkpoint, f"latent-{n}", split, None, failures) for n, one in enumerate(latent)]
            )
        return parts


def mean(models: list[Factors]) -> Factors:
    """The model whose scores are the mean of these models' scores: their factors side by side."""
    return dataclasses.replace(
        models[0],
        users=np.hstack([model.users for model in models]) / np.float32(len(models)),
        items=np.hstack([model.items for model in models]),
        bias=np.mean([model.bias for model in models], axis=0),
    )


SPACE: Space = {
    **VISUAL_SPACE,
    "factors": (16, 96, "log"),  # EASE keeps twelve times as many
    "shrink": (0.0, 20.0),
}
MODEL = Model(
    Hybrid,
    {"dim": 192, "axes": 0, "factors": 64, "item_bias": True, "popularity_share": 1.0, "epochs": 8, "batch": 512},
    fields_of("steps", "shared", "head", "features", "history", "latent"),
    SPACE,
    visual=True,
)

__all__ = ["MODEL", "Hybrid"]
