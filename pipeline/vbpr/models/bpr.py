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

import dataclasses
import functools
import itertools
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoint import read_checkpoint, write_checkpoint
from ..errors import VbprError
from ..factors import Factors, Head
from ..interactions import Split
from ..metrics import held_out_ranks, mean_auc
from ..progress import Progress, Stopped, report, stop_signals
from ..recommender import ItemFeatures, factors_of
from ..sampling import TripletSampler
from .config import TrainConfig
from .start import product, starting_point

Array = np.ndarray[Any, Any]
Params = dict[str, Tensor]
Gradients = dict[str, tuple[Tensor | None, Tensor]]  # rows (None: all of them), gradient
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
    "lr": 0.04,
    "shrink": 8.0,
    "reg_users": 0.045,
    "reg_items": 0.03,
    "reg_bias": 0.02,
}
CURVE_USERS, CURVE_PAIRS = 5000, 300_000_000  # the learning curve's users, and scores: cheaper than an epoch


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the loss needs besides the parameters, on the training device.

    Attributes:
        x: (I, d) prepared features, or None. h: (U, d) float32 sums of x over the train items of each user, or None.
        degree: (U,) train items a user. shrink: (I,) s_i. taken: the train items of all users, and where each's begin.
        mapped: whether x and h lie on the disk.
    """

    x: Tensor | None
    h: Tensor | None
    degree: Tensor
    shrink: Tensor
    taken: tuple[Tensor, Tensor] | None = None
    mapped: bool = False


@dataclasses.dataclass(frozen=True)
class Batch:
    """B positives (u, i), and negatives: one each (weight None), or N distinct ones shared by all.

    Attributes:
        weight: (N,) how often each shared negative was drawn.
        allowed: (B, N) bool, whether u did not take j; None: no u did.
        past: what each u took but i itself: (m,) items, (m,) the positive of each, (B,) where each positive's begin.
    """

    u: Tensor
    i: Tensor
    j: Tensor
    weight: Tensor | None = None
    allowed: Tensor | None = None
    past: tuple[Tensor, Tensor, Tensor] | None = None


def gradients(p: Params, q: Inputs, batch: Batch, c: TrainConfig) -> tuple[Tensor, Gradients]:
    """The mean loss of a batch's triplets (without penalties) and the gradients with them.

    The objective is mean(-ln sigma) + reg_users/2 mean(|theta_u|^2 + |gamma_u|^2) + reg_items/2 (mean |gamma_i|^2 +
    mean |gamma_j|^2 + mean |y_i|^2) + reg_bias/2 (mean b_i^2 + mean b_j^2 / 10) + reg_head/2 (|E|^2 + |A|^2 +
    |beta|^2), means over the batch: only its own users and items are penalised.
    """
    u, i, j, weight = batch.u, batch.i, batch.j, batch.weight
    n, shared = len(u), weight is not None
    k = p["theta"].shape[1] if "theta" in p else 0
    wide = p["E"].shape[0] if "E" in p else 0  # k, and one more row when there is beta
    left, right_i, right_j = [], [], []
    fi = fj = taste = root = u[:0].float()
    if q.x is not None and wide:
        e = p["E"].to(q.x.dtype)
        left.append(p["theta"].index_select(0, u))
        if shared or q.h is not None:
            fi = q.x.index_select(0, i)
        if q.h is not None:
            root = (q.degree[u] - 1).clamp_(min=1).rsqrt_()[:, None]
            # all that u took but i itself: in h's float32, and in place, as fresh pages cost more than the arithmetic
            taste = q.h.index_select(0, u).sub_(fi).to(q.x.dtype)
            left[0] = left[0] + (taste @ p["A"].to(q.x.dtype).T).to(left[0].dtype) * root
        if batch.past is not None:
            past, _, starts = batch.past
            sum_y = F.embedding_bag(past, p["y"], starts, mode="sum", per_sample_weights=q.shrink[past])
            left[0] = left[0] + sum_y * root
        if wide > k:
            left.append(torch.ones(n, 1, dtype=left[0].dtype, device=u.device))
        if shared:
            fj = q.x.index_select(0, j)
            right_i.append((fi @ e.T).to(left[0].dtype))
            right_j.append((fj @ e.T).to(left[0].dtype))
        else:
            fi = difference(q.x, i, j)
            right_i.append((fi @ e.T).to(left[0].dtype))
            right_j.append(torch.zeros_like(right_i[0]))
    if "gamma_u" in p:
        left.append(p["gamma_u"][u])
        right_i.append(p["gamma_i"][i] * q.shrink[i, None])
        right_j.append(p["gamma_i"][j] * q.shrink[j, None])
    if "b" in p:
        left.append(torch.ones(n, 1, dtype=p["b"].dtype, device=u.device))
        right_i.append((p["b"][i] * q.shrink[i])[:, None])
        right_j.append((p["b"][j] * q.shrink[j])[:, None])
    lhs, ri, rj = torch.cat(left, 1), torch.cat(right_i, 1), torch.cat(right_j, 1)

    if weight is not None:
        z = torch.mm(lhs, rj.T).sub_((lhs * ri).sum(1, keepdim=True))
        loss, g = shared_loss(z, weight, batch.allowed, c.loss, len(q.shrink))
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

    out: Gradients = {}
    if q.x is not None and wide:
        de = (d_i[:, :wide].to(q.x.dtype).T @ fi).to(lhs.dtype)
        if shared:
            de += (d_j[:, :wide].to(q.x.dtype).T @ fj).to(lhs.dtype)
        out["E"] = None, de + c.reg_head * p["E"]
        out["theta"] = u, d_left[:, :k] + c.reg_users / n * p["theta"][u]
        if q.h is not None:
            d_taste = d_left[:, :k] * root
            out["A"] = None, (d_taste.to(q.x.dtype).T @ taste).to(lhs.dtype) + c.reg_head * p["A"]
            if batch.past is not None:
                past, row, _ = batch.past
                items, d_past = summed(past, row, d_taste, q.shrink[past])
                out["y"] = torch.cat([items, i]), torch.cat([d_past, c.reg_items / n * p["y"][i]])
    if "gamma_u" in p:
        m = p["gamma_u"].shape[1]
        out["gamma_u"] = u, d_left[:, wide : wide + m] + c.reg_users / n * p["gamma_u"][u]
        out["gamma_i"] = (
            torch.cat([i, j]),
            torch.cat(
                [
                    d_i[:, wide : wide + m] * q.shrink[i, None] + c.reg_items / n * p["gamma_i"][i],
                    d_j[:, wide : wide + m] * q.shrink[j, None] + c.reg_items * share_j[:, None] * p["gamma_i"][j],
                ]
            ),
        )
    if "b" in p:
        out["b"] = (
            torch.cat([i, j]),
            torch.cat(
                [
                    d_i[:, -1] * q.shrink[i] + c.reg_bias / n * p["b"][i],
                    d_j[:, -1] * q.shrink[j] + c.reg_bias / 10 * share_j * p["b"][j],
                ]
            ),
        )
    return loss, out


def shared_loss(z: Tensor, weight: Tensor, allowed: Tensor | None, kind: str, items: int) -> tuple[Tensor, Tensor]:
    """The mean loss of positives against shared negatives and its gradient by z.

    bpr: the mean of -ln sigma(-z). softmax: the positive's cross entropy among its negatives (sampled softmax). warp:
    the mean hinge of the negatives within a margin of 1, weighted by the logarithm of the rank that their share
    suggests among `items` (Weston et al. 2011, with all negatives of the batch in place of draws until one violates).

    Args:
        z: (B, N) x_uj - x_ui. weight, allowed: see `Batch`.
    """
    n = len(z)
    counts = weight.expand_as(z) if allowed is None else torch.where(allowed, weight, 0.0)
    if kind == "softmax":
        odds = z + counts.log()
        total = torch.logaddexp(torch.logsumexp(odds, 1, keepdim=True), z.new_zeros(()))
        return total.mean(), (odds - total).exp_().div_(n)
    if kind == "warp":
        inside = counts * (z > -1)
        found = inside.sum(1, keepdim=True)
        rank = items * found / counts.sum(1, keepdim=True).clamp(min=1)
        g = inside * (rank.log1p() / np.log1p(items) / found.clamp(min=1) / n)
        return (g * (1 + z)).sum(), g
    w = counts / (n * weight.sum())
    return (F.softplus(z) * w).sum(), torch.sigmoid(z).mul_(w)


def difference(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """(n, d) x[i] - x[j] in one pass over the rows."""
    pair = torch.stack([i, j], 1)
    sign = torch.tensor([1, -1], dtype=x.dtype, device=x.device).expand(len(i), 2).contiguous()
    return F.embedding_bag(pair, x, per_sample_weights=sign, mode="sum")


class Diverged(VbprError):
    """Training went to infinity. `factors`: the model of the best epoch before, or None."""

    def __init__(self, message: str, factors: Factors | None) -> None:
        super().__init__(message)
        self.factors = factors


class Adam:
    """Adam (Kingma & Ba, 2015); a parameter with rows moves, and ages, in the rows of the batch only."""

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
            unique, total = summed(rows, torch.arange(len(rows), device=rows.device), grad)
            first = m.index_select(0, unique).lerp_(total, 1 - self.beta1)
            second = v.index_select(0, unique).mul_(self.beta2).addcmul_(total, total, value=1 - self.beta2)
            m.index_copy_(0, unique, first)
            v.index_copy_(0, unique, second)
            spread = second.sqrt_().div_(correction).add_(self.eps)
            p.index_copy_(0, unique, p.index_select(0, unique).addcdiv_(first, spread, value=-rate))


def summed(rows: Tensor, source: Tensor, grad: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distinct rows, ascending, and for each the sum over its entries of `weight` x grad[source]."""
    order, ascending = stable_order(rows)
    unique, counts = torch.unique_consecutive(ascending, return_counts=True)
    flat = grad.reshape(len(grad), -1)
    weight = torch.ones_like(flat[:1, 0]).expand(len(order)) if weight is None else weight[order]
    starts = counts.cumsum(0) - counts
    total = F.embedding_bag(source[order], flat, starts, mode="sum", per_sample_weights=weight.contiguous())
    return unique, total.reshape(len(unique), *grad.shape[1:])


