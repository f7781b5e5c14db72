"""EASE (Steck, 2019): scores X B, B of zero diagonal that minimises |X - X B|^2 + l |B|^2, kept to its leading rank.

With `looks`, coordinates of the items, the features of a kernel of them are further rows of X, which B has to
reconstruct as well (collective EASE; Jeunen et al. 2020): items that look alike then stand in for each other.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ...base.arrays import Array
from ...base.errors import VbprError
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig
from ..item_features import ItemFeatures
from ..model import HISTORY_ONLY, factors_of, some_factors
from .entry import Model
from .singular import leading

EASE_ITEMS = 25_000  # EASE inverts an (I, I) matrix: three of 2.5 GB, and about a minute at this size


@dataclasses.dataclass(frozen=True)
class EASE:
    """score(u, i) = (X B)_ui, X B kept to its `factors` leading singular values; `reg_items` is lambda."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            VbprError: the catalogue is too large for an (I, I) inverse.
        """
        some_factors(self.config)
        taken = np.flatnonzero(split.item_counts)  # an item nobody took has a row and column of zeros in B
        if len(taken) > EASE_ITEMS:
            raise VbprError(
                f"--model ease inverts an items x items matrix: {len(taken):,} bought items are more than its "
                f"{EASE_ITEMS:,}; use --model hybrid, which takes the most bought of them, or --model als"
            )
        return ease(split, taken, self.config.factors, self.config.seed, self.config.reg_items)


def ease(
    split: Split, among: Array, rank: int, seed: int, penalty: float, looks: Array | None = None, share: float = 0.0
) -> Factors:
    """score(u, i) = (X B)_ui among some items (positions), its `rank` leading singular values; else 0.

    B has a zero diagonal and minimises |X - X B|^2 + penalty (|B|^2 + share |F - F B|^2), F'F = the kernel of `looks`.

    Args:
        looks: (I, d) coordinates of the items, or None; two items' kernel is exp((cosine - 1) / KERNEL_WIDTH).
    """
    x = split.train[:, among]
    gram = torch.from_numpy((x.T @ x).toarray().astype(np.float32))
    if looks is not None:
        unit = F.normalize(torch.from_numpy(looks[among]), dim=1, eps=1e-12)
        gram.add_((unit @ unit.T).sub_(1).div_(KERNEL_WIDTH).exp_(), alpha=penalty * share)
    gram.diagonal().add_(penalty)
    try:
        b = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    except RuntimeError as error:
        raise VbprError(f"EASE cannot be solved with a penalty of {penalty:g}; raise reg_items") from error
    b.div_(-b.diagonal().clone())
    b.fill_diagonal_(0)
    left, values, right = leading([x, b.numpy()], min(rank, len(among) - 1), seed)
    items = np.zeros((len(split.item_ids), len(values)), np.float32)
    items[among] = right.T
    return factors_of(split, left * values, items, about=HISTORY_ONLY)


KERNEL_WIDTH = 0.4
MODEL = Model(
    EASE,
    {"dim": 0, "factors": 256, "reg_items": 400.0},
    frozenset({"factors", "reg_items", "seed"}),
    {"factors": (32, 512, "log"), "reg_items": (10.0, 5000.0, "log")},
)

__all__ = ["EASE", "MODEL", "ease"]
