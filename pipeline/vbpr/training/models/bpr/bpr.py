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

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....base.errors import VbprError
from ....base.progress import Progress
from ....base.stopping import Stopped, stop_signals
from ....compute.device import full_float32, pick_device
from ....data.images.source import ImageSource
from ....data.split import Split
from ....stores.model.factors import Factors
from ...config import TrainConfig
from ...item_features import ROWS, ItemFeatures
from ...model import Diverged, factors_of
from .batches import sample_batches
from .gradients import gradients
from .inputs import Inputs, Projection, make_inputs
from .parameters import initial, item_vectors, latent_items, user_vectors, vectors
from .progress import State
from .sampling import TripletSampler
from .validation import CurveSample


class BPR:
    """Trains by BPR; which parts there are is the configuration's: dim and factors of 0 switch a part off."""

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None, part: bool = False) -> None:
        """
        Args:
            part: of a model with several: the checkpoint stays when it is done, until the whole model is.
        """
        self.config, self.checkpoint, self.part = config, checkpoint, part

    @full_float32()
    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            VbprError: features are needed, or the configuration has no part.
            Diverged: the loss or a parameter is not finite.
            Stopped: Ctrl-C or SIGTERM; the checkpoint lets the next run resume.
        """
        refuse_impossible(self.config, split, features)
        c, device = grown(self.config, split.train.nnz), pick_device(self.config.device)
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
        state = State(c, initial(split, inputs, c, generator), generator, self.checkpoint)
        try:
            self.train(sampler, inputs, state, CurveSample(split))
        except Diverged as error:
            if state.keeper.best:
                error.factors = best_factors(split, inputs, projection, state)
            raise
        if self.part:
            state.save()
        state.forget()
        return best_factors(split, inputs, projection, state)

    def train(self, sampler: TripletSampler, inputs: Inputs, state: State, validation: CurveSample) -> None:
        """Go on from the checkpoint, if there is one, to the last epoch or the end of patience."""
        c = state.config
        size = min(c.batch, len(sampler))
        steps = len(sampler) // size
        with Progress(f"train {c.model}", steps * c.epochs * size, "positives") as bar, stop_signals() as stopping:
            state.resume(bar, steps, size)
            while state.epoch < c.epochs and not state.out_of_patience():
                self.train_epoch(sampler, inputs, state, (steps, size), bar, stopping)
                mean = state.end_epoch() / steps
                if not (
                    np.isfinite(mean) and all(bool(torch.isfinite(value).all()) for value in state.params.values())
                ):
                    raise Diverged(f"training is not finite in epoch {state.epoch}; lower --lr (now {c.lr:g})", None)
                last = state.epoch == c.epochs
                if last or state.epoch % c.eval_every == 0:
                    auc = validation.auc(*vectors(state.params, inputs, c, *validation.wanted(inputs.shrink.device)))
                    state.record(mean, auc, validation.each)
                    bar.advance(0, f"loss {mean:.4f}" + (f", validation AUC {auc:.4f}" if auc is not None else ""))
                state.save_if_due()
                if stopping() and not last:
                    raise Stopped(f"stopped after epoch {state.epoch} of {c.epochs}{state.save()}")

    def train_epoch(
        self,
        sampler: TripletSampler,
        inputs: Inputs,
        state: State,
        shape: tuple[int, int],
        bar: Progress,
        stopping: Callable[[], bool],
    ) -> None:
        """The batches of an epoch that are not done yet.

        Args:
            shape: batches of an epoch, positives of a batch.
        """
        c, (steps, size) = state.config, shape
        order = sampler.epoch(state.epoch, c.per_user)[: steps * size].view(steps, size)
        for a in range(state.step, steps, CHUNK):
            batches = sample_batches(sampler, order[a : a + CHUNK], c, "y" in state.params)
            for s, batch in enumerate(inputs.read_ahead(batches), a):
                loss, grads = gradients(state.params, inputs, batch, c)
                done = (state.epoch * steps + s) / (c.epochs * steps)
                state.adam.step(state.params, grads, c.lr * (1 - done if c.schedule == "linear" else 1.0))
                state.total += loss.detach()
            bar.advance(len(batches) * size)
            state.step = a + len(batches)
            if state.step < steps:
                state.save_if_due()
                if stopping():
                    raise Stopped(f"stopped in epoch {state.epoch + 1} of {c.epochs}{state.save()}")


def grown(c: TrainConfig, positives: int) -> TrainConfig:
    """Where an epoch has steps in plenty, batches of up to GROWTH times as many positives, in runs as much longer: for
    each positive, what a user took and what stands in memory once a row is then gathered, summed and moved less often.
    """
    factor = 1
    while (
        c.least_steps and c.shared_negatives and factor < GROWTH and positives >= 2 * factor * c.least_steps * c.batch
    ):
        factor *= 2
    return c.changed(batch=factor * c.batch, per_user=c.per_user if c.per_user == 1 else factor * c.per_user)


def refuse_impossible(c: TrainConfig, split: Split, features: ItemFeatures | None) -> None:
    """
    Raises:
        VbprError: the configuration asks for what the features or the catalogue do not have.
    """
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


def best_factors(split: Split, inputs: Inputs, projection: Projection | None, state: State) -> Factors:
    """The model of the best epoch so far."""
    c, best = state.config, state.keeper.best
    users = user_vectors(best, inputs, c).float().cpu().numpy()
    if projection is None:
        items, bias = (t.float().cpu().numpy() for t in item_vectors(best, inputs, c))
        return factors_of(split, users, items, bias, None, {"curve": state.keeper.curve, "scores_unseen": False})
    head = projection.head(best, users.shape[1], c.visual_bias)
    latent, bias_of = latent_items(best, inputs)
    items, bias = np.empty((len(bias_of), users.shape[1]), np.float32), bias_of.cpu().numpy()
    if latent is not None:
        items[:, c.dim :] = latent.cpu().numpy()
    inputs.forget()
    # exact float32 vectors: what training read was rounded
    weight = torch.from_numpy(np.vstack([head.weight[: c.dim], head.bias_weight])).to(bias_of.device)
    for a in range(0, len(items), ROWS):
        z = projection.rows(np.arange(a, min(len(items), a + ROWS)))
        exact = (z @ weight.T).cpu().numpy()
        if head.hidden is not None:
            exact += head.beyond(z.cpu().numpy())[:, np.r_[: c.dim, -1]]
        items[a : a + ROWS, : c.dim] = exact[:, :-1]
        bias[a : a + ROWS] = exact[:, -1] + bias[a : a + ROWS]
    about: dict[str, Any] = {"curve": state.keeper.curve, "scores_unseen": True}
    if c.factors:  # side by side
        about["columns"] = [{"part": "visual", "columns": c.dim}, {"part": "latent", "columns": c.factors}]
    return factors_of(split, users, items, bias, head, about)


CHUNK, GROWTH = 64, 4  # batches that are sampled together, and how much larger they become where purchases are many

__all__ = ["BPR", "CHUNK", "grown"]
