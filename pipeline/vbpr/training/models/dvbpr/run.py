"""A training of DVBPR under way: the best epoch so far, the learning curve, the checkpoint."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ....base.progress import Progress
from ....compute.checkpoint import read_checkpoint, write_checkpoint
from ...config import TrainConfig
from ...model import Diverged
from ..bpr.progress import CurveSample
from .steps import Pictures


class Run:
    """How far training has come, the best vectors so far, and the checkpoint that survives a kill."""

    def __init__(
        self, c: TrainConfig, network: Any, theta: nn.Parameter, generator: torch.Generator, path: Path | None
    ) -> None:
        self.c, self.network, self.theta, self.generator, self.path = c, network, theta, generator, path
        self.parameters = {**dict(network.named_parameters()), "theta_u": theta}
        self.adam = torch.optim.Adam(list(self.parameters.values()), c.lr)
        self.loss = torch.zeros((), device=theta.device)
        self.step = self.encoded = 0
        self.best_auc, self.best_step = -1.0, 0
        self.best = (theta.detach(), theta.detach())
        self.curve: list[dict[str, float]] = []
        self.saved = time.monotonic()

    @torch.no_grad()
    def evaluate(
        self, validation: CurveSample, pixels: Pictures, steps: int, bar: Progress, dtype: torch.dtype
    ) -> None:
        """At the end of an epoch: encode the catalogue, and keep its vectors if validation likes them best."""
        epoch, mean = self.step // steps, float(self.loss) / steps
        self.loss = torch.zeros_like(self.loss)
        if not math.isfinite(mean):
            raise Diverged(f"the loss of epoch {epoch} is not finite; lower --lr (now {self.c.lr:g})", None)
        if epoch % self.c.eval_every and epoch < self.c.epochs:
            return
        on, parts = self.theta.device, []
        with torch.autocast(on.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            for a in range(0, len(pixels), 256):
                parts.append(self.network(pixels(torch.arange(a, min(len(pixels), a + 256)))).float())
        items = torch.cat(parts)
        if not (items.isfinite().all() and self.theta.isfinite().all()):
            raise Diverged(f"training is not finite in epoch {epoch}; lower --lr (now {self.c.lr:g})", None)
        self.encoded += len(items)
        auc = validation.auc(self.theta.detach(), items, torch.zeros(len(items), device=on))
        self.curve.append(
            {"epoch": epoch, "loss": mean, "encoded": self.encoded} | ({} if auc is None else {"auc": auc})
        )
        if auc is None or auc > self.best_auc:
            self.best_auc, self.best_step = -1.0 if auc is None else auc, self.step
            self.best = (self.theta.detach().clone(), items)
        bar.advance(0, f"loss {mean:.4f}" + (f", validation AUC {auc:.4f}" if auc is not None else ""))

    def patience_lost(self, steps: int) -> bool:
        c = self.c
        return bool(c.patience) and self.step - self.best_step >= c.patience * c.eval_every * steps

    def save(self) -> str:
        """Write the checkpoint; returns the words that say so."""
        if self.path is None:
            return ""
        tensors = {f"p/{name}": p.detach() for name, p in self.parameters.items()}
        for name, p in self.parameters.items():
            tensors |= {
                f"{key}/{name}": self.adam.state[p][key] for key in ("exp_avg", "exp_avg_sq") if self.adam.state[p]
            }
        tensors |= {"best/users": self.best[0], "best/items": self.best[1], "generator": self.generator.get_state()}
        tensors["loss"] = self.loss
        told = {name: getattr(self, name) for name in ("step", "encoded", "best_auc", "best_step", "curve")}
        write_checkpoint(self.path, tensors, self.c.identity, **told)
        self.saved = time.monotonic()
        return f"; {self.path} holds the state: run the same command again to resume"

    def resume(self, bar: Progress) -> None:
        """Go on from the checkpoint, if there is one of this very run; another one is ignored and overwritten."""
        found = read_checkpoint(self.path, self.c.identity)
        if found is None:
            return
        tensors, told = found
        on = self.theta.device
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(tensors[f"p/{name}"])
                if f"exp_avg/{name}" in tensors:
                    moments = {key: tensors[f"{key}/{name}"].to(on) for key in ("exp_avg", "exp_avg_sq")}
                    self.adam.state[p] = {"step": torch.tensor(float(told["step"])), **moments}
        self.best = tensors["best/users"].to(on), tensors["best/items"].to(on)
        self.loss = tensors["loss"].to(on)
        self.generator.set_state(tensors["generator"])
        for name, value in told.items():
            setattr(self, name, value)
        bar.advance(self.step)


__all__ = ["Run"]
