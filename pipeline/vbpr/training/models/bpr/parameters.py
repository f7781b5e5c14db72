"""The parameters of a model before the first step, and the vectors that they make."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ....data.split import Split
from ...config import TrainConfig
from .adam import Params
from .hidden import encode, initial_layer
from .inputs import Inputs
from .sampling import spans
from .start import product, starting_point


def initial(split: Split, q: Inputs, c: TrainConfig, generator: torch.Generator) -> Params:
    """Parameters before the first step: E, A and y as `starting_point` has them, latent factors small and random."""
    users, items = split.train.shape
    start = None if q.x is None or q.h is None or not c.dim else starting_point(q.x, [(q.h, split.train)], c.dim)
    return {
        **of_head(q, c, generator, start),
        **of_users(users, q.x is not None, c, generator),
        **of_items(items, c, generator),
    }


def of_head(q: Inputs, c: TrainConfig, generator: torch.Generator, start: tuple[Tensor, Tensor] | None) -> Params:
    """E, A, y, and W and V of a hidden layer.

    Args:
        start: of `starting_point`; None without a history.
    """
    p: Params = {}
    if not c.dim or q.x is None:
        return p
    d, device = q.x.shape[1], q.degree.device
    if start is None:
        e = normal(generator, c.dim, d, scale=1.0)
    else:
        e, y = start
        p["A"] = e.clone()
        if c.history_factors:
            p["y"] = y if q.bought is None else y.index_select(0, q.bought)
    p["E"] = torch.cat([e, torch.zeros(1, d, device=device)]) if c.visual_bias else e
    if c.hidden:
        p |= initial_layer(c.hidden, d, len(p["E"]), generator)
    return p


def of_users(users: int, visual: bool, c: TrainConfig, generator: torch.Generator) -> Params:
    """theta and gamma_u: the parameters that users have of their own (OF_USERS).

    Args:
        visual: whether there are features.
    """
    p: Params = {}
    if c.dim and visual:
        p["theta"] = normal(generator, users, c.dim, scale=0.01)
    if c.factors:
        p["gamma_u"] = normal(generator, users, c.factors, scale=0.1)
    return p


def of_items(items: int, c: TrainConfig, generator: torch.Generator) -> Params:
    """gamma_i and b."""
    p: Params = {}
    if c.factors:
        p["gamma_i"] = normal(generator, items, c.factors, scale=0.1)
    if c.item_bias:
        p["b"] = torch.zeros(items, device=generator.device)
    return p


def normal(generator: torch.Generator, *shape: int, scale: float) -> Tensor:
    return torch.randn(*shape, generator=generator, device=generator.device) * scale


OF_USERS = ("theta", "gamma_u")


def shapes_of(c: TrainConfig, d: int, users: int, items: int, bought: int) -> dict[str, tuple[int, ...]]:
    """The shapes of what `initial` makes.

    Args:
        d: columns of the prepared features, 0 for none. bought: items with a train interaction.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    if c.dim and d:
        shapes |= {"theta": (users, c.dim), "E": (c.dim + c.visual_bias, d)}
        if c.history:
            shapes["A"] = c.dim, d
            if c.history_factors:
                shapes["y"] = bought, c.dim
        if c.hidden:
            shapes |= {"W": (c.hidden, d), "V": (c.dim + c.visual_bias, c.hidden)}
    if c.factors:
        shapes |= {"gamma_u": (users, c.factors), "gamma_i": (items, c.factors)}
    if c.item_bias:
        shapes["b"] = (items,)
    return shapes


def vectors(
    p: Params, q: Inputs, c: TrainConfig, users: Tensor | None = None, items: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(n, K) of users, (m, K) and (m,) of items, by their positions (None: all), of the model as it stands."""
    return user_vectors(p, q, c, users), *item_vectors(p, q, c, items)


def user_vectors(p: Params, q: Inputs, c: TrainConfig, users: Tensor | None = None) -> Tensor:
    """(n, K) vectors of users."""
    out = []
    if "E" in p and q.x is not None:
        theta, degree = chosen(p["theta"], users), chosen(q.degree, users)
        root = degree.clamp(min=1).rsqrt()[:, None]
        if q.h is not None:
            theta = theta + product(q.h, p["A"].T, users).mul_(root)
        if "y" in p and q.taken is not None:
            items, starts = q.taken
            if users is not None:
                _, entry = spans(starts[users], degree.long())
                items, starts = items[entry], degree.long().cumsum(0) - degree.long()
            rows = q.free_rows(items)
            y = F.embedding_bag(rows, p["y"], starts, mode="sum", per_sample_weights=q.shrink[items])
            theta = theta + y.mul_(root)
        out.append(theta)
    if "gamma_u" in p:
        out.append(chosen(p["gamma_u"], users))
    return torch.cat(out, 1) if len(out) > 1 else out[0]


def item_vectors(p: Params, q: Inputs, c: TrainConfig, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(m, K) vectors and (m,) biases of items."""
    out = []
    latent, bias = latent_items(p, q.shrink, items)
    if "E" in p and q.x is not None:
        encoded = encode(p, q.x, items)
        out.append(encoded[:, : c.dim])
        if c.visual_bias:
            bias = encoded[:, -1] + bias
    if latent is not None:
        out.append(latent)
    return torch.cat(out, 1) if len(out) > 1 else out[0], bias


def latent_items(p: Params, shrink: Tensor, items: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
    """(m, K) and (m,): what items have of their own, whatever they look like; None where there are no such factors."""
    shrink = chosen(shrink, items)
    gamma = chosen(p["gamma_i"], items) * shrink[:, None] if "gamma_i" in p else None
    return gamma, chosen(p["b"], items) * shrink if "b" in p else torch.zeros_like(shrink)


def chosen(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values.index_select(0, rows)


__all__ = [
    "OF_USERS",
    "initial",
    "item_vectors",
    "latent_items",
    "of_head",
    "of_items",
    "of_users",
    "shapes_of",
    "user_vectors",
    "vectors",
]
