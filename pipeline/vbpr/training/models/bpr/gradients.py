"""The loss of a batch and its gradients, in closed form."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import TrainConfig
from .adam import Gradients, Params, summed
from .batches import Batch
from .inputs import Inputs

SHAPES = 64


def gradients(p: Params, q: Inputs, batch: Batch, c: TrainConfig) -> tuple[Tensor, Gradients]:
    """The mean loss of a batch's triplets (without penalties) and the gradients with them.

    The objective is mean(-ln sigma) + reg_users/2 mean(|theta_u|^2 + |gamma_u|^2) + reg_items/2 (mean |gamma_i|^2 +
    mean |gamma_j|^2 + mean |y_i|^2) + reg_bias/2 (mean b_i^2 + mean b_j^2 / 10) + reg_head/2 (|E|^2 + |A|^2 +
    |beta|^2), means over the batch: only its own users and items are penalised.
    """
    u, run, i, j, weight = batch.u, batch.run, batch.i, batch.j, batch.weight
    n, shared, history = len(i), weight is not None, q.h is not None
    k = p["theta"].shape[1] if "theta" in p else 0
    wide = p["E"].shape[0] if "E" in p else 0  # k, and one more row when there is beta
    left, right_i, right_j = [], [], []
    si, sj = (q.shrink.index_select(0, items)[:, None] for items in (i, j))
    f = h = itself = root = roots = yi = u[:0].float()
    if q.x is not None and wide:
        left.append(p["theta"].index_select(0, u))
        dtype = left[0].dtype
        if shared:  # one product with E, and with A, which only the positives want
            f = q.x.index_select(0, torch.cat([i, j]))
            encoded = (f @ torch.cat([p["E"], p["A"]] if history else [p["E"]]).to(f.dtype).T).to(dtype)
            right_i.append(encoded[:n, :wide])
            right_j.append(encoded[n:, :wide])
            itself = encoded[:n, wide:]
        else:
            f = difference(q.x, i, j)
            right_i.append((f @ p["E"].to(f.dtype).T).to(dtype))
            right_j.append(torch.zeros_like(right_i[0]))
            if history:
                fi = q.x.index_select(0, i)
                itself = (fi @ p["A"].to(fi.dtype).T).to(dtype)
        if q.h is not None:  # all that u took, once for each run; then less i itself, for each positive
            rest = q.degree.index_select(0, u)[:, None] - 1
            root = torch.where(rest > 0, rest.rsqrt(), 0.0)
            roots = root.index_select(0, run)
            h = q.h.index_select(0, padded(u))
            taste = (h @ p["A"].to(h.dtype).T).to(dtype)[: len(u)]
            if batch.taken is not None:
                items, _, starts = batch.taken
                s = q.shrink.index_select(0, items)
                yi = p["y"].index_select(0, i)
                taste += F.embedding_bag(items, p["y"], starts, mode="sum", per_sample_weights=s)
                itself = itself + yi * si
            left[0] = left[0] + taste * root
        if wide > k:
            left.append(torch.ones(len(u), 1, dtype=dtype, device=u.device))
    if "gamma_u" in p:
        left.append(p["gamma_u"].index_select(0, u))
        right_i.append(p["gamma_i"].index_select(0, i) * si)
        right_j.append(p["gamma_i"].index_select(0, j) * sj)
    if "b" in p:
        left.append(torch.ones(len(u), 1, dtype=p["b"].dtype, device=u.device))
        right_i.append(p["b"][i, None] * si)
        right_j.append(p["b"][j, None] * sj)
    lhs, ri, rj = torch.cat(left, 1).index_select(0, run), torch.cat(right_i, 1), torch.cat(right_j, 1)
    if history:
        lhs[:, :k] -= itself * roots

    if weight is not None:
        z = torch.mm(lhs, rj.T).sub_((lhs * ri).sum(1, keepdim=True))
        if batch.excluded is not None:
            z.index_put_(batch.excluded, z.new_full((), -torch.inf))  # a number's copy to a GPU would be waited for
        loss, g = shared_loss(z, weight, c.loss, len(q.shrink))
        positive = g.sum(1, keepdim=True)
        d_left, d_i, d_j = g @ rj - positive * ri, -positive * lhs, g.T @ lhs
        share_j = weight / weight.sum()
    else:
        z = (lhs * (rj - ri)).sum(1, keepdim=True)
        loss = F.softplus(z).mean()
        g = torch.sigmoid(z) / n
        d_left, d_i = g * (rj - ri), -g * lhs
        d_j = -d_i
        share_j = torch.full((n,), 1 / n, dtype=lhs.dtype, device=u.device)
    begin, order = batch.length.cumsum(0) - batch.length, torch.arange(n, device=u.device)
    d_user = F.embedding_bag(order, d_left, begin, mode="sum")
    penalty = c.reg_users / n * batch.length.to(lhs.dtype)[:, None]

    out: Gradients = {}
    if q.x is not None and wide:
        d_f = torch.cat([d_i, d_j])[:, :wide] if shared else d_i[:, :wide]
        if history:
            d_taste, d_itself = d_user[:, :k] * root, d_left[:, :k] * -roots
            if shared:
                d_f = torch.cat([d_f, F.pad(d_itself, (0, 0, 0, len(j)))], 1)
        d_maps = (d_f.to(f.dtype).T @ f).to(lhs.dtype)
        out["E"] = None, d_maps[:wide] + c.reg_head * p["E"]
        out["theta"] = summed(u, d_user[:, :k] + penalty * p["theta"].index_select(0, u))
        if history:
            da = (padded(d_taste).to(h.dtype).T @ h).to(lhs.dtype)
            da += d_maps[wide:] if shared else (d_itself.to(fi.dtype).T @ fi).to(lhs.dtype)
            out["A"] = None, da + c.reg_head * p["A"]
            if batch.taken is not None:
                items, row, _ = batch.taken
                out["y"] = summed(
                    torch.cat([items, i]),
                    torch.cat([d_taste, d_itself * si + c.reg_items / n * yi]),
                    torch.cat([row, order + len(u)]),
                    torch.cat([s, torch.ones_like(d_itself[:, 0])]),
                )
    if "gamma_u" in p:
        m = p["gamma_u"].shape[1]
        latent = slice(wide, wide + m)
        out["gamma_u"] = summed(u, d_user[:, latent] + penalty * p["gamma_u"].index_select(0, u))
        of_i = d_i[:, latent] * si + c.reg_items / n * p["gamma_i"].index_select(0, i)
        of_j = d_j[:, latent] * sj + c.reg_items * share_j[:, None] * p["gamma_i"].index_select(0, j)
        out["gamma_i"] = summed(torch.cat([i, j]), torch.cat([of_i, of_j]))
    if "b" in p:
        of_i = d_i[:, -1] * si[:, 0] + c.reg_bias / n * p["b"][i]
        of_j = d_j[:, -1] * sj[:, 0] + c.reg_bias / 10 * share_j * p["b"][j]
        out["b"] = summed(torch.cat([i, j]), torch.cat([of_i, of_j]))
    return loss, out


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


def padded(rows: Tensor) -> Tensor:
    """Zeros added up to a multiple of `SHAPES` rows: the first product of a new shape costs as much as ten."""
    short = -len(rows) % SHAPES
    return torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])])


def difference(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """(n, d) x[i] - x[j] in one pass over the rows."""
    pair = torch.stack([i, j], 1)
    sign = x.new_ones(len(i), 2)
    sign[:, 1] = -1  # set where it is: copied to a GPU, it would be waited for
    return F.embedding_bag(pair, x, per_sample_weights=sign, mode="sum")


__all__ = ["gradients"]
