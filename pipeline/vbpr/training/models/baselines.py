"""What every trained model must beat: popularity, visual nearest neighbours, and chance."""

import numpy as np

from ...base.errors import VbprError
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ...stores.model.head import Head
from ..config import TrainConfig
from ..item_features import ItemFeatures
from ..model import factors_of
from .entry import Model


class Popularity:
    """score(u, i) = the number of train interactions of i: no columns, the bias alone."""

    def __init__(self, config: TrainConfig, checkpoint: object = None) -> None:
        pass

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        empty = np.zeros((split.train.shape[0], 0), np.float32), np.zeros((split.train.shape[1], 0), np.float32)
        return factors_of(split, *empty, split.item_counts, about={"scores_unseen": False})


class VisualKNN:
    """score(u, i) = the mean cosine of i's standardised features to those of what u took."""

    def __init__(self, config: TrainConfig, checkpoint: object = None) -> None:
        pass

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        if features is None:
            raise VbprError("--model knn needs --features")
        dim = len(features.mean)
        head = Head(features.mean, features.scale, np.eye(dim, dtype=np.float32), np.zeros(dim, np.float32), unit=True)
        items, _ = head.apply(features.standardised(np.arange(len(split.item_ids))).numpy())
        users = np.asarray(split.train @ items) / np.maximum(1, np.diff(split.train.indptr))[:, None]
        return factors_of(split, users, items, head=head)


class Random:
    """Scores at random: what an AUC of one half looks like under the same protocol."""

    def __init__(self, config: TrainConfig, checkpoint: object = None) -> None:
        self.seed = config.seed

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        rng = np.random.default_rng(self.seed)
        users, items = (rng.standard_normal((n, 8), np.float32) for n in split.train.shape)
        return factors_of(split, users, items, about={"scores_unseen": False})


POPULARITY = Model(Popularity)
KNN = Model(VisualKNN, visual=True)
RANDOM = Model(Random, reads=frozenset({"seed"}))

__all__ = ["KNN", "POPULARITY", "RANDOM", "Popularity", "Random", "VisualKNN"]
