"""The lists of many users by the workers of a cluster, a part a range of users.

The parts lie in OUT.parts beside a manifest of their digests until the table is whole: a killed command goes on from
there. A range is what one process does at a time, and so its lists are the same.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array, Strings, update_with_ids
from ..base.errors import VbprError
from ..base.files import digest, replacing_table
from ..base.progress import Progress
from ..base.stopping import Stopped, stop_signals
from ..executors import hired
from ..executors.job import Place
from ..executors.parts import Ranges
from ..stores.model.factors import Factors
from ..stores.model.lists import Lists
from .lists import CHUNK, Wishes, lists_of


@dataclasses.dataclass(frozen=True)
class ListsJob:
    """What each worker needs to know; see `Job`.

    Attributes:
        model: the model file, under a path that all machines have. digest: of what the driver makes of it.
        held_out: see `Factors.before_holding_out`; None: as trained. wishes: see `lists_of`.
    """

    model: str
    digest: str
    held_out: str | None
    wishes: Wishes
    device: str = "cpu"
    cores: int = 0
    overlap: int = 1

    def begin(self, place: Place) -> "ListsWork":
        """Read the model.

        Raises:
            VbprError: it is not there for this machine, or another.
        """
        factors = Factors.load(self.model)
        factors = factors if self.held_out is None else factors.before_holding_out(self.held_out)
        if factors.digest() != self.digest:
            raise VbprError(f"it sees another model in {self.model}")
        return ListsWork(factors, self.wishes)


class ListsWork:
    """A model at work on ranges of users; see `Work`."""

    def __init__(self, factors: Factors, wishes: Wishes) -> None:
        self.factors, self.wishes, self.about = factors, wishes, {"range": CHUNK}

    def agree(self, first: dict[str, Any]) -> None:
        """They all do the same."""

    def stop(self) -> None:
        """A range takes seconds."""

    def __call__(self, part: Strings) -> Lists:
        """The lists of at most `CHUNK` users, by id."""
        return next(lists_of(self.factors, part, self.wishes))


def shared_lists(cluster: str, job: ListsJob, out: Path, users: Strings) -> Iterator[Lists]:
    """The lists of users by id, as `lists_of` gives them, once all parts of them lie beside the table; these go when
    the last has been taken.

    Raises:
        VbprError: see `Cluster`; or the disk is full or fails.
        Stopped: Ctrl-C or SIGTERM; the parts that are done stay.
    """
    parts = Parts(out, job, users)
    left = parts.left()
    if left:
        with (
            hired(cluster, job) as crew,
            Progress("recommend", len(users), "users") as bar,
            stop_signals() as stopping,
        ):
            bar.advance(len(users) - sum(len(parts.users(number)) for number in left))
            for nth, some, lists in crew.run((parts.users(number) for number in left), stopping):
                parts.write(left[nth], lists)
                bar.advance(len(some))
            if stopping() and parts.left():
                raise Stopped(f"stopped with parts in {parts.folder}; run the same command again to resume")
    yield from parts.read()
    shutil.rmtree(parts.folder)


class Parts:
    """The parts of a table that is being made: OUT.parts/000000.parquet and so on, and a manifest, a line each."""

    def __init__(self, out: Path, job: ListsJob, users: Strings) -> None:
        """Go on with parts that are there, if they are of this very request; else begin anew.

        Raises:
            VbprError: something else lies there.
        """
        self.folder, self.all = out.with_name(f"{out.name}.parts"), users
        self.ranges = Ranges(len(users), CHUNK)
        self.identity = {"request": request_digest(job, users), "range": CHUNK}
        self.manifest = self.folder / "manifest.jsonl"
        self.digests: dict[int, str] = {}
        lines = self.manifest.read_text(encoding="utf-8").splitlines() if self.manifest.is_file() else []
        entries = list(readable(lines))
        if entries[:1] == [self.identity]:
            self.digests = {entry["part"]: entry["digest"] for entry in entries[1:]}
            if len(entries) < len(lines):  # a kill came in the middle of a line
                self.begin(entries)
            return
        if self.folder.exists() and not self.manifest.is_file() and any(self.folder.iterdir()):
            raise VbprError(f"{self.folder} holds something else; move it away or choose another --out")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.begin([self.identity])

    def begin(self, entries: list[dict[str, Any]]) -> None:
        self.manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")

    def users(self, number: int) -> Strings:
        a, b = self.ranges.span(number)
        return self.all[a:b]

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06}.parquet"

    def left(self) -> list[int]:
        """The ranges that have no part whose bytes are those that were written."""
        return [number for number in range(len(self.ranges)) if not self.sound(number)]

    def sound(self, number: int) -> bool:
        path = self.path(number)
        return number in self.digests and path.is_file() and digest(path) == self.digests[number]

    def write(self, number: int, lists: Lists) -> None:
        """Write a part, durably, then its line."""
        import pyarrow as pa

        k = lists.items.shape[1]
        items, scores = (pa.array(np.ravel(a)) for a in (lists.items, lists.scores))
        columns = {
            "user_id": pa.array(lists.users.tolist(), pa.string()),
            "items": pa.FixedSizeListArray.from_arrays(items, k),
            "scores": pa.FixedSizeListArray.from_arrays(scores, k),
            "fallback": pa.array(np.zeros(len(lists.users), bool) if lists.fallback is None else lists.fallback),
        }
        table = pa.table(columns)
        self.path(number).unlink(missing_ok=True)  # one that has changed since
        with replacing_table(self.path(number), table.schema) as writer:
            writer.write_table(table)
        self.digests[number] = digest(self.path(number))
        with self.manifest.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"part": number, "digest": self.digests[number]}) + "\n")
            lines.flush()
            os.fsync(lines.fileno())

    def read(self) -> Iterator[Lists]:
        """The lists of all parts, in order."""
        import pyarrow.parquet

        for number in range(len(self.ranges)):
            table = pyarrow.parquet.read_table(self.path(number)).combine_chunks()
            n, items, scores = len(table), *(numbers(table[name].chunk(0)) for name in ("items", "scores"))
            fallback = table["fallback"].to_numpy()
            yield Lists(self.users(number), items.reshape(n, -1), scores.reshape(n, -1), fallback)


def numbers(column: Any) -> Array:
    """All the numbers of a column of lists."""
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False))


def request_digest(job: ListsJob, users: Strings) -> str:
    """Of all that decides what the lists are."""
    wishes, total = job.wishes, hashlib.blake2b(digest_size=16)
    sold = None if wishes.sold is None else wishes.sold.digest()
    total.update(json.dumps([job.digest, job.held_out, wishes.k, wishes.seen, wishes.new, sold]).encode())
    exclude = [] if wishes.exclude is None else [wishes.exclude.indptr, wishes.exclude.indices]
    for array in (wishes.allowed, wishes.groups, *exclude):
        total.update(b"none" if array is None else array.tobytes() + str(array.dtype).encode())
    update_with_ids(total, users)
    return total.hexdigest()


def readable(lines: list[str]) -> Iterator[dict[str, Any]]:
    """What these lines say, up to the first that is cut off."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return


__all__ = ["ListsJob", "shared_lists"]
