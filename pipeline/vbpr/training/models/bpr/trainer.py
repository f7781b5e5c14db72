"""The steps of a training: of all users in one, or of those of the shards that one of several workers has."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ....base.stopping import Stopped
from ...model import Diverged
from .adam import Params
from .batches import Batch, sample_batches
from .gradients import gradients
from .inputs import Inputs
from .mates import Alone, Found, Mates, all_found
from .parameters import OF_USERS, vectors
from .progress import State
from .sampling import TripletSampler
from .validation import CurveSample

CHUNK = 64  # batches that are sampled together


@dataclasses.dataclass
class Shard:
    """Some of the users, or all of them, and what a training needs for them.

    Attributes:
        size: positives of a batch, which are the `share` of a batch of all shards.
        state: of the parameters that these users have of their own; None: they are with all others.
    """

    sampler: TripletSampler
    inputs: Inputs
    validation: CurveSample
    size: int
    share: float = 1.0
    state: State | None = None


class Regroup(Exception):
    """Others have come, who are to be let in; the checkpoint is written."""


class Ledger(Protocol):
    """Who writes the checkpoint of a training by shards."""

    def save(self, trainer: "Trainer") -> str:
        """Write it; returns the words that say so."""


class Trainer:
    """Trains to the last epoch or the end of patience, from wherever its states are."""

    def __init__(
        self,
        state: State,
        shards: Sequence[Shard],
        steps: int,
        mates: Mates | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """
        Args:
            state: of the parameters that all shards share.
            shards: those that are here. mates: who has the others. steps: of an epoch.
            ledger: None where there is but one shard: `state` writes it.
        """
        self.state, self.shards, self.steps, self.mates, self.ledger = state, shards, steps, mates or Alone(), ledger

    @property
    def states(self) -> list[State]:
        return [self.state, *(shard.state for shard in self.shards if shard.state is not None)]

    @property
    def done(self) -> int:
        """Batches."""
        return self.state.epoch * self.steps + self.state.step

    def train(self, advance: Callable[[int, str], None], stopping: Callable[[], bool]) -> None:
        """
        Args:
            advance: is told of batches that are done, and how it goes.

        Raises:
            Diverged: the loss or a parameter is not finite.
            Stopped: Ctrl-C or SIGTERM; the checkpoint lets the next run resume.
            Regroup, Lost: others have come, or one is gone.
        """
        c, state = self.state.config, self.state
        while state.epoch < c.epochs and not state.out_of_patience():
            self.train_epoch(advance, stopping)
            means = [each.end_epoch() / self.steps for each in self.states]
            mean = means[0]  # the others have no losses
            fine = np.isfinite(mean) and all(
                bool(torch.isfinite(value).all()) for each in self.states for value in each.params.values()
            )
            if not all(self.of_all(fine)):
                raise Diverged(f"training is not finite in epoch {state.epoch}; lower --lr (now {c.lr:g})", None)
            last = state.epoch == c.epochs
            if last or state.epoch % c.eval_every == 0:
                auc = self.evaluate(mean)
                advance(0, f"loss {mean:.4f}" + (f", validation AUC {auc:.4f}" if auc is not None else ""))
            self.pause(f"after epoch {state.epoch}", stopping, last)

    def train_epoch(self, advance: Callable[[int, str], None], stopping: Callable[[], bool]) -> None:
        """The batches of an epoch that are not done yet."""
        c, state, steps = self.state.config, self.state, self.steps
        orders = [
            shard.sampler.epoch(state.epoch, c.per_user)[: steps * shard.size].view(steps, shard.size)
            for shard in self.shards
        ]
        for a in range(state.step, steps, CHUNK):
            b = min(steps, a + CHUNK)
            sampled = [
                shard.inputs.read_ahead(sample_batches(shard.sampler, order[a:b], c, "y" in state.params))
                for shard, order in zip(self.shards, orders, strict=True)
            ]
            for s, batches in enumerate(zip(*sampled, strict=True), a):
                done = (state.epoch * steps + s) / (c.epochs * steps)
                state.total += self.step(batches, c.lr * (1 - done if c.schedule == "linear" else 1.0))
            advance(b - a, "")
            for each in self.states:
                each.step = b
            if b < steps:
                self.pause(f"in epoch {state.epoch + 1}", stopping)

    def step(self, batches: Sequence[Batch], rate: float) -> Tensor:
        """One step, of a batch of each shard; its loss."""
        c, found = self.state.config, list[Found]()
        for shard, batch in zip(self.shards, batches, strict=True):
            loss, grads = gradients(self.params_of(shard), shard.inputs, batch, c)
            if shard.state is not None:
                loss, grads = loss * shard.share, {k: (rows, grad * shard.share) for k, (rows, grad) in grads.items()}
                own = {name: grads.pop(name) for name in OF_USERS if name in grads}
                shard.state.adam.step(shard.state.params, own, rate)
            found.append((loss, grads))
        loss, grads = all_found(self.mates, found)
        self.state.adam.step(self.state.params, grads, rate)
        return loss.detach()

    def params_of(self, shard: Shard) -> Params:
        return self.state.params if shard.state is None else self.state.params | shard.state.params

    def evaluate(self, loss: float) -> float | None:
        """Validate, and keep what is best; the AUC, None where nobody has a validation item.

        Args:
            loss: the mean of the epoch, for the curve.
        """
        c, aucs = self.state.config, []
        for shard in self.shards:
            wanted = shard.validation.wanted(shard.inputs.shrink.device)
            aucs.append(shard.validation.auc(*vectors(self.params_of(shard), shard.inputs, c, *wanted)))
        auc, each = aucs[0], self.shards[0].validation.each
        if self.shards[0].state is not None:
            each = torch.cat([one for (one,) in self.mates.gather([[shard.validation.each] for shard in self.shards])])
            auc = float(each.mean()) if len(each) else None
        for state in self.states:
            state.record(loss, auc, each, tell=state is self.state)
        return auc

    def of_all(self, flag: bool) -> list[bool]:
        """What everyone says."""
        told = self.mates.gather([[torch.tensor([flag])] for _ in self.shards])
        return [bool(one) for (one,) in told]

    def pause(self, where: str, stopping: Callable[[], bool], last: bool = False) -> None:
        """Between two batches: write the checkpoint if all find it time, and end if anyone is told to.

        Raises:
            Stopped, Regroup: see `train`.
        """
        due = all(state.keeper.due(state.size) for state in self.states)
        told = self.mates.gather([[torch.tensor([due, stopping(), self.mates.more()])] for _ in self.shards])
        flags = torch.stack([one for (one,) in told])
        if flags[:, 0].all():
            self.save()
        if last:
            return
        if flags[:, 1].any():
            raise Stopped(f"stopped {where} of {self.state.config.epochs}{self.save()}")
        if flags[:, 2].any():
            self.save()
            raise Regroup

    def save(self) -> str:
        return self.state.save() if self.ledger is None else self.ledger.save(self)


__all__ = ["CHUNK", "Ledger", "Regroup", "Shard", "Trainer"]
