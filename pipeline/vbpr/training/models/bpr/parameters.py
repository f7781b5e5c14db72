"""The parameters of a model before the first step, and the vectors that they make."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ....data.split import Split
from ...config import TrainConfig
from .adam import Params
from .inputs import Inputs
from .start import product, starting_point


def initial(split: Split, q: Inputs, c: TrainConfig, generator: torch.Generator) -> Params:
    """Parameters before the first step: E, A and y as `starting_point` has them, latent factors small and random."""
    device = q.degree.device
    n_users, n_items = split.train.shape

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device) * scale

    p: Params = {}
    if c.dim and q.x is not None:
        d = q.x.shape[1]
        if q.h is None:
            e = normal(c.dim, d, scale=1.0)
        else:
            e, y = starting_point(q.x, q.h, split.train, c.dim)
            p["A"] = e.clone()
            if c.history_factors:
                p["y"] = y
        p["E"] = torch.cat([e, torch.zeros(1, d, device=device)]) if c.visual_bias else e
        p["theta"] = normal(n_users, c.dim, scale=0.01)
    if c.factors:
        p["gamma_u"] = normal(n_users, c.factors, scale=0.1)
        p["gamma_i"] = normal(n_items, c.factors, scale=0.1)
    if c.item_bias:
        p["b"] = torch.zeros(n_items, device=device)
    return p


def vectors(p: Params, q: Inputs, c: TrainConfig) -> tuple[Tensor, Tensor, Tensor]:
    """(U, K) users, (I, K) items, (I,) biases of the model as it stands."""
    users, items = [], []
    bias = torch.zeros_like(q.shrink)
    if "E" in p and q.x is not None:
        theta = p["theta"]
        if q.h is not None:
            theta = theta + product(q.h, p["A"].T) * q.degree.clamp(min=1).rsqrt()[:, None]
        if "y" in p and q.taken is not None:
            items_y, starts = q.taken
            sum_y = F.embedding_bag(items_y, p["y"], starts, mode="sum", per_sample_weights=q.shrink[items_y])
            theta = theta + sum_y * q.degree.clamp(min=1).rsqrt()[:, None]
        users.append(theta)
        encoded = product(q.x, p["E"].T)
        items.append(encoded[:, : c.dim])
        if c.visual_bias:
            bias = bias + encoded[:, -1]
    if "gamma_u" in p:
        users.append(p["gamma_u"])
        items.append(p["gamma_i"] * q.shrink[:, None])
    if "b" in p:
        bias = bias + p["b"] * q.shrink
    return torch.cat(users, 1), torch.cat(items, 1), bias


__all__ = ["initial", "vectors"]
