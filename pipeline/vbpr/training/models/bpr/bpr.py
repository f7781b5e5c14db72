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

from pathlib import Path

import numpy as np
import torch

from ....base.errors import VbprError
from ....base.progress import Progress
from ....base.stopping import Stopped, stop_signals
from ....compute.device import full_float32, pick_device
from ....data.split import Split
from ....stores.model.factors import Factors
from ...config import TrainConfig
from ...item_features import ROWS, ItemFeatures
from ...model import factors_of
from .adam import Adam
from .batches import draw
from .gradients import gradients
from .inputs import Inputs, Projection, make_inputs
from .parameters import initial, vectors
from .progress import CurveSample, State
from .sampling import TripletSampler


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
        c, device = self.config, pick_device(self.config.device)
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

__all__ = ["BPR", "Diverged"]
