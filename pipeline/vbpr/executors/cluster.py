"""Workers on a Ray cluster, from the side of the command that wants the work done.

Ray ends the process that drives it when its raylet or head dies, and writes into its output. So it runs in a process
of its own (`ray.py`), which talks to this one through a pipe: where that process ends, this one says so, and what was
written stands. It ends when this one does.

Memory: this process holds the one result that it has been handed, and Ray's the one that it hands over; the others,
at most `overlap` + 1 for each worker, wait in the object stores of the machines where they were made.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import pickle
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any

from ..base.errors import VbprError
from .job import Job

INSTALL = "--cluster needs Ray: pip install 'vbpr[cluster]'"
AGAIN = "run the same command again to resume"
EVERY = 0.05  # seconds between looks, when waiting
GRACE = 20.0  # seconds for Ray to end by itself
PATIENCE = 30.0  # seconds without the cluster's head, or without any machine, until the run ends
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
# What makes Ray listen on 127.0.0.1 alone, on any system; else it takes 127.0.0.1 for the machine's outward address.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


class Cluster:
    """The workers of one job on the machines of a Ray cluster; as a context, which ends them."""

    def __init__(self, address: str, job: Job) -> None:
        """
        Args:
            address: `local` for a cluster that begins and ends with this job, or HOST:PORT of a head.

        Raises:
            VbprError: see `check_address`.
        """
        check_address(address)
        self.address, self.job = address, job
        self.first: dict[str, Any] | None = None
        self.wanted = 0  # parts that workers wait for
        self.workers = 0

    def __enter__(self) -> "Cluster":
        here, there = Pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | QUIET
        if self.address == "local":
            environment |= LOOPBACK | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        else:
            host, _, port = self.address.rpartition(":")
            # or the proxy of the environment would be asked for the cluster
            environment["no_proxy"] = ",".join(filter(None, (os.environ.get("no_proxy"), host)))
            environment |= LOOPBACK if on_loopback(host, int(port)) else {}
        with there:
            self.ray = subprocess.Popen(
                [sys.executable, "-c", f"from vbpr.executors.ray import main; main({there.fileno()})"],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which tells the other
            )
        self.pipe: Connection = here
        try:
            request = {
                "address": self.address,
                "job": pickle.dumps(self.job),
                "device": self.job.device,
                "cores": self.job.cores,
                "overlap": self.job.overlap,
                "version": importlib.metadata.version("vbpr"),
                "patience": PATIENCE,
            }
            self.tell("job", request)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the workers, and a local cluster: nothing is left running."""
        with contextlib.suppress(OSError):
            self.pipe.close()  # by which the other side hears of the end
        try:
            self.ray.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.ray.kill()
            self.ray.wait()
        end_session(self.ray.pid)

    @property
    def about(self) -> dict[str, Any]:
        """What the first worker says of itself; waits for it.

        Raises:
            VbprError: there is no cluster, or none of its machines can do the work.
        """
        while self.first is None:
            self.handle(self.hear())
        return self.first

    def run(self, parts: Iterable[Any], stopping: Callable[[], bool] = lambda: False) -> Iterator[tuple[int, Any, Any]]:
        """See `Crew.run`."""
        out: dict[int, Any] = {}
        waiting, told, more = enumerate(parts), False, True
        while True:
            if stopping() and not told:
                told, more = True, False
                self.tell("stop")
            while more and self.wanted:
                number, part = next(waiting, (-1, None))
                more = number >= 0
                if more:
                    out[number] = part
                    self.wanted -= 1
                    self.tell("part", (number, pickle.dumps(part)))
            if not (more or out):
                return
            said = self.hear(stopping if not told else lambda: False)
            if said is None:
                continue
            kind, value = said
            if kind == "done":
                yield value[0], out.pop(value[0]), pickle.loads(value[1])
            elif kind == "over":  # after `stop`: nothing comes of the rest
                return
            else:
                self.handle(said)

    def handle(self, said: tuple[str, Any] | None) -> None:
        """What is said beside the results."""
        kind, value = said or ("", None)
        if kind == "ready":
            self.first = value
        elif kind == "want":
            self.wanted += 1
        elif kind == "workers":
            self.workers = int(value or 0)
        elif kind == "note":
            from ..base.progress import console  # late: the command line reads this package before it needs that

            console.print(f"note: {value}")
        elif kind == "refused":
            raise VbprError(value)
        elif kind == "failed":
            raise RuntimeError(value)

    def tell(self, kind: str, value: Any = None) -> None:
        try:
            self.pipe.send((kind, value))
        except OSError as error:
            raise self.gone() from error

    def hear(self, enough: Callable[[], bool] = lambda: False) -> tuple[str, Any] | None:
        """The next thing that is said; None where the caller has waited `enough`."""
        try:
            while not self.pipe.poll(EVERY):
                if enough():
                    return None
            said: tuple[str, Any] = self.pipe.recv()
            return said
        except (EOFError, OSError) as error:
            raise self.gone() from error

    def gone(self) -> VbprError:
        where = "on this machine" if self.address == "local" else f"of the cluster at {self.address}, or this machine's"
        return VbprError(f"Ray has ended without a word: the head {where} raylet is gone; {AGAIN}")


