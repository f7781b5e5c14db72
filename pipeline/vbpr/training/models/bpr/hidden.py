"""A layer of rectified units beside the linear head, so that a look may count for more than the sum of its features.

    v_i = E f_i + V r_i,   r_i = sqrt(2 / H) max(0, W f_i)

W begins with independent normal entries, so that r_i is about as long as f_i (He et al. 2015), and V with zeros, so
that the first step starts from what `start.py` found for E. Users' histories stay with A: what taking an item says
beyond its features, y_i says already.
"""

import dataclasses

import torch
from torch import Tensor

from ...config import TrainConfig
from .adam import Gradients, Params
from .batches import Batch
from .start import ROWS, product


@dataclasses.dataclass(frozen=True)
class HiddenLayer:
    """What the layer adds to the encodings of a batch, and its gradients.

    Attributes:
        i: (B, C) V r of the positives. j: (B, C) or (N, C) of the negatives.
        f: (B + N, d) features of both. r: (B + N, H).
    """

    i: Tensor
    j: Tensor
    f: Tensor
    r: Tensor

    @classmethod
    def of(cls, p: Params, f: Tensor, batch: Batch) -> "HiddenLayer":
        """
        Args:
            f: (B + N, d) prepared features of positives and negatives.
        """
        r = units(f @ p["W"].to(f.dtype).T)
        out = (r @ p["V"].to(f.dtype).T).to(p["V"].dtype)
        return cls(out[: len(batch.i)], out[len(batch.i) :], f, r)

    def gradients(self, p: Params, d_i: Tensor, d_j: Tensor, c: TrainConfig) -> Gradients:
        """Of V and W, penalties included.

        Args:
            d_i, d_j: derivatives of the mean loss by the vectors of positives and negatives.
        """
        d = torch.cat([d_i, d_j]).to(self.f.dtype)
        d_r = (d @ p["V"].to(d.dtype)).mul_(gain(self.r.shape[1])).mul_(self.r > 0)
        return {
            "V": (None, (d.T @ self.r).to(p["V"].dtype) + c.reg_head * p["V"]),
            "W": (None, (d_r.T @ self.f).to(p["W"].dtype) + c.reg_head * p["W"]),
        }


def initial_layer(hidden: int, d: int, columns: int, generator: torch.Generator) -> Params:
    """W (hidden, d) and V (columns, hidden) before the first step."""
    device = generator.device
    w = torch.randn(hidden, d, generator=generator, device=device)
    return {"W": w, "V": torch.zeros(columns, hidden, device=device)}


def gain(hidden: int) -> float:
    """What rectified units are multiplied by: at the start half of them are at rest."""
    return float((2 / hidden) ** 0.5)


def units(z: Tensor) -> Tensor:
    """(n, H) r of W f, in place."""
    return z.clamp_(min=0).mul_(gain(z.shape[1]))


def encode(p: Params, x: Tensor, items: Tensor | None = None) -> Tensor:
    """(n, C) E f, and V r where there is such a layer, of some items (None: all), a block of rows at a time."""
    out = product(x, p["E"].T, items)
    if "W" in p:
        w, v = p["W"].T.to(x.dtype), p["V"].T.to(x.dtype)
        for a in range(0, len(out), ROWS):
            block = x[a : a + ROWS] if items is None else x.index_select(0, items[a : a + ROWS])
            out[a : a + ROWS] += units(block @ w) @ v
    return out


__all__ = ["HiddenLayer", "encode", "gain", "initial_layer"]
