"""What the loss needs besides the parameters: prepared features, and what each user took, on the training device."""

import dataclasses
import functools
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import VbprError
from ..factors import Head
from ..interactions import Split
from ..recommender import ItemFeatures
from .batches import Batch
from .config import TrainConfig

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the loss needs besides the parameters, on the training device.

    Attributes:
        x: (I, d) prepared features, or None. h: (U, d) float32 sums of x over the train items of each user, or None.
        degree: (U,) train items a user. shrink: (I,) s_i. taken: the train items of all users, and where each's begin.
        mapped: whether x and h lie on the disk.
    """

    x: Tensor | None
    h: Tensor | None
    degree: Tensor
    shrink: Tensor
    taken: tuple[Tensor, Tensor] | None = None
    mapped: bool = False


class Projection:
    """Features prepared for training: standardised, each row (if `unit`) of length one, turned into their principal
    axes, each axis divided by its deviation to the power `whiten`, and all scaled to a mean square length of 1 a row.

    x = z @ turn, (D, d) turn (a number where there is nothing to turn): after the length still one linear map, so a
    fitted head folds back onto raw features.
    """

    def __init__(self, features: ItemFeatures, config: TrainConfig, device: torch.device) -> None:
        self.features, self.device, self.unit = features, device, config.unit
        dim = len(features.mean)
        if not config.whiten:
            self.turn = torch.tensor(1.0 if config.unit else dim**-0.5, device=device)
            return
        gram = torch.zeros(dim, dim, device=device)
        rows = np.flatnonzero(features.known)
        sample = rows[np.sort(np.random.default_rng(config.seed).permutation(len(rows))[:CORRELATION_ROWS])]
        for a in range(0, len(sample), ROWS):
            z = self.rows(sample[a : a + ROWS])
            gram += z.T @ z
        values, vectors = torch.linalg.eigh(gram / len(sample))
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        keep = min(config.axes or dim, int((values > 1e-6 * values[0]).sum()))
        values, vectors = values[:keep], vectors[:, :keep]
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        power = values ** (-config.whiten / 2)
        # An axis has two directions: the one in which its largest entry is positive, on any machine.
        self.turn = vectors * largest.sign() * power / (values * power**2).sum().sqrt()

    def rows(self, rows: Array) -> Tensor:
        """(n, D) float32 standardised features of some items, on the device."""
        z = torch.from_numpy(self.features.standardised(rows)).to(self.device)
        return F.normalize(z, dim=1, eps=1e-12) if self.unit else z

    @property
    def width(self) -> int:
        """d, columns of prepared features."""
        return self.turn.shape[1] if self.turn.ndim else len(self.features.mean)

    def __call__(self, out: Tensor) -> Tensor:
        """Fill `out`, (I, d) on the device, with the prepared features, in blocks."""
        n, dtype = out.shape[0], out.dtype
        turn = self.turn.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)
        for a in range(0, n, ROWS):
            z = self.rows(np.arange(a, min(n, a + ROWS)))
            out[a : a + ROWS] = z.to(turn.dtype) @ turn if turn.ndim else z * turn
        return out

    def head(self, e: Tensor, columns: int, visual_bias: bool) -> Head:
        """Fold a fitted E (its last row beta, if there is one) back onto raw features; `columns` is the model's K."""
        folded = (e.float() @ self.turn.T if self.turn.ndim else e.float() * self.turn).cpu().numpy()
        beta = folded[-1] if visual_bias else np.zeros(folded.shape[1], np.float32)
        weight = np.zeros((columns, folded.shape[1]), np.float32)
        k = len(folded) - visual_bias
        weight[:k] = folded[:k]
        return Head(self.features.mean, self.features.scale, weight, beta, unit=self.unit)


ROWS = 512  # of raw features at a time: what is done to them stays in the cache
CORRELATION_ROWS = 20_000  # rows that tell the principal axes of up to a few thousand columns well enough


def make_inputs(
    split: Split, projection: Projection | None, c: TrainConfig, device: torch.device, folder: Path | None = None
) -> Inputs:
    degree = torch.from_numpy(np.diff(split.train.indptr)).float().to(device)
    count = torch.from_numpy(split.item_counts).float().to(device)
    shrink = count / (count + c.shrink) if c.shrink else torch.ones_like(count)
    taken = tuple(torch.from_numpy(a).long().to(device) for a in (split.train.indices, split.train.indptr[:-1]))
    if projection is None:
        return Inputs(None, None, degree, shrink)
    dtype = c.torch_dtype(device)
    users, items = split.train.shape
    size = projection.width * (items * dtype.itemsize + users * c.history * torch.float32.itemsize)
    mapped = 0 < c.memory_limit * 1e9 < size
    if mapped and device.type != "cpu":
        raise VbprError("--memory-limit maps features from disk: choose --device cpu, or fewer `axes` in --config")
    empty = functools.partial(mapped_rows, folder) if mapped else torch.empty
    x = projection(empty((items, projection.width), dtype=dtype, device=device))
    h = None
    if c.history:
        h = empty((users, projection.width), dtype=torch.float32, device=device)
        begin = split.train.indptr
        edges = np.unique(np.r_[np.searchsorted(begin, np.arange(0, begin[-1], ENTRIES)), 0, users])
        for a, b in itertools.pairwise(edges.tolist()):
            rows = x.index_select(0, taken[0][begin[a] : begin[b]]).float()
            h[a:b] = F.embedding_bag(torch.arange(len(rows), device=device), rows, taken[1][a:b] - begin[a], mode="sum")
    return Inputs(x, h, degree, shrink, (taken[0], taken[1]), mapped)


ENTRIES = 1024  # rows summed at a time, about


def mapped_rows(folder: Path | None, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor whose rows lie on the disk: a file in `folder` that has no name any more, and goes with the process."""
    size = shape[0] * shape[1]
    with tempfile.NamedTemporaryFile(prefix=".prepared-", dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
        except OSError as error:
            raise VbprError(
                f"no room for {size * dtype.itemsize / 1e9:.1f} GB of prepared features beside the model: "
                f"{error.strerror}; free some, set fewer `axes` in --config, or give --out on another disk"
            ) from error
        return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(shape)


class ReadAhead:
    """Touches the mapped rows of the batches to come, so that the disk is read while the machine computes."""

    def __init__(self, q: Inputs) -> None:
        self.q = q
        self.pool = ThreadPoolExecutor(4, "read-ahead") if q.mapped else None

    def __call__(self, batches: list[Batch]) -> Iterator[Batch]:
        """The batches, each after its rows were asked for, `AHEAD` batches early."""
        waiting: deque[tuple[Batch, Future[None] | None]] = deque()
        for batch in batches:
            waiting.append((batch, self.pool.submit(self.touch, batch) if self.pool else None))
            if len(waiting) > AHEAD:
                yield self.ready(*waiting.popleft())
        while waiting:
            yield self.ready(*waiting.popleft())

    @staticmethod
    def ready(batch: Batch, touched: "Future[None] | None") -> Batch:
        if touched is not None:
            touched.result()
        return batch

    def touch(self, batch: Batch) -> None:
        for rows, matrix in ((batch.i, self.q.x), (batch.j, self.q.x), (batch.u, self.q.h)):
            if matrix is not None:
                matrix[:, :: 4096 // matrix.itemsize].index_select(0, rows)  # one number of each page


AHEAD = 8


__all__ = ["Inputs", "Projection", "ReadAhead", "make_inputs"]
