"""How far a training has come: its state, and the validation that its learning curve is made of."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....base.progress import Progress, report
from ....compute.keeper import Keeper
from ....data.split import Split
from ....evaluation.metrics import mean_auc
from ....evaluation.ranks import held_out_ranks
from ...config import TrainConfig
from .adam import Adam, Params

CURVE_USERS, CURVE_PAIRS = 5000, 300_000_000  # the learning curve's users, and scores: cheaper than an epoch


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
    """The parameters of a training and Adam's moments, how far it has come, and the keeper of its checkpoint.

    Attributes:
        epoch: epochs that are done. step: batches of the next one that are done; total: the sum of their losses.
    """

    def __init__(self, config: TrainConfig, params: Params, generator: torch.Generator, path: Path | None) -> None:
        self.config, self.params, self.adam = config, params, Adam(params)
        self.keeper = Keeper(path, config.identity, generator, config.checkpoint_minutes)
        self.epoch, self.step, self.total = 0, 0, torch.zeros((), device=generator.device)

    def end_epoch(self) -> float:
        """Count an epoch; the sum of its batches' losses."""
        total = float(self.total)
        self.epoch, self.step, self.total = self.epoch + 1, 0, torch.zeros_like(self.total)
        return total

    def record(self, loss: float, auc: float | None) -> None:
        """Note the evaluation of the epoch that has ended; keep the parameters if they are the best so far."""
        self.keeper.record({"epoch": self.epoch, "loss": loss} | ({} if auc is None else {"auc": auc}), self.params)
        if auc is not None:
            report(self.epoch, auc)  # `vbpr tune` listens, and ends what promises little

    def out_of_patience(self) -> bool:
        return self.keeper.out_of_patience(self.epoch, self.config.patience * self.config.eval_every)

    def groups(self) -> dict[str, Params]:
        return {"params": self.params, "m": self.adam.m, "v": self.adam.v}

    def save(self) -> str:
        """Write the checkpoint; returns the words that say so."""
        progress = {"epoch": self.epoch, "step": self.step, "total": float(self.total), "t": self.adam.t}
        return self.keeper.save(self.groups(), **progress)

    def save_if_due(self) -> None:
        if self.keeper.due():
            self.save()

    def resume(self, bar: Progress, steps: int, size: int) -> None:
        """Go on from the checkpoint of this very run, if there is one."""
        saved = self.keeper.resume()
        if saved is None:
            return
        groups, progress = saved
        for group, params in self.groups().items():
            for name, value in params.items():
                value.copy_(groups[group][name])
        self.adam.t, self.epoch, self.step = progress["t"], progress["epoch"], progress["step"]
        self.total = self.total + progress["total"]
        bar.advance((self.epoch * steps + self.step) * size)


__all__ = ["CurveSample", "State"]
