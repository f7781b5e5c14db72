"""The models of the implicit library: `als` (Hu et al. 2008) and `bpr`, whose negatives are drawn by popularity."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from ...base.progress import Progress
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig
from ..item_features import ItemFeatures
from ..model import HISTORY_ONLY, factors_of, some_factors
from .entry import Model


@dataclasses.dataclass(frozen=True)
class Implicit:
    """A model of the implicit library; its BPR draws negatives by popularity and keeps the bias in a last column.

    One thread each: with more, its results depend on which comes first."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`."""
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        c = self.config
        some_factors(c)
        common = {
            "factors": c.factors,
            "iterations": c.epochs,
            "random_state": c.seed,
            "regularization": c.reg_items,
            "num_threads": 1,
        }
        count = split.train.nnz
        with warnings.catch_warnings(), Progress(f"train {c.model}", count * c.epochs, "positives") as bar:
            warnings.simplefilter("ignore")
            if c.model == "als":
                model = AlternatingLeastSquares(alpha=c.alpha, **common)
            else:
                model = BayesianPersonalizedRanking(learning_rate=c.lr, **common)
            model.fit(split.train, show_progress=False, callback=lambda *_: bar.advance(count))
        return factors_of(split, model.user_factors, model.item_factors, about=HISTORY_ONLY)


ALS = Model(
    Implicit,
    {"dim": 0, "factors": 64, "epochs": 15, "reg_items": 200.0},
    frozenset({"factors", "epochs", "reg_items", "alpha", "seed"}),
    {
        "factors": (16, 256, "log"),
        "epochs": (5, 40),
        "alpha": (1.0, 200.0, "log"),
        "reg_items": (0.1, 1000.0, "log"),
    },
)
BPR_DEFAULTS: dict[str, Any] = {"dim": 0, "factors": 64, "epochs": 300, "reg_items": 0.08, "lr": 0.08}
BPR = Model(
    Implicit,
    BPR_DEFAULTS,
    frozenset({"factors", "epochs", "lr", "reg_items", "seed"}),
    {
        "factors": (16, 256, "log"),
        "epochs": (50, 600, "log"),
        "lr": (3e-3, 0.1, "log"),
        "reg_items": (1e-3, 0.3, "log"),
    },
)

__all__ = ["ALS", "BPR", "BPR_DEFAULTS", "Implicit"]
