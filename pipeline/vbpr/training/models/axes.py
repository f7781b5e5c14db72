"""The leading principal axes of a catalogue's standardised features at length one."""

import numpy as np
import torch

from ...base.arrays import Array
from ..item_features import ROWS, ItemFeatures


def axes(features: ItemFeatures | None, items: int, count: int = 256) -> tuple[Array, Array]:
    """Coordinates (I, d), mean squared length one, and the map (d, D) that makes them of standardised features at
    length one; d is at most `count`, half as many of more than MANY items, and 0 without features."""
    if features is None:
        return np.zeros((items, 0), np.float32), np.zeros((0, 0), np.float32)

    def rows(a: int) -> torch.Tensor:
        block = features.standardised(np.arange(a, min(items, a + ROWS)))
        return torch.nn.functional.normalize(block, dim=1, eps=1e-12)

    wide, count = len(features.mean), count if items <= MANY else min(count, 128)
    moments = torch.zeros(wide, wide)
    for a in range(0, items, ROWS):
        z = rows(a)
        moments.addmm_(z.T, z)
    values, vectors = torch.linalg.eigh(moments)
    keep = min(count, int((values > 1e-6 * values[-1]).sum()))
    turn = vectors[:, -keep:].flip(1)
    out = torch.cat([rows(a) @ turn for a in range(0, items, ROWS)])
    scale = out.square().sum(1).mean().sqrt()
    return (out / scale).numpy(), (turn.T / scale).contiguous().numpy()


MANY = 200_000

__all__ = ["axes"]
