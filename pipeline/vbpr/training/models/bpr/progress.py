"""How far a training has come: its parameters and their moments, its learning curve, and its checkpoint."""

from pathlib import Path

import torch
from torch import Tensor

from ....compute.keeper import Keeper
from ...config import TrainConfig
from .adam import Adam, Params


class State:
    """The parameters of a training and Adam's moments, how far it has come, and the keeper of its checkpoint.

    Attributes:
        epoch: epochs that are done. step: batches of the next one that are done; total: the sum of their losses.
        fallen: whether validation was much worse in the last epoch than in the best.
    """

    def __init__(self, config: TrainConfig, params: Params, generator: torch.Generator, path: Path | None) -> None:
        self.config, self.params, self.adam = config, params, Adam(params)
        self.keeper = Keeper(path, config.identity, generator, config.checkpoint_minutes)
        self.epoch, self.step, self.total = 0, 0, torch.zeros((), device=generator.device)
        self.fallen = False

    def forget(self) -> None:
        """Give back the memory of all but the best parameters."""
        self.params, self.adam.m, self.adam.v = {}, {}, {}

    def end_epoch(self) -> float:
        """Count an epoch; the sum of its batches' losses."""
        total = float(self.total)
        self.epoch, self.step, self.total = self.epoch + 1, 0, torch.zeros_like(self.total)
        return total

    def record(self, loss: float, auc: float | None, each: Tensor, tell: bool = True) -> None:
        """Note the evaluation of the epoch that has ended; keep the parameters if they are the best so far.

        Args:
            each: (n,) AUC of each user of the validation, always of the same ones. tell: whoever listens to figures.
        """
        self.fallen = fell(self.keeper.best.get(EACH), each)
        kept = {**self.params, EACH: each}
        self.keeper.record({"epoch": self.epoch, "loss": loss} | ({} if auc is None else {"auc": auc}), kept, tell)

    def out_of_patience(self) -> bool:
        """Whether nothing is to be gained: no better epoch for as many as `patience` says, or one that was so much
        worse than the best (`fell`) that it is no chance."""
        patience = self.config.patience * self.config.eval_every
        return bool(patience) and (self.fallen or self.keeper.out_of_patience(self.epoch, patience))

    def groups(self) -> dict[str, Params]:
        return {"params": self.params, "m": self.adam.m, "v": self.adam.v}

    @property
    def size(self) -> int:
        """Bytes of a checkpoint."""
        groups = (*self.groups().values(), self.keeper.best)
        return sum(value.nbytes for group in groups for value in group.values())

    def save(self) -> str:
        """Write the checkpoint; returns the words that say so."""
        progress = {"epoch": self.epoch, "step": self.step, "total": float(self.total), "t": self.adam.t}
        progress["fallen"] = self.fallen
        return self.keeper.save(self.groups(), **progress)

    def resume(self) -> bool:
        """Go on from the checkpoint of this very run; whether there is one."""
        saved = self.keeper.resume()
        if saved is None:
            return False
        groups, progress = saved
        for group, params in self.groups().items():
            for name, value in params.items():
                value.copy_(groups[group][name])
        self.adam.t, self.epoch, self.step = progress["t"], progress["epoch"], progress["step"]
        self.total, self.fallen = self.total + progress["total"], progress["fallen"]
        return True


def fell(best: Tensor | None, now: Tensor) -> bool:
    """Whether the AUC of the same users is lower by more than FALL standard errors of their differences."""
    if best is None or best.shape != now.shape or len(now) < 2:
        return False
    lost = best - now.to(best.device)
    return bool(lost.mean() > FALL * lost.std() / len(lost) ** 0.5)


EACH = "validation"  # beside the best parameters: the AUC of each user of the validation
FALL = 3.0

__all__ = ["State"]