def end_session(leader: int) -> None:
    """End what a process has left running in its session: agents of Ray's look for a head that is gone for a minute."""
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        with contextlib.suppress(OSError):
            if pid not in (leader, os.getpid()) and os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)


def on_loopback(host: str, port: int) -> bool:
    """Whether a head is on this machine and listens on 127.0.0.1 alone."""
    if host != "localhost" and not host.startswith("127."):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))  # nothing is sent: it tells by which address one would
            with socket.create_connection((probe.getsockname()[0], port), 2):
                return False
        except OSError:
            return True


def check_cluster(cluster: str | None, device: str) -> None:
    """
    Raises:
        VbprError: no such cluster can be, or one GPU is named for the workers of many machines.
    """
    if cluster is not None:
        check_address(cluster)
    if cluster is not None and device not in ("auto", "cpu", "cuda"):
        raise VbprError(f"--device {device} names one GPU; with --cluster give auto, cpu or cuda")


def check_address(address: str) -> None:
    """
    Raises:
        VbprError: it is none, or Ray is not installed.
    """
    if address != "local" and not re.fullmatch(r"[^\s/:]+:\d{1,5}", address):
        raise VbprError(f"--cluster {address}: give `local`, or HOST:PORT of a cluster's head, as in 10.0.0.1:6379")
    if importlib.util.find_spec("ray") is None:
        raise VbprError(INSTALL)


def explained(address: str, why: str) -> str:
    """Why Ray does not join a cluster, in a sentence."""
    words = " ".join(why.split())
    if "ersion mismatch" in words:
        found = [part.split()[0].rstrip(",") for part in words.split("Ray: ")[1:3]] or ["another"]
        pythons = [part.split()[0].rstrip(",.") for part in words.split("Python: ")[1:3]] or ["another"]
        return (
            f"the cluster at {address} runs Ray {found[0]} with Python {pythons[0]}, and this is Ray {found[-1]} with "
            f"Python {pythons[-1]}; both must be the same"
        )
    if "oken" in words and "uthentic" in words:
        return f"the cluster at {address} wants its token; see `ray get-auth-token`, and set RAY_AUTH_MODE=token"
    return (
        f"the cluster at {address} cannot be joined ({words[:200]}); this machine must be part of it: "
        f"`ray start --address {address} --num-cpus 0` joins without taking work"
    )


def clear_left(folder: Path) -> None:
    """Remove the folders that local clusters have left here whose process was killed."""
    import shutil

    for left in folder.glob("vbpr-ray-*-*"):
        with contextlib.suppress(ValueError, OSError):
            pid = int(left.name.split("-")[2])
            if left.stat().st_uid == os.getuid() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(left, ignore_errors=True)


__all__ = ["AGAIN", "Cluster", "check_address", "check_cluster", "clear_left", "end_session", "explained"]
