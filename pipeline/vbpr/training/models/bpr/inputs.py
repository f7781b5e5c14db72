"""What the loss needs besides the parameters: prepared features, and what each user took, on the training device."""

import dataclasses
import itertools
import math
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from ....base.arrays import Array
from ....base.errors import VbprError
from ....base.progress import console
from ....compute.device import dtype_for
from ....compute.memory import available_memory, memory_on_disk, read_ahead
from ....data.split import Split
from ....stores.model.head import Head
from ...config import TrainConfig
from ...item_features import ROWS, ItemFeatures
from .adam import Params
from .batches import Batch
from .hidden import gain


@dataclasses.dataclass
class Inputs:
    """What the loss needs besides the parameters, on the training device.

    Attributes:
        x: (I, d) prepared features, or None. h: (U, d) sums of x over the train items of each user, or None.
        degree: (U,) train items a user. shrink: (I,) s_i. taken: the train items of all users, and where each's begin.
        mapped: the memory of x and h where they lie on the disk.
        bought: (I',) the items in `taken`, ascending: those with a free vector y; place: (I,) where each lies among
            them. None: every item has one.
    """

    x: Tensor | None
    h: Tensor | None
    degree: Tensor
    shrink: Tensor
    taken: tuple[Tensor, Tensor] | None = None
    mapped: tuple[mmap.mmap, ...] = ()
    bought: Tensor | None = None
    place: Tensor | None = None

    def free_rows(self, items: Tensor) -> Tensor:
        """Which rows of y are those of bought items."""
        return items if self.place is None else self.place.index_select(0, items)

    def forget(self) -> None:
        """Give the memory of the features back."""
        self.x, self.h, self.mapped = None, None, ()

    def read_ahead(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, the mapped rows of each asked of the disk before its turn."""

        def rows(batch: Batch) -> list[tuple[Tensor | None, Tensor]]:
            return [(self.x, torch.cat([batch.i, batch.j])), (self.h, batch.u)]

        return read_ahead(batches, rows, self.mapped)


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
        z = self.features.standardised(rows, self.device)
        return F.normalize(z, dim=1, eps=1e-12) if self.unit else z

    @property
    def width(self) -> int:
        """d, columns of prepared features."""
        return self.turn.shape[1] if self.turn.ndim else len(self.features.mean)

    def blocks(self, n: int, dtype: torch.dtype) -> Iterator[Tensor]:
        """(m, d) prepared features of n items, ROWS at a time."""
        turn = self.turn.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)
        for a in range(0, n, ROWS):
            z = self.rows(np.arange(a, min(n, a + ROWS)))
            yield (z.to(turn.dtype) @ turn if turn.ndim else z * turn).to(dtype)

    def __call__(self, out: Tensor) -> Tensor:
        """Fill `out`, (I, d) on the device, with the prepared features."""
        for n, rows in enumerate(self.blocks(len(out), out.dtype)):
            out[n * ROWS : n * ROWS + len(rows)] = rows
        return out

    def head(self, p: Params, columns: int, visual_bias: bool) -> Head:
        """Fold a fitted E (its last row beta, if there is one) back onto raw features, and the hidden layer if there is
        one; `columns` is the model's K."""
        weight, beta = in_columns(self.folded(p["E"]), columns, visual_bias)
        head = Head(self.features.mean, self.features.scale, weight, beta, unit=self.unit)
        if "W" not in p:
            return head
        outer = np.vstack(in_columns((p["V"].float() * gain(len(p["W"]))).cpu().numpy(), columns, visual_bias))
        return dataclasses.replace(head, hidden=self.folded(p["W"]), outer=outer)

    def folded(self, weight: Tensor) -> Array:
        """(n, D) float32 on standardised features of (n, d) on prepared ones."""
        folded: Array = (weight.float() @ self.turn.T if self.turn.ndim else weight.float() * self.turn).cpu().numpy()
        return folded


def in_columns(rows: Array, columns: int, visual_bias: bool) -> tuple[Array, Array]:
    """(columns, n), (n,): of rows (K + visual_bias, n) those of vectors, zeros below; that of the bias, or zeros."""
    out = np.zeros((columns, rows.shape[1]), np.float32)
    k = len(rows) - visual_bias
    out[:k] = rows[:k]
    return out, rows[-1] if visual_bias else np.zeros(rows.shape[1], np.float32)


CORRELATION_ROWS = 20_000  # rows that tell the principal axes of up to a few thousand columns well enough


def make_inputs(
    split: Split, projection: Projection | None, c: TrainConfig, device: torch.device, folder: Path | None = None
) -> Inputs:
    if projection is None:
        return inputs_of(split.train, split.item_counts, None, c, device, Room(0, c, device, folder))
    users, items = split.train.shape
    dtype = dtype_for(c.precision, device)
    room = Room(projection.width * (items + users * c.history) * dtype.itemsize, c, device, folder)
    x = projection(room.empty(items, projection.width, dtype))
    return inputs_of(split.train, split.item_counts, x, c, device, room)


class Room:
    """Memory for prepared features, on the disk where there is not enough of it."""

    def __init__(self, size: int, c: TrainConfig, device: torch.device, folder: Path | None = None) -> None:
        """
        Args:
            size: bytes of all that will be asked for. folder: for what goes to the disk.
        """
        self.device, self.folder, self.mapped = device, folder, list[mmap.mmap]()
        most = c.memory_limit * 1e9 or (SHARE * available_memory() if device.type == "cpu" else math.inf)
        self.limited = size > most
        if self.limited and device.type != "cpu":
            raise VbprError("--memory-limit maps features from disk: choose --device cpu, or fewer `axes` in --config")
        if self.limited and not c.memory_limit:
            console.print(
                f"train: {size / 1e9:,.1f} GB of prepared features do not fit in memory and go to a file in "
                f"{folder or tempfile.gettempdir()} meanwhile"
            )

    def empty(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        if not self.limited:
            return torch.empty(rows, columns, dtype=dtype, device=self.device)
        self.mapped.append(memory_on_disk(rows * columns * dtype.itemsize, self.folder))
        return torch.frombuffer(self.mapped[-1], dtype=dtype).view(rows, columns)


def inputs_of(
    train: sp.csr_matrix, item_counts: Array, x: Tensor | None, c: TrainConfig, device: torch.device, room: Room
) -> Inputs:
    """The inputs for users, with prepared features or without.

    Args:
        train: (U, I) what these users took. item_counts: (I,) by how many each item was taken, here and elsewhere.
    """
    degree = torch.from_numpy(np.diff(train.indptr)).float().to(device)
    count = torch.from_numpy(item_counts).float().to(device)
    shrink = count / (count + c.shrink) if c.shrink else torch.ones_like(count)
    if x is None:
        return Inputs(None, None, degree, shrink)
    begin = train.indptr
    taken, starts = (torch.from_numpy(a).long().to(device) for a in (train.indices, begin[:-1]))
    h = None
    if c.history:
        users = train.shape[0]
        h = room.empty(users, x.shape[1], x.dtype)
        edges = np.unique(np.r_[np.searchsorted(begin, np.arange(0, begin[-1], ENTRIES)), 0, users])
        stretches = itertools.pairwise(edges.tolist())
        for a, b in read_ahead(stretches, lambda s: [(x, taken[begin[s[0]] : begin[s[1]]])], room.mapped):
            rows = x.index_select(0, taken[begin[a] : begin[b]]).float()  # of a hundred, bfloat16 would lose one
            h[a:b] = F.embedding_bag(torch.arange(len(rows), device=device), rows, starts[a:b] - begin[a], mode="sum")
    bought = torch.nonzero(count).squeeze(1)
    place = (count > 0).cumsum(0) - 1
    return Inputs(x, h, degree, shrink, (taken, starts), tuple(room.mapped), bought, place)


ENTRIES = 1024  # rows summed at a time, about
SHARE = 0.8  # of what memory is available, for prepared features; the rest is for what stands beside them

__all__ = ["SHARE", "Inputs", "Projection", "Room", "inputs_of", "make_inputs"]
