"""The two-stage visual ranker: BPR of a head on frozen features; see `bpr.bpr`.

Where popularity alone ranks the validation items better, images say little of what people take. The score then is
z_visual + w z_popularity, each in units of the user's deviation, w the one of WEIGHTS of the highest validation AUC.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...base.arrays import Array
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig, fields_of
from ..item_features import ItemFeatures
from ..model import factors_of
from .blend import blend
from .bpr.bpr import BPR
from .bpr.validation import CurveSample
from .chooser import FEWEST
from .dvbpr.dvbpr import PUBLISHED
from .entry import Model, Space


@dataclasses.dataclass(frozen=True)
class Visual:
    """The ranker, with popularity where validation items ask for it."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            Diverged: the loss or a parameter is not finite.
        """
        factors = BPR(self.config, self.checkpoint).fit(split, features)
        if not self.config.popular:
            return factors
        # of one shard, the curve is of the users that popularity is then judged by; else of others
        known = [auc for point in factors.record.curve if (auc := point.get("auc")) is not None]
        return with_popularity(split, factors, max(known) if known and self.config.shards == 1 else None)


def with_popularity(split: Split, factors: Factors, alone: float | None = None) -> Factors:
    """The factors; where popularity is the better ranker of at least FEWEST validation items, with it.

    Args:
        alone: validation AUC of the factors, as `CurveSample(split)` has it; None: not known.
    """
    sample = CurveSample(split)
    if len(sample.users) < FEWEST:
        return factors

    of_users, of_items = sample.wanted(torch.device("cpu"))

    def auc(f: Factors) -> float:
        users, items, bias = (torch.from_numpy(a) for a in (f.users, f.items, f.bias))
        users = users if of_users is None else users[of_users]
        return sample.auc(users, *(a if of_items is None else a[of_items] for a in (items, bias))) or 0.0

    users, items = (np.zeros((n, 0), np.float32) for n in split.train.shape)
    popularity = factors_of(split, users, items, log_popularity(split.item_counts))
    alone = auc(factors) if alone is None else alone
    if alone >= auc(popularity):
        return factors
    names = ["visual", "popularity"]
    blends = ((w, blend([(1.0, factors), (w, popularity)], names)) for w in WEIGHTS)
    reached, weight, best = max(((auc(each), w, each) for w, each in blends), key=lambda found: found[0])
    told = {"weight": weight, "auc": round(reached, 4), "auc_without": round(alone, 4)}
    return dataclasses.replace(best, about=factors.about | {"popularity": told})


def log_popularity(counts: Array) -> Array:
    """(I,) log(1 + purchases) less its mean; 0 for an item that nobody took, as for a new one: it is not known."""
    log = np.log1p(counts)
    return np.where(counts > 0, log - log.mean(), 0)


WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # of popularity
DEFAULTS: dict[str, Any] = {"popularity_share": 0.4}
READS = fields_of(
    "steps", "shared", "head", "hidden", "features", "history", "latent", "bias", "shards"
)  # of `vbpr`, too
SPACE: Space = {
    "dim": (16, 256, "log"),
    "whiten": (0.0, 1.0),
    "axes": [0, 256, 512, 1024],
    "epochs": (2, 12),
    "lr": (1e-3, 0.1, "log"),
    "reg_users": (1e-3, 0.3, "log"),
    "reg_head": (1e-5, 1e-2, "log"),
    "shared_negatives": (64, 512, "log"),
    "popularity_share": (0.0, 1.0),
}
# As in the report of 2021, which trained it as DVBPR was.
REPORT: dict[str, Any] = {
    **PUBLISHED,
    "reg_head": 2e-3 / 128,  # the report's penalty has no half
    "factors": 0,
    "item_bias": False,
    "visual_bias": False,
    "history": False,
    "unit": False,
    "whiten": 0.0,
    "shared_negatives": 0,
    "popular": False,
}
MODEL = Model(Visual, DEFAULTS, READS | fields_of("popular"), SPACE, {"report": REPORT}, visual=True)

__all__ = ["MODEL", "READS", "SPACE", "Visual"]
