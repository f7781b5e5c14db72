"""What a model must do to be trained, evaluated, asked and shown: turn a split and features into factors."""

from typing import Any, Protocol

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..data.images.source import ImageSource
from ..data.split import Split
from ..stores.model.factors import Factors
from ..stores.model.head import Head
from .config import TrainConfig
from .item_features import ItemFeatures


def factors_of(
    split: Split,
    users: Array,
    items: Array,
    bias: Array | None = None,
    head: Head | None = None,
    about: dict[str, Any] | None = None,
) -> Factors:
    """Factors fitted under a split, as float32; without a bias it is zero."""
    return Factors(
        np.ascontiguousarray(users, np.float32),
        np.ascontiguousarray(items, np.float32),
        np.zeros(len(items), np.float32) if bias is None else np.ascontiguousarray(bias, np.float32),
        split.user_ids,
        split.item_ids,
        split.train,
        split.validation,
        split.test,
        head,
        about or {},
    )


class Recommender(Protocol):
    """A model that can be fitted."""

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """Fit to `split.train`; `split.validation` may choose the epoch, whose candidates `split.test` is left out of.

        Args:
            features: None for models that use none.
            images: the catalogue's pictures, for models that learn from them.
        """
        ...


class Diverged(VbprError):
    """Training went to infinity. `factors`: the model of the best epoch before, or None."""

    def __init__(self, message: str, factors: Factors | None) -> None:
        super().__init__(message)
        self.factors = factors


HISTORY_ONLY = {"scores_unseen": False}  # these know an item by its history alone


def some_factors(c: TrainConfig) -> None:
    """Refuse a model whose one part is switched off."""
    if not c.factors:
        raise VbprError(f"--factors is 0: --model {c.model} has nothing else; give it a size")


__all__ = ["HISTORY_ONLY", "Diverged", "Recommender", "factors_of", "some_factors"]
