"""Training by shards of the users, in this process or by the workers of a Ray cluster.

Every worker has the parameters of its shards' users, their moments and purchases; what all users share it has as well,
and takes the same steps as the others: gradients of shared rows are summed over the shards (`mates.py`), in their
order, so that the number of shards decides the result, and who trains them does not. What decides is written to
files (`shards.py`) that all workers read; a worker that is lost ends the round, and those who are there go on from the
last checkpoint (`rounds.py`).
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....base.errors import VbprError
from ....base.files import replacing
from ....base.progress import Progress
from ....base.stopping import Stopped, stop_signals
from ....compute.checkpoint import read_checkpoint
from ....compute.device import dtype_for, full_float32, pick_device
from ....compute.keeper import LARGE, LAYOUT
from ....compute.memory import memory_on_disk
from ....data.split import Split
from ....executors import hired
from ....executors.cluster import AGAIN
from ....executors.job import CORES, Place
from ....stores.model.factors import Factors
from ...config import TrainConfig
from ...model import Diverged
from .inputs import Projection, Room, inputs_of
from .mates import Alone, Lost, Mates, added, address_towards
from .parameters import OF_USERS, of_head, of_items, of_users, shapes_of, user_vectors
from .progress import State
from .result import factors_from
from .rounds import Host, Rounds
from .sampling import sampler_of
from .shards import Checkpoints, Files
from .start import starting_point
from .trainer import Regroup, Shard, Trainer
from .validation import CurveSample

SEEDS = 0x9E3779B9  # between the seeds of two shards
DONE = "done"
VAIN = 10  # rounds without a step, one after another, that end a run


@dataclasses.dataclass(frozen=True)
class ShardsJob:
    """What each worker needs to know; see `Job`.

    Attributes:
        config: of the training. path: of its checkpoint.
        items, width, dtype: of the prepared features; a width of 0: there are none.
        sizes: positives of a batch of each shard. steps: of an epoch.
        host, port: of the store by which workers find each other; no host: one process has all shards.
    """

    config: TrainConfig
    path: Path
    items: int
    width: int
    dtype: torch.dtype
    sizes: tuple[int, ...]
    steps: int
    device: str
    cores: int
    host: str = ""
    port: int = 0
    overlap: int = 1

    @property
    def files(self) -> Files:
        return Files(self.path, [self.config.to_json(), self.items, self.steps], len(self.sizes))

    def bar(self) -> Progress:
        return Progress(f"train {self.config.model}", self.steps * self.config.epochs * sum(self.sizes), "positives")

    def begin(self, place: Place) -> "ShardsWork":
        """Look at the files.

        Raises:
            VbprError: they are not there for this machine.
        """
        return ShardsWork(self, place)


class ShardsWork:
    """One who trains; see `Work`."""

    def __init__(self, job: ShardsJob, place: Place) -> None:
        self.job, self.place, self.about, self.asked = job, place, {"shards": len(job.sizes)}, False
        self.device = torch.device("cuda" if job.device == "cuda" else "cpu")
        self.counts = job.files.items()
        self.x = job.files.features(job.items, job.width, job.dtype, self.device) if job.width else None
        self.rounds = Rounds(job.host, job.port, len(job.sizes), self.stopping) if job.host else None

    def agree(self, first: dict[str, Any]) -> None:
        """They all do the same."""

    def stop(self) -> None:
        self.asked = True

    def stopping(self) -> bool:
        return self.asked

    @full_float32()
    def __call__(self, part: int) -> str:
        """Train until all is done (DONE), this one is told to stop (""), or the others have changed: why.

        Args:
            part: the number of the seat.
        """
        if self.place.cores:
            torch.set_num_threads(self.place.cores)
        if self.rounds is None:
            with stop_signals() as stopping:
                return self.train(Alone(), lambda: self.asked or stopping())
        try:
            with self.rounds.join(part) as group:
                return "" if group is None else self.train(group, self.stopping)
        except Stopped:
            return ""
        except (Lost, Regroup) as error:
            return str(error) or "others have come"

    def train(self, mates: Mates, stopping: Callable[[], bool]) -> str:
        """
        Raises:
            Lost, Regroup, Stopped: see `Trainer.train`.
        """
        job, ledger = self.job, Checkpoints(self.job.files, mates)
        numbers = list(range(mates.rank, len(job.sizes), mates.world))
        tag = ledger.last(len(numbers))
        trainer = self.trainer(numbers, ledger, fresh=not tag)
        if tag and not ledger.resume(trainer, tag):  # damaged
            trainer = self.trainer(numbers, ledger, fresh=True)
        end: dict[str, Any] = {"done": True}
        try:
            with self.told(trainer) as advance:
                trainer.train(advance, stopping)
        except Diverged as error:
            end["diverged"] = str(error)
        if trainer.state.keeper.best:
            for number, shard in zip(numbers, trainer.shards, strict=True):
                assert shard.state is not None
                best = trainer.state.keeper.best | shard.state.keeper.best
                vectors = user_vectors(best, shard.inputs, job.config).float().cpu().numpy()
                with replacing(job.files.named(f"vectors-{number}")) as temporary:
                    temporary.write_bytes(vectors.data)
        ledger.save(trainer, **end)
        return DONE

    def trainer(self, numbers: list[int], ledger: Checkpoints, fresh: bool) -> Trainer:
        """Shards and what they share, as they are before the first step.

        Args:
            fresh: else the parameters are any, for a checkpoint to fill them.
        """
        job, c, files = self.job, self.job.config, self.job.files
        users = [files.users(number, job.items) for number in numbers]
        room = Room(sum(u.train.shape[0] for u in users) * job.width * c.history * job.dtype.itemsize, c, self.device)
        shards = []
        for number, some in zip(numbers, users, strict=True):
            generator = torch.Generator(self.device).manual_seed((c.seed + SEEDS * (number + 1)) % 2**63)
            inputs = inputs_of(some.train, self.counts, self.x, c, self.device, room)
            own = of_users(some.train.shape[0], bool(job.width), c, generator)
            state = State(c, own, generator, files.state(f"shard-{number}", "0-0"))
            sample = CurveSample(some, seed=number, shards=len(job.sizes))
            share = job.sizes[number] / sum(job.sizes)
            shards.append(Shard(sampler_of(some.train, c, generator), inputs, sample, job.sizes[number], share, state))
        generator = torch.Generator(self.device).manual_seed(c.seed)
        q = shards[0].inputs
        if fresh:
            histories = [(s.inputs.h, u.train) for s, u in zip(shards, users, strict=True) if s.inputs.h is not None]
            add = functools.partial(added, ledger.mates)
            start = starting_point(q.x, histories, c.dim, add) if q.x is not None and histories else None
            shared = of_head(q, c, generator, start) | of_items(job.items, c, generator)
        else:
            shapes = shapes_of(c, job.width, 0, job.items, int((self.counts > 0).sum()))
            shared = {
                name: torch.zeros(shape, device=self.device) for name, shape in shapes.items() if name not in OF_USERS
            }
        state = State(c, shared, generator, files.state("shared", "0-0"))
        return Trainer(state, shards, job.steps, ledger.mates, ledger)

    @contextlib.contextmanager
    def told(self, trainer: Trainer) -> Iterator[Callable[[int, str], None]]:
        """What tells how far a training is: a bar, or the store, from which the command has it."""
        size, rounds = sum(self.job.sizes), self.rounds
        if rounds is None:
            with self.job.bar() as bar:
                bar.advance(trainer.done * size)
                yield lambda batches, note: bar.advance(batches * size, note)
            return
        done = trainer.done

        def advance(batches: int, note: str) -> None:
            nonlocal done
            done += batches
            if trainer.mates.rank == 0:
                rounds.store.set("progress", json.dumps([done * size, note]))

        advance(0, "")
        yield advance


def fit_shards(split: Split, projection: Projection | None, c: TrainConfig, checkpoint: Path | None) -> Factors:
    """Train by shards, and make the model of what the workers leave in files.

    Memory: this process has the interactions, the items' vectors, and the users' as the pages of a file (`LARGE`).

    Raises:
        VbprError: more shards than there are users or positives of a batch; or see `Cluster`.
        Diverged, Stopped: see `BPR.fit`.
    """
    sizes, steps = batches_of(split, c)
    device = pick_device(c.device)
    with contextlib.ExitStack() as stack:
        path = checkpoint or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "checkpoint"
        dtype = dtype_for(c.precision, device)
        width = 0 if projection is None else projection.width
        cores = min(CORES, torch.get_num_threads())  # as many as here, for they decide the last bits of sums
        items = len(split.item_ids)
        job = ShardsJob(c, path.resolve(), items, width, dtype, sizes, steps, device.type, cores)
        told = job.files.manifest()
        if told is None or not told.get("done"):
            job.files.write(split, projection, dtype)
            run(job)
            told = job.files.manifest()
        if told is None or not told.get("done"):
            raise Stopped(f"stopped; {path} holds the state: run the same command again to resume")
        factors = made(split, projection, c, job, told) if told["curve"] else None
        if "diverged" in told:
            raise Diverged(told["diverged"], factors)
        assert factors is not None
        return factors


def batches_of(split: Split, c: TrainConfig) -> tuple[tuple[int, ...], int]:
    """Positives of a batch of each shard, so that all have as many batches in an epoch, and how many that are.

    Raises:
        VbprError: a shard has none.
    """
    users, items = split.train.shape
    if c.shards > users:
        raise VbprError(f"--shards {c.shards:,} is more than the {users:,} users; lower it")
    degree = np.diff(split.train.indptr)
    degree = np.where(degree < items, degree, 0)  # a user of every item has no negative
    pairs = np.array([degree[number :: c.shards].sum() for number in range(c.shards)])
    steps = int(max(1, pairs.sum() // c.batch))
    if (pairs < steps).any():
        raise VbprError(
            f"--shards {c.shards:,} leaves a shard of {-(-users // c.shards):,} users without a positive in each batch "
            f"of {c.batch:,}; lower it, or give a larger --batch"
        )
    return tuple((pairs // steps).tolist()), steps


def run(job: ShardsJob) -> None:
    """Have the shards trained, here or by workers; when it returns, all is done, or stopped.

    Raises:
        VbprError: see `Cluster`.
        Stopped: here.
    """
    cluster = job.config.cluster
    with contextlib.ExitStack() as stack:
        host = None
        if cluster:
            host = stack.enter_context(Host(address_for(cluster)))
            job = dataclasses.replace(job, host=host.host, port=host.port)
        crew = stack.enter_context(hired(cluster or None, job))
        bar = stack.enter_context(job.bar()) if cluster else None
        stopping = stack.enter_context(stop_signals())

        def watch() -> bool:
            if host is not None and bar is not None:
                host.tell(crew.workers)
                done, note = host.progress()
                if done > bar.done:
                    bar.advance(done - bar.done, note)
            return host is not None and stopping()  # here, the trainer asks by itself

        over: list[bool] = []
        seen, vain = 0, 0
        for _, _, result in crew.run(itertools.takewhile(lambda _: not over, itertools.count()), watch):
            if result == DONE:
                over.append(True)
                if host is not None:
                    host.end()
            elif result and bar is not None:
                seen, vain = bar.done, (vain + 1 if seen == bar.done else 0)
                if vain > VAIN * crew.workers:
                    raise VbprError(
                        f"the workers of the cluster do not get on together ({result.splitlines()[0]}); {AGAIN}"
                    )


def address_for(cluster: str) -> str:
    """The address at which this machine's workers and others find the store: 127.0.0.1 for a cluster of one's own."""
    if cluster == "local":
        return "127.0.0.1"
    host, _, port = cluster.rpartition(":")
    return address_towards(host, int(port))


def made(split: Split, projection: Projection | None, c: TrainConfig, job: ShardsJob, told: dict[str, Any]) -> Factors:
    """The model, of the files of a training that is done."""
    files, count, columns = job.files, len(split.user_ids), c.dim * bool(job.width) + c.factors
    found = read_checkpoint(files.state("shared", told["tag"]), [LAYOUT, c.identity])
    if found is None:
        raise VbprError(f"{files.state('shared', told['tag'])} is damaged; delete {files.path}* and train again")
    best = {name.partition("/")[2]: value for name, value in found[0].items() if name.startswith("best/")}
    size = count * columns * 4
    memory = memory_on_disk(size, job.path.parent, "users' vectors") if size >= LARGE else None
    users = np.empty((count, columns), np.float32) if memory is None else np.frombuffer(memory, np.float32)
    users = users.reshape(count, columns)
    for number in range(c.shards):
        mine = users[number :: c.shards]
        mine[:] = np.memmap(files.named(f"vectors-{number}"), np.float32, "r", shape=mine.shape)
    counts = torch.from_numpy(files.items()).float()
    shrink = counts / (counts + c.shrink) if c.shrink else torch.ones_like(counts)
    return factors_from(split, users, best, shrink, projection, c, told["curve"])


__all__ = ["ShardsJob", "fit_shards"]
