"""Those who train together: each has some of the shards, and all of them learn what every shard has found.

What is found is summed in the order of the shards, whoever found it, so that the sum is the same to the bit however
many they are.
"""

import dataclasses
import datetime
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as distributed
from torch import Tensor

from .adam import Gradients, summed

Found = tuple[Tensor, Gradients]  # the loss of a shard's batch, and gradients
ROWS = 16384  # of what is added up, at a time
PATIENCE = datetime.timedelta(minutes=10)  # for a mate that is slow, or whose machine is gone without a word
MEETING = datetime.timedelta(minutes=1)  # for all to have come


class Lost(Exception):
    """A mate is gone: those who are left meet again."""


class Mates(Protocol):
    """
    Attributes:
        rank, world: which one this is, of how many. It has the shards rank, rank + world, ...
    """

    rank: int
    world: int

    def gather(self, mine: list[list[Tensor]]) -> list[list[Tensor]]:
        """The tensors of every shard, in the order of the shards.

        Args:
            mine: of this one's shards; each shard's tensors differ from another's in their first dimension at most.

        Raises:
            Lost: a mate is gone.
        """

    def more(self) -> bool:
        """Whether others have come, who wait to be let in."""


class Alone:
    """All shards are here."""

    rank, world = 0, 1

    def gather(self, mine: list[list[Tensor]]) -> list[list[Tensor]]:
        return mine

    def more(self) -> bool:
        return False


@dataclasses.dataclass
class Group:
    """Processes that reach each other (gloo of torch.distributed).

    Attributes:
        shards: how many there are in all. store: by which they find each other.
        address: of this one, for the others. waiting: see `Mates.more`.
    """

    rank: int
    world: int
    shards: int
    store: Any
    address: str
    waiting: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        gloo: Any = distributed.ProcessGroupGloo  # whose types do not tell how a device is chosen
        try:
            self.store.set_timeout(MEETING)
            options = gloo._Options()
            options._devices, options._timeout = [gloo.create_device(hostname=self.address)], PATIENCE
            self.group = gloo(self.store, self.rank, self.world, options)
        except RuntimeError as error:
            raise Lost(str(error)) from error

    def more(self) -> bool:
        return self.waiting()

    def close(self) -> None:
        """Hang up, so that the others hear of it."""
        self.group.abort()

    def gather(self, mine: list[list[Tensor]]) -> list[list[Tensor]]:
        device, most = mine[0][0].device, -(-self.shards // self.world)
        tensors = [tensor.detach().cpu().contiguous() for each in mine for tensor in each]
        lengths = torch.zeros(most * len(mine[0]), dtype=torch.int64)
        lengths[: len(tensors)] = torch.tensor([len(tensor) for tensor in tensors])
        told = self.exchange(lengths).view(self.world, most, len(mine[0]))
        # bytes of every tensor of every shard, each from a multiple of eight on
        row = torch.tensor([tensor[:1].nbytes or tensor.new_zeros(1, *tensor.shape[1:]).nbytes for tensor in mine[0]])
        room = (told * row + 7) // 8 * 8
        message = torch.zeros(max(8, int(room.sum((1, 2)).max())), dtype=torch.uint8)
        at = 0
        for tensor in tensors:
            message[at : at + tensor.nbytes] = tensor.view(-1).view(torch.uint8)
            at += -(-tensor.nbytes // 8) * 8
        heard = self.exchange(message).view(self.world, -1)
        out = []
        for shard in range(self.shards):
            rank, place = shard % self.world, shard // self.world
            at, each = int(room[rank, :place].sum()), []
            for n, like in enumerate(mine[0]):
                length, size = int(told[rank, place, n]), int(told[rank, place, n] * row[n])
                values = heard[rank, at : at + size].view(like.dtype).view(length, *like.shape[1:])
                each.append(values.to(device))
                at += int(room[rank, place, n])
            out.append(each)
        return out

    def exchange(self, mine: Tensor) -> Tensor:
        """(world x n) the n numbers of each."""
        out = mine.new_empty(self.world * len(mine))
        try:
            self.group.allgather([list(torch.split(out, len(mine)))], [mine]).wait()
        except RuntimeError as error:
            raise Lost(str(error)) from error
        return out


def added(mates: Mates, mine: list[Tensor]) -> Tensor:
    """The sum over all shards of a tensor of each, some rows at a time."""
    out = torch.empty_like(mine[0])
    for a in range(0, len(out), ROWS):
        out[a : a + ROWS] = total([each[0] for each in mates.gather([[value[a : a + ROWS]] for value in mine])])
    return out


def total(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, one after another."""
    out = parts[0].clone()
    for part in parts[1:]:
        out += part
    return out


def all_found(mates: Mates, mine: list[Found]) -> Found:
    """The losses and the gradients of all shards, summed.

    Args:
        mine: of this one's shards; of each, the share that its batch has in the batch of all.
    """
    names = list(mine[0][1])
    whole = [mine[0][1][name][0] is None for name in names]
    gathered = mates.gather([flat(found) for found in mine])
    if len(gathered) == 1:
        return mine[0]
    out: Gradients = {}
    at = 1
    for name, dense in zip(names, whole, strict=True):
        if dense:
            out[name] = None, total([each[at] for each in gathered])
        else:
            out[name] = summed(
                torch.cat([each[at] for each in gathered]), torch.cat([each[at + 1] for each in gathered])
            )
        at += 1 if dense else 2
    return total([each[0] for each in gathered])[0], out


def flat(found: Found) -> list[Tensor]:
    """The loss, and of each gradient its rows, where it has any, and its values."""
    loss, gradients = found
    values = [value for gradient in gradients.values() for value in gradient if value is not None]
    return [loss.detach().view(1), *values]


def address_towards(host: str, port: int) -> str:
    """The address of this machine that another one sees it by."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # sends nothing
        return str(probe.getsockname()[0])


__all__ = ["Alone", "Found", "Group", "Lost", "Mates", "added", "address_towards", "all_found"]
