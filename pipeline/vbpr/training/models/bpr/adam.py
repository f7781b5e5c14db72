"""Adam (Kingma & Ba, 2015) over whole parameters, and over those of their rows that a batch touches."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Params = dict[str, Tensor]
Gradients = dict[str, tuple[Tensor | None, Tensor]]  # distinct rows (None: all of them), gradient


class Adam:
    """A parameter with rows moves, and its moments decay, in the rows of the batch only."""

    def __init__(self, params: Params, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.m = {name: torch.zeros_like(value) for name, value in params.items()}
        self.v = {name: torch.zeros_like(value) for name, value in params.items()}
        self.beta1, self.beta2, self.eps, self.t = beta1, beta2, eps, 0

    def step(self, params: Params, grads: Gradients, lr: float) -> None:
        self.t += 1
        rate = lr / (1 - self.beta1**self.t)
        correction = (1 - self.beta2**self.t) ** 0.5
        for name, (rows, grad) in grads.items():
            p, m, v = params[name], self.m[name], self.v[name]
            if rows is None:
                m.lerp_(grad, 1 - self.beta1)
                v.mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
                p.addcdiv_(m, v.sqrt().div_(correction).add_(self.eps), value=-rate)
                continue
            first = m.index_select(0, rows).lerp_(grad, 1 - self.beta1)
            second = v.index_select(0, rows).mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
            m.index_copy_(0, rows, first)
            v.index_copy_(0, rows, second)
            spread = second.sqrt_().div_(correction).add_(self.eps)
            p.index_copy_(0, rows, p.index_select(0, rows).addcdiv_(first, spread, value=-rate))


def summed(
    rows: Tensor, grad: Tensor, source: Tensor | None = None, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Distinct rows, ascending, and for each the sum over its entries of `weight` x grad[source], in a fixed order.

    Args:
        rows: (m,). grad: (n, ...). source: (m,) row of grad (None: m = n, each its own). weight: (m,) (None: 1).
    """
    order, ascending = stable_order(rows)
    unique, counts = torch.unique_consecutive(ascending, return_counts=True)
    flat, starts = grad.reshape(len(grad), -1), counts.cumsum(0) - counts
    total = F.embedding_bag(
        order if source is None else source.index_select(0, order),
        flat,
        starts,
        mode="sum",
        per_sample_weights=None if weight is None else weight.index_select(0, order),
    )
    return unique, total.reshape(len(unique), *grad.shape[1:])


def stable_order(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where ascending rows lie, equal ones in their order, and the rows in that order."""
    bits = len(rows).bit_length()
    keys = (rows << bits) + torch.arange(len(rows), device=rows.device)
    # on the CPU NumPy sorts by vector instructions, ten times as fast as torch
    keys = torch.from_numpy(np.sort(keys.numpy())) if rows.device.type == "cpu" else keys.sort().values
    return keys & ((1 << bits) - 1), keys >> bits


__all__ = ["Adam", "Gradients", "Params", "summed"]
