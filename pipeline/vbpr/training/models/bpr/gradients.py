"""The loss of a batch and its gradients, in closed form; each term of the score has its own in `terms.py`."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import TrainConfig
from .adam import Gradients, Params
from .batches import Batch
from .inputs import Inputs
from .terms import Slopes, bias, latent, visual


def gradients(p: Params, q: Inputs, batch: Batch, c: TrainConfig) -> tuple[Tensor, Gradients]:
    """The mean loss of a batch's triplets (without penalties) and the gradients with them.

    The objective is mean(-ln sigma) + reg_users/2 mean(|theta_u|^2 + |gamma_u|^2) + reg_items/2 (mean |gamma_i|^2 +
    mean |gamma_j|^2 + mean |y_i|^2) + reg_bias/2 (mean b_i^2 + mean b_j^2 / 10) + reg_head/2 (|E|^2 + |A|^2 +
    |beta|^2 + |W|^2 + |V|^2), means over the batch: only its own users and items are penalised.
    """
    terms = []
    if q.x is not None and "E" in p:
        terms.append(visual(p, q, q.x, batch, c))
    if "gamma_u" in p:
        terms.append(latent(p, q, batch, c))
    if "b" in p:
        terms.append(bias(p, q, batch, c))
    left = torch.cat([term.left for term in terms], 1).index_select(0, batch.run)
    right_i, right_j = torch.cat([term.right_i for term in terms], 1), torch.cat([term.right_j for term in terms], 1)
    columns = list(itertools.pairwise(itertools.accumulate((term.left.shape[1] for term in terms), initial=0)))
    for term, (a, _) in zip(terms, columns, strict=True):
        if term.itself is not None:
            left[:, a : a + term.itself.shape[1]] -= term.itself

    loss, d_left, d_i, d_j = mean_loss(left, right_i, right_j, batch, c.loss, len(q.shrink))
    first, order = batch.length.cumsum(0) - batch.length, torch.arange(len(left), device=left.device)
    d = Slopes(F.embedding_bag(order, d_left, first, mode="sum"), d_left, d_i, d_j)
    out: Gradients = {}
    for term, (a, b) in zip(terms, columns, strict=True):
        out |= term.gradients(d.columns(a, b))
    return loss, out


def mean_loss(
    left: Tensor, right_i: Tensor, right_j: Tensor, batch: Batch, kind: str, items: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The mean loss of a batch's triplets, and its derivatives by the three sides.

    Args:
        left, right_i: (B, C) of the positives. right_j: (B, C) or (N, C) of the negatives.
        kind, items: see `shared_loss`.
    """
    if batch.weight is None:
        apart = right_j - right_i
        z = (left * apart).sum(1, keepdim=True)
        g = torch.sigmoid(z) / len(z)
        d_i = -g * left
        return F.softplus(z).mean(), g * apart, d_i, -d_i
    z = torch.mm(left, right_j.T).sub_((left * right_i).sum(1, keepdim=True))
    if batch.excluded is not None:
        z.index_put_(batch.excluded, z.new_full((), -torch.inf))  # a number's copy to a GPU would be waited for
    loss, g = shared_loss(z, batch.weight, kind, items)
    positive = g.sum(1, keepdim=True)
    return loss, g @ right_j - positive * right_i, -positive * left, g.T @ left


def shared_loss(z: Tensor, weight: Tensor, kind: str, items: int) -> tuple[Tensor, Tensor]:
    """The mean loss of positives against shared negatives and its gradient by z.

    bpr: the mean of -ln sigma(-z). softmax: the positive's cross entropy among its negatives (sampled softmax). warp:
    the mean hinge of the negatives within a margin of 1, weighted by the logarithm of the rank that their share
    suggests among `items` (Weston et al. 2011, with all negatives of the batch in place of draws until one violates).

    Args:
        z: (B, N) x_uj - x_ui; minus infinity where u took j, which is no negative then. weight: see `Batch`.
    """
    n = len(z)
    if kind == "softmax":
        odds = z + weight.log()
        total = torch.logaddexp(torch.logsumexp(odds, 1, keepdim=True), z.new_zeros(()))
        return total.mean(), (odds - total).exp_().div_(n)
    if kind == "warp":
        inside = weight * (z > -1)
        found = inside.sum(1, keepdim=True)
        rank = items * found / (weight * (z > -torch.inf)).sum(1, keepdim=True).clamp(min=1)
        g = inside * (rank.log1p() / np.log1p(items) / found.clamp(min=1) / n)
        return (g * (1 + z).clamp(min=0)).sum(), g
    g, share = torch.sigmoid(z), weight / (n * weight.sum())
    loss = z.clamp(min=0) - torch.maximum(g, 1 - g).log_()  # softplus, in half its time
    return (loss @ share).sum(), g.mul_(share)


__all__ = ["gradients"]
