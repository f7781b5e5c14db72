"""Several processes at one job, as torchrun starts them, and what they tell each other; mostly there is just one.

world = World.here(); mine = world.share(rows); world.tell("ready"); world.hear("ready")
"""

import contextlib
import functools
import itertools
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError, first_line

T = TypeVar("T")
JOBS = itertools.count()  # of this process: the others have as many, in the same order
EVERY = 0.05  # seconds between looks, when waiting
PATIENCE = 120  # seconds for all to come
PART = 2**20  # characters of a message that torch's stores take in one
AGAIN = "run the same command again to resume"
SEVERAL = "torchrun is used over several machines (--nnodes); give it one, and its --nproc-per-node"
START = "start vbpr by torchrun, or without RANK and WORLD_SIZE in the environment"


class World:
    """The processes of one job, all on one machine; as a context, none leaves before all have done their part, and
    one that fails tells the others.

    Attributes:
        rank: which of them this is; the first is 0.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None) -> None:
        self.rank, self.size, self.store = rank, size, store
        self.counted = 0
        self.others: dict[int, int] = {}  # a descriptor of each other process; -1 for one that is no more

    @classmethod
    def here(cls) -> "World":
        """This process among those that torchrun started on this machine; all of them must ask, equally often.

        Raises:
            VbprError: they are on several machines, or cannot reach each other.
        """
        if not launched():
            return cls()
        rank, size = (number(name) for name in ("RANK", "WORLD_SIZE"))
        if not 0 <= rank < size:
            raise VbprError(f"the environment's RANK is {rank}, of a WORLD_SIZE of {size}; {START}")
        if os.environ.get("LOCAL_WORLD_SIZE", str(size)) != str(size):
            raise VbprError(SEVERAL)
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # it tells in stack traces what we tell in words
        from torch.distributed.distributed_c10d import PrefixStore

        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store may outlive one
        world = cls(rank, size, PrefixStore(f"vbpr {attempt} {next(JOBS)}", meeting()))
        world.tell(f"here is {rank}", [socket.gethostname(), os.getpid()])
        for other in range(size):
            host, process = world.hear(f"here is {other}")
            if host != socket.gethostname():
                raise VbprError(SEVERAL)
            if other != rank:
                world.watch(other, process)
        return world

    def watch(self, rank: int, process: int) -> None:
        """Have `check` see when that process is no more."""
        with contextlib.suppress(AttributeError, OSError):  # a system without such descriptors
            try:
                self.others[rank] = os.pidfd_open(process)
            except ProcessLookupError:
                self.others[rank] = -1

    @property
    def first(self) -> bool:
        """Whether this process does what only one may do."""
        return self.rank == 0

    def share(self, values: Array) -> Array:
        """This process's part of an array: neighbours, and as many as the others have."""
        return np.array_split(values, self.size)[self.rank]

    def tell(self, name: str, value: Any = None) -> None:
        """Let the others hear a value (of JSON)."""
        if self.store is not None:
            text = json.dumps(value)
            parts = [text[a : a + PART] for a in range(0, len(text), PART)]
            for n, part in enumerate(parts):
                self._lasting(self.store.set, f"{name}, {n}", part)
            self._lasting(self.store.set, name, str(len(parts)))

    def hear(self, name: str) -> Any:
        """What one of the others tells; waits for it.

        Raises:
            VbprError: one of them has failed, or they are gone.
        """
        while (told := self.told(name)) is None:
            time.sleep(EVERY)
        return told[0]

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What the first process makes (of JSON), for all of them."""
        if self.first:
            made = make()
            self.tell(name, made)
            return made
        return self.hear(name)  # type: ignore[no-any-return]

    def meet(self, name: str) -> None:
        """Wait until all have come here."""
        if self.store is not None:
            self._lasting(self.store.add, name, 1)
            while self._lasting(self.store.add, name, 0) < self.size:
                self.check()
                time.sleep(EVERY)

    def told(self, name: str) -> tuple[Any] | None:
        """What `hear` would give, or None as yet."""
        if self._there(name):
            count = int(self._lasting(self.store.get, name))
            parts = [self._lasting(self.store.get, f"{name}, {n}") for n in range(count)]
            return (json.loads(b"".join(parts)),)
        self.check()
        return None

    def check(self) -> None:
        """
        Raises:
            VbprError: one of the others has failed or is dead.
        """
        if self.store is None:
            return
        if self._there("failed"):
            raise VbprError(f"another process of this run failed or was stopped; {AGAIN}")
        for rank, descriptor in self.others.items():
            if gone(descriptor) and not self._there(f"end of {rank}"):
                raise VbprError(f"process {rank} of this run ended without a word; {AGAIN}")

    def _there(self, name: str) -> bool:
        return bool(self._lasting(self.store.check, [name]))

    @staticmethod
    def _lasting(ask: Callable[..., Any], *given: Any) -> Any:
        try:
            return ask(*given)
        except RuntimeError as error:  # the store ends with the process that has it
            raise VbprError(f"the first process of this run is gone ({first_line(error)}); {AGAIN}") from error

    def count(self, more: int) -> int:
        """What this and all earlier calls, of all processes, add up to."""
        if self.store is None:
            self.counted += more
            return self.counted
        return int(self._lasting(self.store.add, "count", more))

    def __enter__(self) -> "World":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is not None:
                with contextlib.suppress(VbprError):  # nobody is left to be told
                    self.tell("failed")
            elif self.first:
                self.tell("over")
                with contextlib.suppress(VbprError):  # all is done; the store may be in this process, so they go first
                    for rank in range(1, self.size):
                        self.hear(f"end of {rank}")
            else:
                self.hear("over")
                with contextlib.suppress(VbprError):
                    self.tell(f"end of {self.rank}")
        finally:
            for descriptor in self.others.values():
                if descriptor >= 0:
                    os.close(descriptor)
            self.others = {}


def gone(descriptor: int) -> bool:
    """Whether the process of a descriptor is no more."""
    look = select.poll()
    if descriptor >= 0:
        look.register(descriptor, select.POLLIN)
    return descriptor < 0 or bool(look.poll(0))


def launched() -> bool:
    """Whether this process is one of several."""
    told = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")]
    return all(told) and told[1] != "1"


def number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise VbprError(f"the environment's {name} is {os.environ[name]!r}, no number; {START}") from None


@functools.cache
def meeting() -> Any:
    """The store through which the processes talk, once all have come; one for the life of a process."""
    from torch.distributed.rendezvous import rendezvous

    found: list[Any] = []

    def meet() -> None:
        try:
            found.append(next(rendezvous("env://", timeout=timedelta(seconds=PATIENCE)))[0])
        except Exception as error:  # the numbers may be any
            found.append(error)

    # In a thread, because torch waits without listening to signals; that of a process that ends is not waited for.
    threading.Thread(target=meet, daemon=True).start()
    start = time.monotonic()
    spoken = False
    while not found:
        time.sleep(EVERY)
        waited = time.monotonic() - start
        if waited > 2 * PATIENCE + 10:  # torch tries twice, seconds apart; a process that ends meanwhile is aborted
            found.append(TimeoutError(f"{waited:.0f} seconds have passed"))
        if waited > 5 and not spoken:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            print(f"waiting for all {os.environ['WORLD_SIZE']} processes of this run at {where}", file=sys.stderr)
            spoken = True
    if isinstance(found[0], Exception):
        raise VbprError(f"the processes of this run did not meet ({first_line(found[0])}); {START}") from found[0]
    return found[0]


__all__ = ["EVERY", "World", "launched"]
