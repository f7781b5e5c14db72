"""Ray, in a process of its own: it gives parts to workers, gives lost ones out again, and hands results over.

An actor of Ray's is bound to a machine, never restarted, and nothing is reconstructed, for the queue here
knows what is missing.
"""

import collections
import contextlib
import dataclasses
import os
import queue
import shutil
import socket
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..base.errors import first_line
from .cluster import AGAIN, clear_left, end_session, explained
from .hand import hand
from .job import Place, layout

LOST = (  # with a worker, its machine, or the way there; not what the work itself raises
    ray.exceptions.RayActorError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.GetTimeoutError,
    ray.exceptions.ActorUnschedulableError,
)
LOSSES = 5  # of one part, each with its worker
STRIKES = 3  # of a machine whose workers end before they have finished a part
LOOK = 1.0  # seconds between looks at the machines
WAIT = 0.1  # seconds for a result, before other things are looked at
FETCH = 120.0  # seconds for one result to come from its machine
SLOW = 30.0  # seconds to a word about cores that others use
STORE = 512 * 2**20  # bytes of a local cluster's object store, at most
SMALLEST_STORE = 80 * 2**20


class Refused(Exception):
    """The end of the run, in a sentence for people."""


@dataclasses.dataclass
class Node:
    """A machine of the cluster.

    Attributes:
        workers: how many it is to have. cores, gpu: of each.
        strikes: workers that ended, one after another, before they had finished a part.
        unfit: why it is left out; "" where it is not.
    """

    name: str
    workers: int
    cores: int
    gpu: bool
    strikes: int = 0
    unfit: str = ""


@dataclasses.dataclass
class Worker:
    """An actor, and what it has in hand: references of Ray's to what is asked of it, and the parts behind these."""

    node: str
    actor: Any
    ready: bool = False
    begun: float = dataclasses.field(default_factory=time.monotonic)
    asked: dict[Any, int] = dataclasses.field(default_factory=dict)


BEGIN, AGREE = -1, -2  # what is asked of a worker beside parts


