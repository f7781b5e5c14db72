"""Of what was learnt, the model: vectors of users and items, and a head for items that are new."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....base.arrays import Array
from ....data.split import Split
from ....stores.model.factors import Factors
from ...config import TrainConfig
from ...item_features import ROWS
from ...model import factors_of
from .adam import Params
from .inputs import Projection
from .parameters import latent_items


def factors_from(
    split: Split,
    users: Array,
    best: Params,
    shrink: Tensor,
    projection: Projection | None,
    c: TrainConfig,
    curve: list[dict[str, float]],
) -> Factors:
    """The model of the best epoch.

    Args:
        users: (U, K) vectors. best: the parameters that users share. shrink: see `Inputs`.
    """
    latent, bias_of = latent_items(best, shrink)
    if projection is None:
        assert latent is not None
        about: dict[str, Any] = {"curve": curve, "scores_unseen": False}
        items, bias = (t.float().cpu().numpy() for t in (latent, bias_of))
        return factors_of(split, users, items, bias, None, about)
    head = projection.head(best, users.shape[1], c.visual_bias)
    items, bias = np.empty((len(bias_of), users.shape[1]), np.float32), bias_of.cpu().numpy()
    if latent is not None:
        items[:, c.dim :] = latent.cpu().numpy()
    # exact float32 vectors: what training read was rounded
    weight = torch.from_numpy(np.vstack([head.weight[: c.dim], head.bias_weight])).to(bias_of.device)
    for a in range(0, len(items), ROWS):
        z = projection.rows(np.arange(a, min(len(items), a + ROWS)))
        exact = (z @ weight.T).cpu().numpy()
        if head.hidden is not None:
            exact += head.beyond(z.cpu().numpy())[:, np.r_[: c.dim, -1]]
        items[a : a + ROWS, : c.dim] = exact[:, :-1]
        bias[a : a + ROWS] = exact[:, -1] + bias[a : a + ROWS]
    about = {"curve": curve, "scores_unseen": True}
    if c.factors:  # side by side
        about["columns"] = [{"part": "visual", "columns": c.dim}, {"part": "latent", "columns": c.factors}]
    return factors_of(split, users, items, bias, head, about)


__all__ = ["factors_from"]
