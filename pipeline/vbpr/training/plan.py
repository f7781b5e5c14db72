"""What a training will take, told before it starts: memory by what holds it, and time by a rehearsal of its steps.

plan(split, 512, configure("visual")).peak
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..base.errors import VbprError
from ..compute.device import dtype_for, pick_device
from ..compute.keeper import LARGE
from ..compute.memory import available_memory, give_back
from ..data.dataset import Dataset
from ..data.split import Split, SplitConfig
from ..stores.features.store import FeatureStore
from .catalogue import prepare
from .config import TrainConfig
from .models import MODELS
from .models.bpr.bpr import BPR, CHUNK, grown
from .models.bpr.inputs import SHARE
from .models.bpr.parameters import shapes_of
from .models.bpr.rehearsal import seconds_a_step
from .models.vbpr import VBPR, parts_of
from .models.visual import Visual


@dataclasses.dataclass(frozen=True)
class PartPlan:
    """Estimates for what is trained in one go.

    Attributes:
        steps: of all epochs. batch: positives of each. seconds: of all steps, without what is done but once.
        memory: bytes while it trains, by what holds them: features (prepared), parameters, moments, best (a copy of
            the best epoch's parameters), interactions (as the sampler has them), batches.
        vectors: bytes of the fitted part: users, items, biases.
        disk: bytes that go to nameless files: large tables of the best epoch, and features where they do not fit;
            `memory` has 0 of them.
    """

    steps: int
    batch: int
    seconds: float
    memory: dict[str, int]
    vectors: int
    disk: int

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint."""
        return 2 * self.memory["parameters"] + self.memory["moments"]  # as they are, and at their best

    @property
    def peak(self) -> int:
        """Bytes at the highest: in training, or afterwards, when vectors are made of what was best."""
        afterwards = self.memory["best"] + self.memory["features"] + self.memory["interactions"] + self.vectors
        return max(sum(self.memory.values()), afterwards)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Estimates for a model: its parts by name, in the order in which they are trained, and bytes that are held already
    (libraries, interactions, ids)."""

    parts: dict[str, PartPlan]
    held: int

    @property
    def peak(self) -> int:
        """Bytes of the whole process at the highest; a part that is done leaves its vectors behind."""
        left, peaks = 0, []
        for part in self.parts.values():
            peaks.append(left + part.peak)
            left += part.vectors
        return self.held + max(*peaks, 2 * left)  # parts are put together in new matrices

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts.values())


def estimate(data: Dataset, stores: Sequence[FeatureStore], config: TrainConfig, split: SplitConfig) -> Plan:
    """Estimate what `train` would take; see there for the arguments, and `plan`.

    Raises:
        VbprError: another model, or the features are missing or of another data set.
    """
    visual = MODELS[config.model].visual
    if visual and not stores:
        raise VbprError(f"--model {config.model} needs --features FILE; make one with vbpr extract")
    parts = prepare(data, stores, config=split)
    give_back()
    return plan(parts, sum(store.dim for store in stores) if visual else 0, config)


def plan(split: Split, width: int, config: TrainConfig) -> Plan:
    """Estimate a training of `visual`, `vbpr` or `bprmf`. Reads no features.

    Args:
        width: columns of the features; 0: none.

    Raises:
        VbprError: another model.
    """
    build = MODELS[config.model].build
    if build not in (BPR, VBPR, Visual):
        raise VbprError(f"--plan is for --model visual, vbpr and bprmf, and not {config.model}; leave it out")
    configs = parts_of(config) if build is VBPR else {config.model: config}
    device = pick_device(config.device)
    return Plan({name: plan_part(split, width, c, device) for name, c in configs.items()}, resident())


def plan_part(split: Split, width: int, c: TrainConfig, device: torch.device) -> PartPlan:
    """Estimate what is trained in one go."""
    c, pairs, (users, items) = grown(c, split.train.nnz), split.train.nnz, split.train.shape
    d = (min(c.axes or width, width) if c.whiten else width) if c.dim else 0
    shapes = shapes_of(c, d, users, items, int((split.item_counts > 0).sum()))
    tables = [4 * math.prod(shape) for shape in shapes.values()]
    numbers, best = sum(tables), sum(size for size in tables if size < LARGE)
    features = d * (items + users * c.history) * dtype_for(c.precision, device).itemsize
    limit = c.memory_limit * 1e9 or (SHARE * available_memory() if device.type == "cpu" else math.inf)
    size = min(c.batch, pairs)
    degree = pairs / users
    entries = size / max(1.0, min(c.per_user, degree)) * degree  # of what the users of a batch took
    memory = {
        "features": 0 if features > limit else features,
        "parameters": numbers,
        "moments": 2 * numbers,
        "best": best,
        "interactions": 8 * (5 + ("y" in shapes)) * pairs,
        "batches": int(CHUNK * 8 * (6 * entries + 8 * size) + 4 * size * (4 * c.shared_negatives + 6 * (d + c.dim))),
    }
    steps = c.epochs * (pairs // size)
    vectors = 4 * (users + items) * (c.dim * (d > 0) + c.factors) + 4 * items
    seconds = steps * seconds_a_step(split, d, c, device)
    disk = numbers - best + (features if features > limit else 0)
    return PartPlan(steps, size, seconds, memory, vectors, disk)


def resident() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def told(planned: Plan, available: int) -> list[str]:
    """The estimate as lines for people.

    Args:
        available: bytes that this process may still take.
    """
    lines = []
    for name, part in planned.parts.items():
        holds = ", ".join(f"{what} {size / 1e9:.2f}" for what, size in part.memory.items())
        lines.append(
            f"{name}: {part.steps:,} steps of {part.batch:,} positives, about {part.seconds:,.0f} s; GB: {holds}"
        )
        if part.disk:
            lines.append(f"{name}: {part.disk / 1e9:.2f} GB go to nameless files beside the model meanwhile")
    checkpoint = max(part.checkpoint for part in planned.parts.values())
    lines.append(
        f"about {planned.peak / 1e9:.1f} GB at the highest, of which {planned.held / 1e9:.1f} are held now; "
        f"{available / 1e9:.1f} GB are available; checkpoints of up to {checkpoint / 1e9:.2f} GB"
    )
    if planned.peak - planned.held > available:
        lines.append("that does not fit: lower --dim or --factors, or `axes` in --config")
    return lines


__all__ = ["PartPlan", "Plan", "estimate", "plan", "told"]