class Driver:
    """Hands the parts of one job to the workers of a cluster."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.heard: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self.listen, daemon=True).start()
        self.nodes: dict[str, Node] = {}
        self.workers: list[Worker] = []
        self.parts: dict[int, bytes] = {}
        self.losses: collections.Counter[int] = collections.Counter()
        self.waiting: collections.deque[int] = collections.deque()
        self.first: dict[str, Any] | None = None
        self.wanted, self.count, self.stopping, self.slow = 0, 0, False, False
        self.alive: list[dict[str, Any]] = []
        self.fault = ""

    def listen(self) -> None:
        """Of a thread: what the command says; None once it has gone, and then the end, in time."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.heard.put(self.pipe.recv())
        self.heard.put(None)
        time.sleep(15)  # for Ray's own end
        end_session(os.getpid())
        os._exit(1)

    def say(self, kind: str, value: Any = None) -> None:
        self.pipe.send((kind, value))

    def watch(self, address: str, patience: float) -> None:
        """Of a thread: which machines there are, and whether the head still answers."""
        host, _, port = address.rpartition(":")
        answered = peopled = time.monotonic()
        while True:
            try:
                with socket.create_connection((host, int(port)), 5):
                    pass
                listed: Any = ray.nodes  # which has no types
                self.alive = [node for node in listed() if node["Alive"]]
                answered = time.monotonic()
            except Exception as error:  # whatever Ray raises of a head that is gone
                if time.monotonic() - answered > patience:
                    self.fault = f"the head of the cluster at {address} is gone ({type(error).__name__}); {AGAIN}"
                    return
            if any(layout_of(node, self.request)[0] for node in self.alive):
                peopled = time.monotonic()
            if time.monotonic() - peopled > patience:
                needs = "a GPU" if self.request["device"] == "cuda" else "a core"
                self.fault = f"no machine of the cluster at {address} has {needs} to give; {AGAIN} once one has"
                return
            time.sleep(LOOK)

    def work(self, request: dict[str, Any], address: str) -> None:
        """Until the command closes the pipe.

        Raises:
            Refused: it cannot go on.
        """
        self.request = request
        threading.Thread(target=self.watch, args=(address, request["patience"]), daemon=True).start()
        remote: Any = ray.remote  # whose types know no groups
        self.actors = remote(
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"parts": request["overlap"], "words": 1},  # who is told to stop has a thread for it
        )(hand())
        self.job = ray.put(request["job"])
        while True:
            while not self.heard.empty():
                said = self.heard.get()
                if said is None:
                    return
                if said[0] == "part":
                    number, part = said[1]
                    self.parts[number] = part
                    self.waiting.append(number)
                    self.wanted -= 1
                elif said[0] == "stop":
                    self.stop()
            if self.fault:
                raise Refused(self.fault)
            if self.stopping and not any(number >= 0 for worker in self.workers for number in worker.asked.values()):
                self.stopping = False
                self.say("over")
                return
            self.hire()
            count = sum(worker.ready or time.monotonic() - worker.begun < SLOW for worker in self.workers)
            if count != self.count:
                self.count = count
                self.say("workers", count)
            self.give()
            asked = {ref: worker for worker in self.workers for ref in worker.asked}
            if not asked:
                time.sleep(WAIT)
                continue
            ended, _ = ray.wait(list(asked), timeout=WAIT, fetch_local=False)
            for ref in ended:
                self.take(asked[ref], ref)

    def hire(self) -> None:
        """Begin workers on machines that have come, and let those go whose machine has left."""
        here = {node["NodeID"]: node for node in self.alive}
        for worker in [worker for worker in self.workers if worker.node not in here]:
            self.lose(worker, "its machine is gone", strike=False)
        for key, node in here.items():
            if key not in self.nodes:
                workers, cores, gpu = layout_of(node, self.request)
                name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}:{node['NodeManagerPort']})"
                self.nodes[key] = Node(name, workers, cores, gpu)
            known = self.nodes[key]
            missing = 0 if known.unfit or self.stopping else known.workers
            missing -= sum(worker.node == key for worker in self.workers)
            for _ in range(missing):
                actor = self.actors.options(
                    num_cpus=known.cores,
                    num_gpus=int(known.gpu),
                    scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False),
                ).remote()
                place = dataclasses.asdict(Place(known.name, known.cores, known.gpu))
                worker = Worker(key, actor)
                worker.asked[actor.begin.remote(self.request["version"], self.job, place)] = BEGIN
                self.workers.append(worker)
        late = [worker for worker in self.workers if not worker.ready and time.monotonic() - worker.begun > SLOW]
        if late and len(late) == len(self.workers) and not self.slow and self.first is None:
            self.slow = True
            slow = self.nodes[late[0].node]
            self.say("note", f"no worker has begun yet; the first wants {slow.cores} free cores of {slow.name}")

    def give(self) -> None:
        """Hand parts to workers that have fewer in hand than they may: one more than they do at once."""
        for worker in self.workers:
            while worker.ready and not self.stopping and len(worker.asked) <= self.request["overlap"]:
                if not self.waiting:
                    break
                number = self.waiting.popleft()
                worker.asked[worker.actor.do.options(concurrency_group="parts").remote(self.parts[number])] = number
        room = sum(max(0, self.request["overlap"] + 1 - len(w.asked)) for w in self.workers if w.ready)
        for _ in range(0 if self.stopping else room - len(self.waiting) - self.wanted):
            self.wanted += 1
            self.say("want")

    def take(self, worker: Worker, ref: Any) -> None:
        """What a worker has answered."""
        if worker not in self.workers:
            return  # it was lost a moment ago, with all that it had in hand
        try:
            answer = ray.get(ref, timeout=FETCH)
        except LOST as error:
            self.lose(worker, first_line(error))
            return
        except ray.exceptions.RayTaskError as error:
            if worker.asked[ref] != BEGIN:
                raise
            answer = {"unfit": f"a worker cannot begin there ({first_line(error.cause or error)})"}
        number = worker.asked.pop(ref)
        node = self.nodes[worker.node]
        if number == BEGIN:
            self.begun(worker, answer)
        elif number == AGREE:
            worker.ready = not answer
            if answer:
                self.leave_out(worker.node, answer)
        elif "result" in answer:
            node.strikes = 0
            del self.parts[number]
            self.losses.pop(number, None)
            self.say("done", (number, answer["result"]))
        elif "unfit" in answer:
            self.waiting.appendleft(number)
            self.leave_out(worker.node, answer["unfit"])
        else:
            raise Refused(answer["refused"])

    def begun(self, worker: Worker, answer: dict[str, Any]) -> None:
        """A worker has made ready, or says why it cannot."""
        if "unfit" in answer:
            self.leave_out(worker.node, answer["unfit"])
        elif self.first is None:
            self.first, worker.ready = answer["about"], True
            self.say("ready", self.first)
        else:
            worker.asked[worker.actor.agree.remote(self.first)] = AGREE

    def leave_out(self, key: str, why: str) -> None:
        """Give a machine no more work, and say so; without any other, the run ends.

        Raises:
            Refused: there is no other.
        """
        node = self.nodes[key]
        if node.unfit:
            return
        node.unfit = why
        for worker in [worker for worker in self.workers if worker.node == key]:
            self.lose(worker, why, strike=False)
        if not any(other.workers and not other.unfit for other in self.nodes.values()):
            raise Refused(f"no machine of the cluster can do this: {node.name} is left out, for {why}")
        self.say("note", f"{node.name} is left out: {why}")

    def lose(self, worker: Worker, why: str, strike: bool = True) -> None:
        """Take the parts of a worker back.

        Raises:
            Refused: a part has been lost too often, or no machine is left.
        """
        self.workers.remove(worker)
        with contextlib.suppress(Exception):  # of a head that is gone
            ray.kill(worker.actor)
        numbers = sorted(number for number in worker.asked.values() if number >= 0)
        self.waiting.extendleft(reversed(numbers))
        if not strike:
            return
        self.losses.update(numbers)
        node = self.nodes[worker.node]
        node.strikes += 1
        if numbers and max(self.losses[number] for number in numbers) >= LOSSES:
            raise Refused(f"one part of the work has ended {LOSSES} workers (last on {node.name}: {why})")
        if node.strikes >= STRIKES:
            self.leave_out(worker.node, f"its workers ended {STRIKES} times without a result ({why})")

    def stop(self) -> None:
        """Have the parts in hand end early."""
        self.stopping = True
        self.waiting.clear()
        for worker in self.workers:
            if worker.ready:
                worker.actor.stop.options(concurrency_group="words").remote()


