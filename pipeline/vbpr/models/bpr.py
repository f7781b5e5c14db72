"""Bayesian personalised ranking (Rendle et al. 2009) of visual and latent factors: one engine for visual, vbpr, bprmf.

    x_ui = (theta_u + A h_u + g_u) . (E f_i) + beta . f_i + gamma_u . (s_i gamma_i) + s_i b_i
    loss = -ln sigma(x_ui - x_uj)

f_i: the item's standardised features in their principal axes. h_u: the sum of those that u took, over the root of
their number, so that A and E start as one projection (see `start.py`) and a user has a taste before the first step.
g_u: the sum over the same items, over the same root, of s_i y_i, what taking an item says of a taste beyond its looks
(SVD++; Koren 2008). An item's own triplets leave it out of h_u and g_u.
s_i = n_i / (n_i + c): what an item's few buyers say of it counts little, and its image carries it. A batch holds B
positives and N negatives that all of them share, so that B + N encodings form B x N triplets; with N = 0 each positive
has a negative of its own, and features enter as the difference f_i - f_j. Gradients are in closed form; users and items
outside the batch are not touched (lazy Adam).
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.errors import VbprError
from ..base.progress import Progress, report
from ..base.stopping import Stopped, stop_signals
from ..compute.checkpoint import read_checkpoint, write_checkpoint
from ..compute.device import full_float32
from ..data.split import Split
from ..evaluation.metrics import mean_auc
from ..evaluation.ranks import held_out_ranks
from ..recommender import ROWS, ItemFeatures, factors_of
from ..sampling import TripletSampler
from ..stores.model.factors import Factors
from .adam import Adam, Gradients, Params, summed
from .batches import Batch, draw
from .config import TrainConfig
from .prepared import Inputs, Projection, make_inputs
from .start import product, starting_point

# Latent factors alone, with uniform negatives: `bprmf`, and what `hybrid` knows of popularity.
BPRMF: dict[str, Any] = {
    "dim": 0,
    "factors": 64,
    "item_bias": True,
    "visual_bias": False,
    "history": False,
    "whiten": 0.0,
    "negatives": "uniform",
    "epochs": 20,
    "batch": 1024,
    "per_user": 1,
    "lr": 0.04,
    "shrink": 8.0,
    "reg_users": 0.045,
    "reg_items": 0.03,
    "reg_bias": 0.02,
}
SHAPES = 64
CURVE_USERS, CURVE_PAIRS = 5000, 300_000_000  # the learning curve's users, and scores: cheaper than an epoch


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


class Diverged(VbprError):
    """Training went to infinity. `factors`: the model of the best epoch before, or None."""

    def __init__(self, message: str, factors: Factors | None) -> None:
        super().__init__(message)
        self.factors = factors


class BPR:
    """Trains by BPR; which parts there are is the configuration's: dim and factors of 0 switch a part off."""

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None, part: bool = False) -> None:
        """
        Args:
            part: of a model with several: the checkpoint stays when it is done, until the whole model is.
        """
        self.config, self.checkpoint, self.part = config, checkpoint, part

    @full_float32()
    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            VbprError: features are needed, or the configuration has no part.
            Diverged: the loss or a parameter is not finite.
            Stopped: Ctrl-C or SIGTERM; the checkpoint lets the next run resume.
        """
        c, device = self.config, self.config.torch_device()
        if c.dim and features is None:
            raise VbprError(f"--model {c.model} with --dim {c.dim} needs --features; give a file, or --dim 0")
        if not (c.dim or c.factors):
            raise VbprError("--dim and --factors are both 0: there is nothing to train; give one a size")
        if features is not None and c.dim > len(features.mean):
            widest = len(features.mean)
            raise VbprError(
                f"--dim {c.dim} is more than the features' {widest} columns; lower it (in Python, configure(..., "
                f"widest={widest}) cuts a default)"
            )
        if c.shared_negatives > max(len(split.item_ids), TrainConfig.shared_negatives):
            raise VbprError(f"--shared-negatives {c.shared_negatives:,} is more than there are items; lower it")
        generator = torch.Generator(device).manual_seed(c.seed)
        sampler = TripletSampler(
            split.train,
            device,
            generator,
            positives=c.positives,
            negatives="uniform" if c.negatives == "in-batch" else c.negatives,
            popularity_share=c.popularity_share,
        )
        projection = Projection(features, c, device) if c.dim and features is not None else None
        inputs = make_inputs(split, projection, c, device, None if self.checkpoint is None else self.checkpoint.parent)
        p = initial(split, inputs, c, generator)
        adam = Adam(p)
        size = min(c.batch, len(sampler))
        steps = len(sampler) // size
        state = State(c, p, adam, generator, self.checkpoint)
        validation = CurveSample(split)
        with Progress(f"train {c.model}", steps * c.epochs * size, "positives") as bar, stop_signals() as stopping:
            state.resume(bar, steps, size)
            for epoch in range(state.epoch, c.epochs):
                if state.patience_lost():
                    break
                order = sampler.epoch(epoch, c.per_user)[: steps * size].view(steps, size)
                for a in range(state.step, steps, CHUNK):
                    count = min(CHUNK, steps - a)
                    batches = draw(sampler, order[a : a + count], c, "y" in p)
                    for s, batch in enumerate(inputs.read_ahead(batches)):
                        loss, grads = gradients(p, inputs, batch, c)
                        done = (epoch * steps + a + s) / (c.epochs * steps)
                        adam.step(p, grads, c.lr * (1 - done if c.schedule == "linear" else 1.0))
                        state.total += loss.detach()
                    bar.advance(count * size)
                    state.step = a + count
                    if state.step < steps:
                        state.save_now_and_then()
                        if stopping():
                            raise Stopped(f"stopped in epoch {epoch + 1} of {c.epochs}{state.save()}")
                del order  # the next is made while nothing else is
                mean = state.end_epoch() / steps
                if not (np.isfinite(mean) and all(bool(torch.isfinite(value).all()) for value in p.values())):
                    good = self.factors(split, features, inputs, projection, state) if state.best_epoch else None
                    raise Diverged(f"training is not finite in epoch {epoch + 1}; lower --lr (now {c.lr:g})", good)
                last = epoch + 1 == c.epochs
                if last or (epoch + 1) % c.eval_every == 0:
                    auc = validation.auc(*vectors(p, inputs, c))
                    state.take(epoch + 1, mean, auc)
                    bar.advance(0, f"loss {mean:.4f}" + (f", validation AUC {auc:.4f}" if auc is not None else ""))
                state.save_now_and_then()
                if stopping() and not last:
                    raise Stopped(f"stopped after epoch {epoch + 1} of {c.epochs}{state.save()}")
        if self.part:
            state.save()
        return self.factors(split, features, inputs, projection, state)

    def factors(
        self,
        split: Split,
        features: ItemFeatures | None,
        inputs: Inputs,
        projection: Projection | None,
        state: "State",
    ) -> Factors:
        """The model of the best epoch so far."""
        c = self.config
        users, items, bias = (t.float().cpu().numpy() for t in vectors(state.best, inputs, c))
        head = None
        if projection is not None and features is not None:
            head = projection.head(state.best["E"], users.shape[1], c.visual_bias)
            # exact float32 vectors: what training read was rounded
            visual = np.empty(len(items), np.float32)
            weight = torch.from_numpy(np.vstack([head.weight[: c.dim], head.bias_weight])).to(inputs.shrink.device)
            for a in range(0, len(items), ROWS):
                exact = (projection.rows(np.arange(a, min(len(items), a + ROWS))) @ weight.T).cpu().numpy()
                items[a : a + ROWS, : c.dim], visual[a : a + ROWS] = exact[:, :-1], exact[:, -1]
            latent = (state.best["b"] * inputs.shrink).cpu().numpy() if "b" in state.best else 0
            bias = visual + latent
        about = {"curve": state.curve, "scores_unseen": head is not None}
        return factors_of(split, users, items, bias, head, about)


CHUNK = 64  # batches drawn at a time


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


class CurveSample:
    """Validation AUC of a fixed sample of users: exact for them, and cheaper than an epoch."""

    def __init__(self, split: Split, seed: int = 0) -> None:
        users = np.flatnonzero(np.diff(split.validation.indptr))
        most = min(CURVE_USERS, max(500, CURVE_PAIRS // split.train.shape[1]))
        users = np.sort(np.random.default_rng(seed).permutation(users)[:most])
        self.users = users
        self.held, self.observed = split.validation[users], split.observed[users]

    def auc(self, users: Tensor, items: Tensor, bias: Tensor) -> float | None:
        """Mean over the sample; None when nobody has a validation item."""
        if not len(self.users):
            return None
        chosen = users[torch.from_numpy(self.users).to(users.device)]
        return float(
            mean_auc(held_out_ranks(chosen.float(), items.float(), bias.float(), self.held, self.observed)).mean()
        )


class State:
    """How far training has come: the best epoch so far, the learning curve, and the checkpoint that survives a kill."""

    def __init__(
        self, config: TrainConfig, params: Params, adam: Adam, generator: torch.Generator, path: Path | None
    ) -> None:
        self.config, self.params, self.adam, self.generator, self.path = config, params, adam, generator, path
        self.best = {name: value.clone() for name, value in params.items()}
        self.epoch, self.best_auc, self.best_epoch = 0, -1.0, 0
        self.step, self.total = 0, torch.zeros((), device=generator.device)  # of the epoch in hand; its loss so far
        self.curve: list[dict[str, float]] = []
        self.saved = time.monotonic()

    def end_epoch(self) -> float:
        """Count an epoch; the sum of its batches' losses."""
        total = float(self.total)
        self.epoch, self.step, self.total = self.epoch + 1, 0, torch.zeros_like(self.total)
        return total

    def take(self, epoch: int, loss: float, auc: float | None) -> None:
        """Note an evaluation; keep the parameters if they are the best so far (without validation: the latest)."""
        self.curve.append({"epoch": epoch, "loss": loss} | ({} if auc is None else {"auc": auc}))
        if auc is not None:
            report(epoch, auc)  # `vbpr tune` listens, and ends what promises little
        if auc is None or auc > self.best_auc:
            self.best_auc, self.best_epoch = (-1.0 if auc is None else auc), epoch
            for name, value in self.params.items():
                self.best[name].copy_(value)

    def patience_lost(self) -> bool:
        c = self.config
        return bool(c.patience) and self.epoch - self.best_epoch >= c.patience * c.eval_every

    def save_now_and_then(self) -> None:
        if time.monotonic() - self.saved > self.config.checkpoint_minutes * 60:
            self.save()

    def save(self) -> str:
        """Write the checkpoint; returns the words that say so."""
        if self.path is None:
            return ""
        tensors = {
            f"{part}/{name}": value
            for part, group in (("params", self.params), ("best", self.best), ("m", self.adam.m), ("v", self.adam.v))
            for name, value in group.items()
        }
        tensors["generator"] = self.generator.get_state()
        told = {name: getattr(self, name) for name in ("epoch", "best_auc", "best_epoch", "curve")}
        told |= {"step": self.step, "total": float(self.total), "t": self.adam.t}
        write_checkpoint(self.path, tensors, self.config.identity, **told)
        self.saved = time.monotonic()
        return f"; {self.path} holds the state: run the same command again to resume"

    def resume(self, bar: Progress, steps: int, size: int) -> None:
        """Go on from the checkpoint, if there is one of this very run; another one is ignored and overwritten."""
        found = read_checkpoint(self.path, self.config.identity)
        if found is None:
            return
        tensors, told = found
        for part, group in (("params", self.params), ("best", self.best), ("m", self.adam.m), ("v", self.adam.v)):
            for name, value in group.items():
                value.copy_(tensors[f"{part}/{name}"])
        self.generator.set_state(tensors["generator"])
        self.adam.t, self.epoch, self.curve = told["t"], told["epoch"], told["curve"]
        self.best_auc, self.best_epoch = told["best_auc"], told["best_epoch"]
        self.step, self.total = told["step"], self.total + told["total"]
        bar.advance((self.epoch * steps + self.step) * size)


__all__ = ["BPR", "BPRMF", "CurveSample", "Diverged", "gradients"]
