"""Who trains together, where workers come and go: those who are there begin a round, and whoever is lost ends it.

All that they agree on is in a store of torch.distributed, which the command that drives them keeps. Each of the job's
parts is a seat for one worker. A seat that is given out again tells that who had it is gone, and with it the round.

    round                 the number of the round; over: set when nothing is left to do
    workers               how many the command knows of
    3/here, 3/seat/17     how many have come to round 3, and which seats they have
    3/world               how many take part, once that is settled; who comes later waits for the next round
"""

import contextlib
import dataclasses
import datetime
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from .mates import Group, address_towards

LOOK, SHOW = 0.05, 0.5  # seconds between looks, and between those of the command at the progress
LATE = 30.0  # seconds that a round lasts at least before those who have come since are let in
ANSWER = datetime.timedelta(seconds=30)  # of the store


@dataclasses.dataclass
class Host:
    """The store, from the side of the command; as a context."""

    host: str

    def __enter__(self) -> "Host":
        self.socket = socket.create_server((self.host, 0))
        self.port = self.socket.getsockname()[1]
        # given the socket, it listens at that address alone, and closes it in the end
        self.store: Any = TCPStore(
            self.host, self.port, is_master=True, wait_for_workers=False, master_listen_fd=self.socket.detach()
        )
        self.store.set("round", "0")
        self.store.set("workers", "0")
        self.workers, self.looked, self.done, self.note = 0, 0.0, 0, ""
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        del self.store

    def tell(self, workers: int) -> None:
        """How many workers there are."""
        if workers != self.workers:
            self.workers = workers
            self.store.set("workers", str(workers))

    def progress(self) -> tuple[int, str]:
        """Positives that are done, and how it goes."""
        if time.monotonic() - self.looked > SHOW and self.store.check(["progress"]):
            self.looked, (self.done, self.note) = time.monotonic(), json.loads(self.store.get("progress"))
        return self.done, self.note

    def end(self) -> None:
        """Nothing is left to do."""
        self.store.set("over", "")


@dataclasses.dataclass
class Rounds:
    """The store, from the side of a worker.

    Attributes:
        host, port: of the store. shards: of the training: no more workers than these take part.
        stopped: whether this one is told to stop.
    """

    host: str
    port: int
    shards: int
    stopped: Callable[[], bool]

    def __post_init__(self) -> None:
        self.store: Any = self.connected()

    @contextlib.contextmanager
    def join(self, seat: int) -> Iterator[Group | None]:
        """Take part in a round, which ends if it is left by an exception. None where there is nothing left to do."""
        while not self.over():
            number = int(self.store.get("round"))
            if self.store.add(f"{number}/seat/{seat}", 1) > 1:  # who had it is gone
                self.end(number)
                continue
            rank = self.store.add(f"{number}/here", 1) - 1
            world = self.settled(number)
            if rank < world:
                try:
                    with self.group(number, rank, world) as group:
                        yield group
                except BaseException:
                    self.end(number)
                    raise
                return
            while int(self.store.get("round")) == number and not self.over():
                time.sleep(LOOK)
        yield None

    @contextlib.contextmanager
    def group(self, number: int, rank: int, world: int) -> Iterator[Group]:
        """Those who take part in a round."""
        store = PrefixStore(f"{number}/", self.connected())
        begun, address = time.monotonic(), address_towards(self.host, self.port)
        group = Group(rank, world, self.shards, store, address, lambda: self.late(number, world, begun))
        try:
            yield group
        finally:
            group.close()

    def connected(self) -> Any:
        """A connection to the store: each that waits needs one of its own."""
        return TCPStore(self.host, self.port, is_master=False, wait_for_workers=False, timeout=ANSWER)

    def settled(self, number: int) -> int:
        """How many take part in a round: all that the command knows of, or as many as the first who saw them come says;
        0 where it has ended before."""
        key = f"{number}/world"
        while int(self.store.get("round")) == number and not self.over():
            here = self.store.add(f"{number}/here", 0)
            known = int(self.store.get("workers"))
            if known and here >= min(known, self.shards):
                return int(self.store.compare_set(key, "", str(min(here, self.shards))))
            if self.store.check([key]):
                return int(self.store.get(key))
            time.sleep(LOOK)
        return 0

    def late(self, number: int, world: int, begun: float) -> bool:
        """Whether others have come since, and there are shards for them."""
        if time.monotonic() - begun < LATE or world >= self.shards:
            return False
        return int(self.store.add(f"{number}/here", 0)) > world

    def end(self, number: int) -> None:
        """End a round, if it has not ended."""
        self.store.compare_set("round", str(number), str(number + 1))

    def over(self) -> bool:
        return self.stopped() or bool(self.store.check(["over"]))


__all__ = ["Host", "Rounds"]
