"""Several processes that share the images of one run, as torchrun starts them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.progress import Progress
from ..data.images.source import PASSING, ImageSource
from ..executors.world import EVERY, World
from ..stores.features.writer import Writer, create, join


def own_gpu(device: str, rank: int) -> str:
    """The GPU of one of several processes, where `device` leaves open which."""
    import torch

    from ..compute.device import fault

    count = torch.cuda.device_count() if device in ("auto", "cuda") and torch.cuda.is_available() else 0
    if not count:
        return device
    return "cpu" if device == "auto" and fault(rank % count) else f"cuda:{rank % count}"


@contextlib.contextmanager
def heeding(stopping: Callable[[], bool]) -> Iterator[None]:
    """In a process that is to stop, swallow the error that the others have ended before it."""
    try:
        yield
    except VbprError:
        if not stopping():
            raise


@contextlib.contextmanager
def opened(
    world: World,
    path: Path,
    source: ImageSource,
    signatures: Array,
    dim: int,
    provenance: dict[str, Any],
    verify: bool,
) -> Iterator[Writer]:
    """The feature file, open for writing by every process of the run: the first makes it, the others join."""
    if world.first:
        with create(path, source.item_ids, signatures, dim, provenance, verify) as store:
            store.retry(PASSING)
            if world.size > 1:
                store.admit()
            world.tell("ready")
            yield store
        return
    world.hear("ready")
    with join(path) as store:
        known = np.where(signatures, signatures, store.signature) if len(store) == len(signatures) else signatures
        if store.provenance["fingerprint"] != provenance["fingerprint"] or not store.holds(source.item_ids, known):
            raise VbprError(f"{source.name} or the weights change while they are read; run the same command again")
        yield store


def others(
    world: World,
    store: Writer,
    bar: Progress,
    stopping: Callable[[], bool],
    written: int,
    odd: list[tuple[str, str]],
) -> int:
    """The first process waits for the others, takes in what they have done, and returns how many rows they have
    written; these tell it."""
    if not world.first:
        world.tell(f"done by {world.rank}", [written, odd])
        return 0
    more = 0
    for rank in range(1, world.size):
        told = None
        while not stopping() and (told := world.told(f"done by {rank}")) is None:
            bar.advance(world.count(0) - bar.done)
            time.sleep(EVERY)
        if told is not None:
            more += told[0][0]
            odd += map(tuple, told[0][1])
    bar.advance(world.count(0) - bar.done)
    store.gather()
    if len(store.pending) and not stopping():
        raise VbprError(f"{store.path} lacks {len(store.pending):,} of {len(store):,} items; run again to resume")
    return more


__all__ = ["heeding", "opened", "others", "own_gpu"]