def layout_of(node: dict[str, Any], request: dict[str, Any]) -> tuple[int, int, bool]:
    """What workers a machine gets; see `layout`."""
    cores, gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
    return layout(request["device"], request["cores"], cores, gpus)


def connect(address: str, folder: str) -> str:
    """Start a cluster of one machine, or join one; the address of its head.

    Raises:
        Refused: there is none, of another version, or this machine is not part of it.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        room = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else STORE
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)),
            include_dashboard=False,
            object_store_memory=max(SMALLEST_STORE, min(STORE, room // 3)),
            _temp_dir=folder,
            **quiet,
        )
        return str(ray.get_runtime_context().gcs_address)
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 10):
            pass
    except OSError as error:
        why = error.strerror or str(error)
        raise Refused(
            f"no cluster answers at {address} ({why}); start one by `ray start --head`, and give --cluster its address"
        ) from error
    try:
        ray.init(address=address, **quiet)
    except Exception as error:  # Ray has no type of its own for most of these
        raise Refused(explained(address, str(error.__cause__ or error))) from error
    return address


def main(descriptor: int) -> None:
    """The whole life of the process.

    Args:
        descriptor: of the pipe to the command.
    """
    os.set_inheritable(descriptor, False)
    pipe = Connection(descriptor)
    base = "/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()  # paths of sockets must be short
    clear_left(Path(base))
    folder = tempfile.mkdtemp(prefix=f"vbpr-ray-{os.getpid()}-", dir=base)
    log = os.open(f"{folder}/driver.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        kind, request = pipe.recv()
        assert kind == "job"
        driver = Driver(pipe)
        try:
            driver.work(request, connect(request["address"], folder))
        except Refused as refused:
            driver.say("refused", str(refused))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the command has gone
        except Exception as error:
            import traceback

            traceback.print_exc()
            driver.say("failed", f"{type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(Exception):
            ray.shutdown()
        end_session(os.getpid())
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)  # threads of Ray's may still wait for what is gone


__all__ = ["main"]
