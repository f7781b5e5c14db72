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

import torch

from ....base.errors import VbprError
from ....base.progress import Progress
from ....base.stopping import stop_signals
from ....compute.device import full_float32, pick_device
from ....data.images.source import ImageSource
from ....data.split import Split
from ....stores.model.factors import Factors
from ...config import TrainConfig
from ...item_features import ItemFeatures
from ...model import Diverged
from .inputs import Inputs, Projection, make_inputs
from .parameters import initial, user_vectors
from .progress import State
from .result import factors_from
from .sampling import sampler_of
from .sharded import fit_shards
from .trainer import CHUNK, Shard, Trainer
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
        projection = Projection(features, c, device) if c.dim and features is not None else None
        if c.shards > 1:
            return fit_shards(split, projection, c, self.checkpoint)
        sampler = sampler_of(split.train, c, generator)
        inputs = make_inputs(split, projection, c, device, None if self.checkpoint is None else self.checkpoint.parent)
        state = State(c, initial(split, inputs, c, generator), generator, self.checkpoint)
        try:
            self.train(Shard(sampler, inputs, CurveSample(split), min(c.batch, len(sampler))), state)
        except Diverged as error:
            if state.keeper.best:
                error.factors = best_factors(split, inputs, projection, state)
            raise
        if self.part:
            state.save()
        state.forget()
        return best_factors(split, inputs, projection, state)

    def train(self, everyone: Shard, state: State) -> None:
        """Go on from the checkpoint, if there is one."""
        c, size, steps = state.config, everyone.size, len(everyone.sampler) // everyone.size
        trainer = Trainer(state, [everyone], steps)
        with Progress(f"train {c.model}", steps * c.epochs * size, "positives") as bar, stop_signals() as stopping:
            state.resume()
            bar.advance(trainer.done * size)
            trainer.train(lambda batches, note: bar.advance(batches * size, note), stopping)


def grown(c: TrainConfig, positives: int) -> TrainConfig:
    """Where an epoch has steps in plenty, batches of up to GROWTH times as many positives, in runs as much longer: for
    each positive, what a user took and what stands in memory once a row is then gathered, summed and moved less often.
    So for each of several shards.
    """
    factor, most = 1, GROWTH * c.shards
    while c.least_steps and c.shared_negatives and factor < most and positives >= 2 * factor * c.least_steps * c.batch:
        factor *= 2
    runs = min(factor, GROWTH)
    return c.changed(batch=factor * c.batch, per_user=c.per_user if c.per_user == 1 else runs * c.per_user)


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
    best = state.keeper.best
    users = user_vectors(best, inputs, state.config).float().cpu().numpy()
    inputs.forget()
    return factors_from(split, users, best, inputs.shrink, projection, state.config, state.keeper.curve)


GROWTH = 4  # how much larger batches become where purchases are many

__all__ = ["BPR", "CHUNK", "grown"]
