"""A training of DVBPR under way: its state, the evaluation that ends an epoch, the checkpoint."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ....base.progress import Progress
from ....compute.keeper import Keeper, adam_state, restore_adam
from ...config import TrainConfig
from ...model import Diverged
from ..bpr.validation import CurveSample
from .steps import Pictures


class Run:
    """A network, user factors and their Adam; how far training has come, and the keeper of its checkpoint.

    Attributes:
        steps: of an epoch. step: those that are done; encoded: the images that they, and validations, took.
        loss: the sum of the mean losses of the steps of the epoch in hand.
        keeper: its best tensors are `users` (U, K) and `items` (I, K).
    """

    def __init__(
        self,
        c: TrainConfig,
        network: Any,
        theta: nn.Parameter,
        steps: int,
        generator: torch.Generator,
        path: Path | None,
    ) -> None:
        self.c, self.network, self.theta, self.steps = c, network, theta, steps
        self.parameters = {**dict(network.named_parameters()), "theta_u": theta}
        self.adam = torch.optim.Adam(list(self.parameters.values()), c.lr)
        self.keeper = Keeper(path, c.identity, generator, c.checkpoint_minutes)
        self.loss = torch.zeros((), device=theta.device)
        self.step = self.encoded = 0

    @torch.no_grad()
    def end_epoch(self, validation: CurveSample, pixels: Pictures, bar: Progress, bf16: bool) -> None:
        """Encode the catalogue, unless no evaluation is due, and keep its vectors if validation likes them best."""
        epoch, mean = self.step // self.steps, float(self.loss) / self.steps
        self.loss = torch.zeros_like(self.loss)
        if not math.isfinite(mean):
            raise Diverged(f"the loss of epoch {epoch} is not finite; lower --lr (now {self.c.lr:g})", None)
        if epoch % self.c.eval_every and epoch < self.c.epochs:
            return
        on, parts = self.theta.device, []
        with torch.autocast(on.type, torch.bfloat16, enabled=bf16):
            for a in range(0, len(pixels), 256):
                parts.append(self.network(pixels(torch.arange(a, min(len(pixels), a + 256)))).float())
        items = torch.cat(parts)
        if not (items.isfinite().all() and self.theta.isfinite().all()):
            raise Diverged(f"training is not finite in epoch {epoch}; lower --lr (now {self.c.lr:g})", None)
        self.encoded += len(items)
        users, candidates = (slice(None) if rows is None else rows for rows in validation.wanted(on))
        vectors = items[candidates]
        auc = validation.auc(self.theta.detach()[users], vectors, vectors.new_zeros(len(vectors)))
        point = {"epoch": epoch, "loss": mean, "encoded": self.encoded} | ({} if auc is None else {"auc": auc})
        self.keeper.record(point, {"users": self.theta, "items": items})
        bar.advance(0, f"loss {mean:.4f}" + (f", validation AUC {auc:.4f}" if auc is not None else ""))

    def out_of_patience(self) -> bool:
        return self.keeper.out_of_patience(self.step // self.steps, self.c.patience * self.c.eval_every)

    def save(self) -> str:
        """Write the checkpoint; returns the words that say so."""
        groups = {"p": self.parameters, "adam": adam_state(self.adam), "sum": {"loss": self.loss}}
        return self.keeper.save(groups, step=self.step, encoded=self.encoded)

    def resume(self, bar: Progress) -> None:
        """Go on from the checkpoint of this very run, if there is one."""
        saved = self.keeper.resume()
        if saved is None:
            return
        groups, progress = saved
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(groups["p"][name])
        restore_adam(self.adam, groups.get("adam", {}))
        self.loss = groups["sum"]["loss"].to(self.theta.device)
        self.step, self.encoded = progress["step"], progress["encoded"]
        bar.advance(self.step)


__all__ = ["Run"]
