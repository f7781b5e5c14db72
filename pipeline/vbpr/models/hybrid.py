"""A hybrid for popular, cold and never-seen items at once: the visual ranker and three collaborative ones, blended.

    score = V / sd(V) + .3 S1 / sd(S1) + .1 S2 / sd(S2) + .2 M / sd(M),   sd over the catalogue, for each user

V: the visual ranker (bpr.py), all of whose negatives are drawn by popularity, so that it says nothing of it and is good
at cold items. S1, S2: spectral filters (collaborative.py), one that takes popularity out and favours the strong
directions, and one that keeps it. M: the mean of a few latent BPR models with uniform negatives, their item side
shrunk by how often an item was bought. The weights were chosen by validation; unseen items live by V alone.
"""

import dataclasses
from pathlib import Path

import numpy as np

from ..factors import Factors
from ..interactions import Split
from ..recommender import ItemFeatures
from .bpr import BPR, BPRMF
from .collaborative import spectral
from .config import TrainConfig
from .vbpr import beside, blend

WEIGHTS = {"visual": 1.0, "spectral": 0.3, "low-pass": 0.1, "latent": 0.2}  # python bench/blend.py
SEEDS = 4  # latent models averaged


class Hybrid:
    """The blend, fitted part by part; a killed run resumes at the part it was in."""

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None) -> None:
        self.config, self.checkpoint = config, checkpoint

    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`."""
        parts = self.parts(split, features)
        return blend([(WEIGHTS[name], part) for name, part in parts.items()], list(parts))

    def parts(self, split: Split, features: ItemFeatures | None) -> dict[str, Factors]:
        """What is blended, each fitted on its own; the names are those of WEIGHTS."""
        c = self.config
        visual = c.changed(factors=0, item_bias=False)
        given = {**BPRMF, "factors": c.factors}
        latent = [c.changed(**given, seed=c.seed * SEEDS + n) for n in range(SEEDS)]
        return {
            "visual": BPR(visual, beside(self.checkpoint, "visual")).fit(split, features),
            "spectral": spectral(split, 4 * c.factors, c.seed, exponent=0.25, power=2.0),
            "low-pass": spectral(split, 2 * c.factors, c.seed),
            "latent": mean(
                [BPR(one, beside(self.checkpoint, f"latent-{n}")).fit(split, None) for n, one in enumerate(latent)]
            ),
        }


def mean(models: list[Factors]) -> Factors:
    """The model whose scores are the mean of these models' scores: their factors side by side."""
    return dataclasses.replace(
        models[0],
        users=np.hstack([model.users for model in models]) / np.float32(len(models)),
        items=np.hstack([model.items for model in models]),
        bias=np.mean([model.bias for model in models], axis=0),
    )


__all__ = ["Hybrid"]