def stable_order(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where ascending rows lie, equal ones in their order, and the rows in that order."""
    bits = len(rows).bit_length()
    keys = (rows << bits) + torch.arange(len(rows), device=rows.device)
    # on the CPU NumPy sorts by vector instructions, ten times as fast as torch
    keys = torch.from_numpy(np.sort(keys.numpy())) if rows.device.type == "cpu" else keys.sort().values
    return keys & ((1 << bits) - 1), keys >> bits


class Projection:
    """Features prepared for training: standardised, each row (if `unit`) of length one, turned into their principal
    axes, each axis divided by its deviation to the power `whiten`, and all scaled to a mean square length of 1 a row.

    x = z @ turn, (D, d) turn (a number where there is nothing to turn): after the length still one linear map, so a
    fitted head folds back onto raw features.
    """

    def __init__(self, features: ItemFeatures, config: TrainConfig, device: torch.device) -> None:
        self.features, self.device, self.unit = features, device, config.unit
        dim = len(features.mean)
        if not config.whiten:
            self.turn = torch.tensor(1.0 if config.unit else dim**-0.5, device=device)
            return
        gram = torch.zeros(dim, dim, device=device)
        rows = np.flatnonzero(features.known)
        sample = rows[np.sort(np.random.default_rng(config.seed).permutation(len(rows))[:CORRELATION_ROWS])]
        for a in range(0, len(sample), ROWS):
            z = self.rows(sample[a : a + ROWS])
            gram += z.T @ z
        values, vectors = torch.linalg.eigh(gram / len(sample))
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        keep = min(config.axes or dim, int((values > 1e-6 * values[0]).sum()))
        values, vectors = values[:keep], vectors[:, :keep]
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        power = values ** (-config.whiten / 2)
        # An axis has two directions: the one in which its largest entry is positive, on any machine.
        self.turn = vectors * largest.sign() * power / (values * power**2).sum().sqrt()

    def rows(self, rows: Array) -> Tensor:
        """(n, D) float32 standardised features of some items, on the device."""
        z = torch.from_numpy(self.features.standardised(rows)).to(self.device)
        return F.normalize(z, dim=1, eps=1e-12) if self.unit else z

    @property
    def width(self) -> int:
        """d, columns of prepared features."""
        return self.turn.shape[1] if self.turn.ndim else len(self.features.mean)

    def __call__(self, out: Tensor) -> Tensor:
        """Fill `out`, (I, d) on the device, with the prepared features, in blocks."""
        n, dtype = out.shape[0], out.dtype
        turn = self.turn.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)
        for a in range(0, n, ROWS):
            z = self.rows(np.arange(a, min(n, a + ROWS)))
            out[a : a + ROWS] = z.to(turn.dtype) @ turn if turn.ndim else z * turn
        return out

    def head(self, e: Tensor, columns: int, visual_bias: bool) -> Head:
        """Fold a fitted E (its last row beta, if there is one) back onto raw features; `columns` is the model's K."""
        folded = (e.float() @ self.turn.T if self.turn.ndim else e.float() * self.turn).cpu().numpy()
        beta = folded[-1] if visual_bias else np.zeros(folded.shape[1], np.float32)
        weight = np.zeros((columns, folded.shape[1]), np.float32)
        k = len(folded) - visual_bias
        weight[:k] = folded[:k]
        return Head(self.features.mean, self.features.scale, weight, beta, unit=self.unit)


ROWS = 512  # of raw features at a time: what is done to them stays in the cache
CORRELATION_ROWS = 20_000  # rows that tell the principal axes of up to a few thousand columns well enough


class BPR:
    """Trains by BPR; which parts there are is the configuration's: dim and factors of 0 switch a part off."""

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None, part: bool = False) -> None:
        """
        Args:
            part: of a model with several: the checkpoint stays when it is done, until the whole model is.
        """
        self.config, self.checkpoint, self.part = config, checkpoint, part

    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            VbprError: features are needed, or the configuration has no part.
            Diverged: the loss or a parameter is not finite.
            Stopped: Ctrl-C or SIGTERM; the checkpoint lets the next run resume.
        """
        c, device = self.config, self.config.torch_device()
        if c.dim and features is None:
            raise VbprError(f"--model {c.model} needs --features")
        if not (c.dim or c.factors):
            raise VbprError("--dim and --factors are both 0: there is nothing to train; give one a size")
        if features is not None and c.dim > len(features.mean):
            raise VbprError(f"--dim {c.dim} is more than the features' {len(features.mean)} columns; lower it")
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
        read_ahead = ReadAhead(inputs)
        p = initial(split, inputs, c, generator)
        adam = Adam(p)
        steps = max(1, len(sampler) // c.batch)
        state = State(c, p, adam, generator, self.checkpoint)
        validation = CurveSample(split)
        with Progress(f"train {c.model}", steps * c.epochs * c.batch, "positives") as bar, stop_signals() as stopping:
            state.resume(bar, steps)
            for epoch in range(state.epoch, c.epochs):
                if state.patience_lost():
                    break
                for a in range(state.step, steps, CHUNK):
                    count = min(CHUNK, steps - a)
                    batches = draw(sampler, c, count, "y" in p)
                    for s, batch in enumerate(read_ahead(batches)):
                        loss, grads = gradients(p, inputs, batch, c)
                        done = (epoch * steps + a + s) / (c.epochs * steps)
                        adam.step(p, grads, c.lr * (1 - done if c.schedule == "linear" else 1.0))
                        state.total += loss.detach()
                    bar.advance(count * c.batch)
                    state.step = a + count
                    if state.step < steps:
                        state.save_now_and_then()
                        if stopping():
                            raise Stopped(f"stopped in epoch {epoch + 1} of {c.epochs}{state.save()}")
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
        else:
            state.finish()
        return self.factors(split, features, inputs, projection, state)

    def factors(
        self,
        split: Split,
        features: ItemFeatures | None,
        inputs: "Inputs",
        projection: "Projection | None",
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


def make_inputs(
    split: Split, projection: Projection | None, c: TrainConfig, device: torch.device, folder: Path | None = None
) -> Inputs:
    degree = torch.from_numpy(np.diff(split.train.indptr)).float().to(device)
    count = torch.from_numpy(split.item_counts).float().to(device)
    shrink = count / (count + c.shrink) if c.shrink else torch.ones_like(count)
    taken = tuple(torch.from_numpy(a).long().to(device) for a in (split.train.indices, split.train.indptr[:-1]))
    if projection is None:
        return Inputs(None, None, degree, shrink)
    dtype = c.torch_dtype(device)
    users, items = split.train.shape
    size = projection.width * (items * dtype.itemsize + users * c.history * torch.float32.itemsize)
    mapped = 0 < c.memory_limit * 1e9 < size
    if mapped and device.type != "cpu":
        raise VbprError("--memory-limit maps features from disk: choose --device cpu, or fewer `axes` in --config")
    empty = functools.partial(mapped_rows, folder) if mapped else torch.empty
    x = projection(empty((items, projection.width), dtype=dtype, device=device))
    h = None
    if c.history:
        h = empty((users, projection.width), dtype=torch.float32, device=device)
        begin = split.train.indptr
        edges = np.unique(np.r_[np.searchsorted(begin, np.arange(0, begin[-1], ENTRIES)), 0, users])
        for a, b in itertools.pairwise(edges.tolist()):
            rows = x.index_select(0, taken[0][begin[a] : begin[b]]).float()
            h[a:b] = F.embedding_bag(torch.arange(len(rows), device=device), rows, taken[1][a:b] - begin[a], mode="sum")
    return Inputs(x, h, degree, shrink, (taken[0], taken[1]), mapped)


ENTRIES = 1024  # rows summed at a time, about


def mapped_rows(folder: Path | None, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor whose rows lie on the disk: a file in `folder` that has no name any more, and goes with the process."""
    size = shape[0] * shape[1]
    with tempfile.NamedTemporaryFile(prefix=".prepared-", dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
        except OSError as error:
            raise VbprError(
                f"no room for {size * dtype.itemsize / 1e9:.1f} GB of prepared features beside the model: "
                f"{error.strerror}; free some, set fewer `axes` in --config, or give --out on another disk"
            ) from error
        return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(shape)


class ReadAhead:
    """Touches the mapped rows of the batches to come, so that the disk is read while the machine computes."""

    def __init__(self, q: Inputs) -> None:
        self.q = q
        self.pool = ThreadPoolExecutor(4, "read-ahead") if q.mapped else None

    def __call__(self, batches: list[Batch]) -> Iterator[Batch]:
        """The batches, each after its rows were asked for, `AHEAD` batches early."""
        waiting: deque[tuple[Batch, Future[None] | None]] = deque()
        for batch in batches:
            waiting.append((batch, self.pool.submit(self.touch, batch) if self.pool else None))
            if len(waiting) > AHEAD:
                yield self.ready(*waiting.popleft())
        while waiting:
            yield self.ready(*waiting.popleft())

    @staticmethod
    def ready(batch: Batch, touched: "Future[None] | None") -> Batch:
        if touched is not None:
            touched.result()
        return batch

    def touch(self, batch: Batch) -> None:
        for rows, matrix in ((batch.i, self.q.x), (batch.j, self.q.x), (batch.u, self.q.h)):
            if matrix is not None:
                matrix[:, :: 4096 // matrix.itemsize].index_select(0, rows)  # one number of each page


AHEAD = 8


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
            e, y = normal(c.dim, d, scale=1.0), None
        else:
            e, y = starting_point(q.x, q.h, split.train, c.dim)
            p["A"] = e.clone()
        p["E"] = torch.cat([e, torch.zeros(1, d, device=device)]) if c.visual_bias else e
        p["theta"] = normal(n_users, c.dim, scale=0.01)
        if y is not None and c.history_factors:
            p["y"] = y
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
            theta = theta + product(q.h, p["A"].T, q.x.dtype) * q.degree.clamp(min=1).rsqrt()[:, None]
        if "y" in p and q.taken is not None:
            items_y, starts = q.taken
            sum_y = F.embedding_bag(items_y, p["y"], starts, mode="sum", per_sample_weights=q.shrink[items_y])
            theta = theta + sum_y * q.degree.clamp(min=1).rsqrt()[:, None]
        users.append(theta)
        encoded = product(q.x, p["E"].T, q.x.dtype)
        items.append(encoded[:, : c.dim])
        if c.visual_bias:
            bias = bias + encoded[:, -1]
    if "gamma_u" in p:
        users.append(p["gamma_u"])
        items.append(p["gamma_i"] * q.shrink[:, None])
    if "b" in p:
        bias = bias + p["b"] * q.shrink
    return torch.cat(users, 1), torch.cat(items, 1), bias


def draw(sampler: TripletSampler, c: TrainConfig, count: int, with_past: bool) -> list[Batch]:
    """The next `count` batches."""
    if not c.shared_negatives:
        drawn = (t.view(count, -1) for t in sampler.draw(count * c.batch))
        return [
            Batch(u, i, j, past=others(i, *sampler.histories(u)) if with_past else None)
            for u, i, j in zip(*drawn, strict=True)
        ]
    u, i = (t.view(count, -1) for t in sampler.positives(count * c.batch))
    if c.negatives == "in-batch":  # what others of the batch took: as popular as the positives are
        shared = [items[: c.shared_negatives] for items in i]
    else:
        shared = list(sampler.candidates(count * c.shared_negatives).view(count, -1))
    return [shared_batch(sampler, *b, with_past) for b in zip(u, i, shared, strict=True)]


def shared_batch(sampler: TripletSampler, u: Tensor, i: Tensor, j: Tensor, with_past: bool) -> Batch:
    distinct, weight = torch.unique(j, return_counts=True)
    histories = sampler.histories(u)
    allowed = sampler.allowed(u, distinct, histories)
    return Batch(u, i, distinct, weight.float(), allowed, others(i, *histories) if with_past else None)


def others(i: Tensor, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Histories without i itself: see `Batch.past`."""
    rest = item != i[row]
    row, item = row[rest], item[rest]
    return item, row, torch.searchsorted(row, torch.arange(len(i), device=i.device))


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

    def resume(self, bar: Progress, steps: int) -> None:
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
        bar.advance((self.epoch * steps + self.step) * self.config.batch)

    def finish(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


__all__ = ["BPR", "BPRMF", "Adam", "Batch", "Diverged", "Inputs", "gradients"]
