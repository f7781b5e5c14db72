"""One step of DVBPR: two encodings a triplet as published, or a few images for all triplets among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....base.arrays import places
from ....base.errors import VbprError
from ....data.images.source import ImageSource
from ....data.split import Split
from ....networks.pixel_cache import GREY, PixelCache
from ....networks.prepare import Preprocessing
from ...config import TrainConfig
from ..bpr.sampling import TripletSampler


class Pictures:
    """The catalogue's pictures by item; an item without a usable one is a grey square."""

    def __init__(self, path: Path, source: ImageSource, split: Split, how: Preprocessing, device: torch.device) -> None:
        self.cache, self.device = PixelCache.build(path, source, how), device
        self.row = places(source.item_ids, split.item_ids)
        self.pictured = (self.row >= 0) & self.cache.usable[self.row]
        if not self.pictured.any():
            raise VbprError(f"{source.name} has a picture of none of the {len(split.item_ids):,} items; check --data")
        self.mean = torch.tensor(how.mean, device=device).view(1, 3, 1, 1) * 255
        self.scale = torch.tensor(how.std, device=device).view(1, 3, 1, 1) * 255

    def __len__(self) -> int:
        return len(self.row)

    def __call__(self, items: Tensor) -> Tensor:
        """(n,) items -> (n, 3, size, size) float32 on the device, scaled."""
        at = items.cpu().numpy()
        raw = self.cache.rows[self.row[at]]
        raw[~self.pictured[at]] = GREY
        x = torch.from_numpy(np.ascontiguousarray(raw)).to(self.device, non_blocking=True)
        return (x.permute(0, 3, 1, 2).float() - self.mean) / self.scale


def plain_step(
    sampler: TripletSampler, network: Any, theta: Tensor, pixels: Pictures, generator: torch.Generator, c: TrainConfig
) -> tuple[Tensor, Tensor, int]:
    """Users, the sum of -ln sigma and encodings of B triplets: two each, with dropout masks of their own."""
    u, i, j = sampler.draw(c.batch)
    phi = network(pixels(torch.cat([i, j])), generator).float()
    return u, F.softplus((theta[u] * (phi[c.batch :] - phi[: c.batch])).sum(1)).sum(), 2 * c.batch


def shared_step(split: Split, sampler: TripletSampler) -> Callable[..., tuple[Tensor, Tensor, int]]:
    """A step that encodes a set of distinct images once and forms all triplets among them."""
    takers = split.train.T.tocsr()

    def step(
        sampler: TripletSampler, network: Any, theta: Tensor, pixels: Pictures, generator: torch.Generator,
        c: TrainConfig,
    ) -> tuple[Tensor, Tensor, int]:  # fmt: skip
        half = max(1, c.images_per_step // 2)
        taken, other = sampler.positives(half)[1], sampler.below(sampler.items, max(1, c.images_per_step - half))
        items = torch.unique(torch.cat([taken, other]))
        part = takers[items.cpu().numpy()]
        at = torch.from_numpy(np.repeat(np.arange(len(items)), np.diff(part.indptr))).to(items.device)
        u = torch.from_numpy(part.indices).long().to(items.device)
        if len(u) > c.batch:
            chosen = torch.randperm(len(u), generator=generator, device=u.device)[: c.batch]
            u, at = u[chosen], at[chosen]
        phi = network(pixels(items), generator).float()
        scores = theta[u] @ phi.T
        allowed = sampler.allowed(u, items)
        loss = F.softplus(scores - scores.gather(1, at[:, None])) * allowed
        # a pair counts as one triplet of the plain loss does: the mean over its negatives
        return u, (loss.sum(1) / allowed.sum(1).clamp(min=1)).sum(), len(items)

    return step


__all__ = ["Pictures", "plain_step", "shared_step"]
