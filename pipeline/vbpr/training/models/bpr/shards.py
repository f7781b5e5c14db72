"""What lies on the disk of a training by shards: what the workers read, their checkpoints, and what they have made.

Users are dealt to the shards in turn, in the order of their ids: shard s has users s, s + N, ... All files lie beside
the checkpoint, where every worker reaches them:

    CHECKPOINT.x                   the prepared features, (I, d), as they lie in memory
    CHECKPOINT.items               (I,) by how many each item was taken
    CHECKPOINT.users-3             what the users of shard 3 took
    CHECKPOINT.shared.2-64         what all share, with moments and the best, after 64 steps of epoch 2
    CHECKPOINT.shard-3.2-64        the same of the users of shard 3, with the state of the shard's random numbers
    CHECKPOINT                     the manifest, JSON: which of these checkpoints is whole; it is written last
    CHECKPOINT.vectors-3           (U / N, K) float32: the fitted vectors of the users of shard 3
"""

import dataclasses
import functools
import glob
import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ....base.arrays import Array
from ....base.errors import VbprError
from ....base.files import replace_text, replacing
from ....compute.checkpoint import read_checkpoint, write_checkpoint
from ....data.parts import MATRICES
from ....data.split import Split
from .inputs import Projection
from .mates import Mates
from .progress import State
from .trainer import Trainer

LONGEST = ".shared.99999-9999999"  # of what is added to the name of a checkpoint


@dataclasses.dataclass(frozen=True)
class Users:
    """Some users' purchases: matrices (U / N, I); see `Split`."""

    train: sp.csr_matrix
    validation: sp.csr_matrix
    test: sp.csr_matrix

    @functools.cached_property
    def observed(self) -> sp.csr_matrix:
        return self.train + self.validation + self.test


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of one training.

    Attributes:
        path: of the checkpoint. identity: a JSON value that each of them must agree with. shards: their number.
    """

    path: Path
    identity: Any
    shards: int

    def named(self, end: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{end}")

    def write(self, split: Split, projection: Projection | None, dtype: torch.dtype) -> None:
        """What the workers read; what is there already of this very training stays."""
        if read_checkpoint(self.named("items"), self.identity) is not None:
            return
        if projection is not None:
            with replacing(self.named("x")) as temporary, temporary.open("wb") as file:
                for rows in projection.blocks(len(split.item_ids), dtype):
                    file.write(rows.cpu().view(torch.uint8).numpy().data)
        for number in range(self.shards):
            tensors = {}
            for name in MATRICES:
                part = getattr(split, name)[number :: self.shards]
                tensors[f"{name}/indptr"] = torch.from_numpy(part.indptr.astype(np.int64))
                tensors[f"{name}/indices"] = torch.from_numpy(part.indices.astype(np.int32))
            write_checkpoint(self.named(f"users-{number}"), tensors, [self.identity, number])
        write_checkpoint(self.named("items"), {"counts": torch.from_numpy(split.item_counts)}, self.identity)

    def items(self) -> Array:
        """(I,) by how many each item was taken.

        Raises:
            VbprError: this machine does not see it.
        """
        return self.read(self.named("items"), self.identity)["counts"].numpy()

    def users(self, number: int, items: int) -> Users:
        """The purchases of a shard's users.

        Raises:
            VbprError: this machine does not see them.
        """
        tensors = self.read(self.named(f"users-{number}"), [self.identity, number])
        parts = []
        for name in MATRICES:
            indptr, indices = (tensors[f"{name}/{of}"].numpy() for of in ("indptr", "indices"))
            ones = np.ones(len(indices), np.float32)
            parts.append(sp.csr_matrix((ones, indices, indptr), (len(indptr) - 1, items)))
        return Users(*parts)

    def features(self, items: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(I, d) prepared features; on a CPU the pages of their file, which all workers of a machine share.

        Raises:
            VbprError: this machine does not see them.
        """
        path, size = self.named("x"), items * width * dtype.itemsize
        if not path.is_file() or path.stat().st_size != size:
            raise VbprError(f"it does not see {path}, or another file; give --out in a folder that all machines share")
        return torch.from_file(str(path), size=items * width, dtype=dtype).view(items, width).to(device)

    def read(self, path: Path, identity: Any) -> dict[str, Tensor]:
        found = read_checkpoint(path, identity)
        if found is None:
            raise VbprError(f"it does not see {path}, or another file; give --out in a folder that all machines share")
        return found[0]

    def manifest(self) -> dict[str, Any] | None:
        """What is whole; None where nothing is, or it is another training's."""
        try:
            told = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return (
            told if isinstance(told, dict) and told.get("identity") == json.loads(json.dumps(self.identity)) else None
        )

    def state(self, name: str, tag: str) -> Path:
        return self.named(f"{name}.{tag}")


class Checkpoints:
    """Writes the checkpoint of a training together with the others, and reads it; see `trainer.Ledger`."""

    def __init__(self, files: Files, mates: Mates) -> None:
        self.files, self.mates = files, mates

    def last(self, here: int) -> str:
        """The tag of the last whole checkpoint, as the first worker sees it; "" where there is none.

        Args:
            here: shards of this worker.
        """
        told = self.files.manifest()
        tag = torch.tensor(list(("" if told is None else str(told["tag"])).encode()), dtype=torch.uint8)
        return bytes(self.mates.gather([[tag]] * here)[0][0].tolist()).decode()

    def resume(self, trainer: Trainer, tag: str) -> bool:
        """Put everything where a checkpoint has it; whether everyone could."""
        found = True
        for name, state in zip(self.names(trainer), trainer.states, strict=True):
            state.keeper.path = self.files.state(name, tag)
            found = found and state.resume() and tag == tag_of(state)
        return all(trainer.of_all(found))

    def save(self, trainer: Trainer, **more: Any) -> str:
        """Every worker its shards, the first one what is shared; when all have, the first one says so.

        Args:
            more: JSON values for the manifest.
        """
        tag, first = tag_of(trainer.state), self.mates.rank == 0
        for name, state in zip(self.names(trainer), trainer.states, strict=True):
            state.keeper.path = self.files.state(name, tag)
            if state is not trainer.state or first:
                state.save()
        trainer.of_all(True)
        if first:
            told = {"identity": self.files.identity, "tag": tag, "curve": trainer.state.keeper.curve, **more}
            replace_text(self.files.path, json.dumps(told))
        trainer.of_all(True)
        for name, state in zip(self.names(trainer), trainer.states, strict=True):
            for old in self.files.path.parent.glob(f"{glob.escape(self.files.named(name).name)}.*"):
                if old != state.keeper.path and (first or state is not trainer.state):
                    old.unlink(missing_ok=True)
        return f"; {self.files.path} holds the state: run the same command again to resume"

    def names(self, trainer: Trainer) -> list[str]:
        """Of the states of a trainer."""
        return ["shared", *(f"shard-{self.mates.rank + n * self.mates.world}" for n in range(len(trainer.shards)))]


def tag_of(state: State) -> str:
    """How far it is."""
    return f"{state.epoch}-{state.step}"


__all__ = ["LONGEST", "Checkpoints", "Files", "Users"]
