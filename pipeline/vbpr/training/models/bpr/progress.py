"""How far a training has come: the learning curve, the best epoch so far, the checkpoint."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....base.progress import Progress, report
from ....compute.checkpoint import read_checkpoint, write_checkpoint
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


__all__ = ["CurveSample", "State"]
