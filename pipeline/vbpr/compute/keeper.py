"""What every trainer keeps while it trains: the learning curve, the best epoch, patience, and its checkpoint.

keeper.record({"epoch": 1, "loss": .5, "auc": .8}, params); keeper.save({"m": moments}, step=0); keeper.resume()
"""

import contextlib
import mmap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..base.errors import VbprError
from ..base.progress import report_epoch
from .checkpoint import read_checkpoint, write_checkpoint
from .memory import memory_on_disk

LAYOUT = 3  # of a checkpoint; one of another layout is another run's
SHARE = 0.015  # of the time, at most, for checkpoints
LARGE = 2**26  # bytes from which on a best tensor is worth a file
RATE = 2e8  # bytes a second that a disk is trusted to write before it has been seen to


class Keeper:
    """The curve and the best tensors of a training, saved with its random numbers so that a killed run goes on.

    Attributes:
        curve: a point an evaluation: {"epoch", "loss"}, and "auc" where there is validation.
        best: copies of the tensors of the best epoch so far, by name; empty before the first evaluation. Large ones lie
            in a nameless file beside the checkpoint: they are written once an epoch, and read at the end.
    """

    def __init__(self, path: Path | None, identity: Any, generator: torch.Generator, minutes: float = 0.0) -> None:
        """
        Args:
            path: of the checkpoint; None: nothing is saved.
            identity: a JSON value that a checkpoint must agree with.
            generator: whose state is saved and restored.
            minutes: between checkpoints at least, see `due`; 0: one at every chance.
        """
        self.path, self.identity, self.generator, self.minutes = path, [LAYOUT, identity], generator, minutes
        self.curve: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.mapped: list[mmap.mmap] = []
        self.saved, self.cost = time.monotonic(), 0.0  # when, and how many seconds the last one took

    @property
    def best_epoch(self) -> int:
        """The epoch of the highest AUC, the first of equal ones; without validation the latest; 0: none yet."""
        best = max(self.curve, key=lambda point: point.get("auc", point["epoch"]), default={"epoch": 0})
        return int(best["epoch"])

    def record(self, point: dict[str, float], tensors: Mapping[str, Tensor], tell: bool = True) -> None:
        """Add a point to the curve, copy the tensors if it is the best one so far, and tell whoever listens."""
        self.curve.append(point)
        if self.best_epoch == point["epoch"]:
            for name, value in tensors.items():
                if name not in self.best:
                    self.best[name] = self.empty_like(value.detach())
                self.best[name].copy_(value.detach())
            self.let_go()
        if tell:
            report_epoch(int(point["epoch"]), **{name: value for name, value in point.items() if name != "epoch"})

    def empty_like(self, value: Tensor) -> Tensor:
        """Room for a copy of a tensor."""
        if self.path is not None and value.device.type == "cpu" and value.nbytes >= LARGE:
            with contextlib.suppress(VbprError):  # no room on the disk: then in memory
                self.mapped.append(memory_on_disk(value.nbytes, self.path.parent, "the best epoch's parameters"))
                return torch.frombuffer(self.mapped[-1], dtype=value.dtype).view(value.shape)
        return torch.empty_like(value)

    def let_go(self) -> None:
        """Leave what is mapped to the kernel, which has it in the file's pages."""
        for memory in self.mapped:
            memory.madvise(mmap.MADV_DONTNEED)

    def out_of_patience(self, epoch: int, patience: int) -> bool:
        """Whether `patience` epochs have passed since the best one; never for a patience of 0."""
        return bool(patience) and epoch - self.best_epoch >= patience

    def due(self, size: int = 0) -> bool:
        """Whether it is time for another checkpoint: after its minutes, and when it costs less than SHARE of the time.

        Args:
            size: bytes of it, which tell what the first one may cost.
        """
        waited = time.monotonic() - self.saved
        cost = self.cost or size / RATE
        return waited > self.minutes * 60 and (not self.minutes or waited * SHARE > cost)

    def save(self, groups: Mapping[str, Mapping[str, Tensor]], **progress: Any) -> str:
        """Write the checkpoint; returns the words that say so.

        Args:
            groups: tensors by group and name. progress: JSON values.
        """
        if self.path is None:
            return ""
        tensors = {
            f"{group}/{name}": value
            for group, named in (*groups.items(), ("best", self.best))
            for name, value in named.items()
        }
        tensors["generator"] = self.generator.get_state()
        begun = time.monotonic()
        write_checkpoint(self.path, tensors, self.identity, curve=self.curve, **progress)
        self.let_go()
        self.saved = time.monotonic()
        self.cost = self.saved - begun
        return f"; {self.path} holds the state: run the same command again to resume"

    def resume(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """Restore curve, best and random numbers; returns (groups, progress) as they were saved, on the CPU.

        None where there is no checkpoint of this very run: another one is ignored, and overwritten by the next `save`.
        """
        saved = read_checkpoint(self.path, self.identity)
        if saved is None:
            return None
        tensors, progress = saved
        self.generator.set_state(tensors.pop("generator"))
        self.curve = progress.pop("curve")
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = value
        for name, value in groups.pop("best", {}).items():
            self.best[name] = self.empty_like(value.to(self.generator.device)).copy_(value)
        self.let_go()
        return groups, progress


def adam_state(adam: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The steps and moments of torch's Adam, a group for `Keeper.save`."""
    return {f"{n}/{key}": value for n, state in adam.state_dict()["state"].items() for key, value in state.items()}


def restore_adam(adam: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Put back what `adam_state` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in saved.items():
        n, key = name.split("/")
        state.setdefault(int(n), {})[key] = value
    adam.load_state_dict(adam.state_dict() | {"state": state})


__all__ = ["LARGE", "LAYOUT", "Keeper", "adam_state", "restore_adam"]
