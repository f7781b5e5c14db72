"""Kill workers, raylets, heads, Ray's drivers and commands of cluster extractions, and compare the files that follow.

python tools/torture_cluster.py --kills 100

A cluster of three nodes on this machine. Each kill is a SIGKILL at a random moment of a run. A worker's or a raylet's
costs nothing: the run ends well. A head's or Ray's driver's ends the command in a sentence, and the command's own in
nothing; the same command then resumes. Every file must be the one that a single process makes, to the bit.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "pipeline"))

from nodes import Nodes, below, command_of  # noqa: E402
from torture import make_images  # noqa: E402

KINDS = ("worker", "raylet", "head", "driver", "command")
START = "import vbpr.executors.cluster as c; c.PATIENCE = 4; from vbpr.__main__ import main; main()"
ENVIRONMENT = {"PYTHONPATH": str(ROOT / "pipeline"), "OMP_NUM_THREADS": "1"}


class Machines:
    """Three nodes, made up again after each loss."""

    def __init__(self) -> None:
        self.head: Nodes | None = None
        self.more: list[Nodes] = []

    def ready(self) -> str:
        """The address of a cluster of three nodes that are alive."""
        if self.head is None:
            self.head = Nodes(1, env=ENVIRONMENT)
        self.more = [node for node in self.more if command_of(node.nodes[0]["raylet"])]
        while len(self.more) < 2:
            self.more.append(Nodes(1, "--join", self.head.address, env=ENVIRONMENT))
        return str(self.head.address)

    def workers(self) -> list[int]:
        return [pid for nodes in (self.head, *self.more) if nodes is not None for pid in nodes.workers()]

    def end(self) -> None:
        """End all, and look whether anything is left."""
        pids = []
        for nodes in (*self.more, self.head):
            if nodes is not None:
                pids += below(nodes.process.pid)
                nodes.__exit__()
        self.head, self.more = None, []
        gone(pids)


def gone(pids: list[int], patience: float = 30) -> None:
    """
    Raises:
        AssertionError: one of these processes does not end.
    """
    end = time.monotonic() + patience
    while left := [command_of(pid)[:80] for pid in pids if command_of(pid)]:
        assert time.monotonic() < end, f"left running: {left}"
        time.sleep(0.05)


def start(data: Path, out: Path, address: str) -> subprocess.Popen[str]:
    """The command, on the cluster at an address ("": without one)."""
    words = ["extract", "--backbone", "test_efficientnet", "--random-weights", "--engine", "torch", "--batch", "4"]
    words += ["--device", "cpu", "--data", str(data), "--out", str(out), *(["--cluster", address] if address else [])]
    return subprocess.Popen(
        [sys.executable, "-c", START, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )


def strike(kind: str, machines: Machines, command: subprocess.Popen[str], rng: random.Random) -> bool:
    """SIGKILL something of a kind, if it is there."""
    assert machines.head is not None
    if kind == "worker":
        pids = machines.workers()
    elif kind == "raylet":
        pids = [rng.choice(machines.more).nodes[0]["raylet"]]
    elif kind == "head":
        pids = [machines.head.nodes[0]["gcs_server"]]
    else:
        drivers = [pid for pid in below(command.pid) if "vbpr.executors.ray" in command_of(pid)]
        pids = [command.pid] if kind == "command" else drivers
    if not pids or command.poll() is not None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(rng.choice(pids), signal.SIGKILL)
        return True
    return False


def torture(kills: int, folder: Path, seed: int = 0, images: int = 400, kinds: tuple[str, ...] = KINDS) -> Counter[str]:
    """Run until so much has been killed, and the last file is finished; how much of each kind.

    Raises:
        AssertionError: a file lost rows or differs in a bit, a command ended as it should not, or something runs on.
    """
    from vbpr.stores.features.store import FeatureStore

    rng, machines, killed = random.Random(seed), Machines(), Counter[str]()
    data, whole, out = folder / "images", folder / "whole.h5", folder / "killed.h5"
    make_images(data, images)
    assert start(data, whole, "").wait() == 0, "the undisturbed run failed"
    expected, done = whole.read_bytes(), 0
    try:
        began = time.monotonic()
        run = start(data, out, machines.ready())
        assert run.wait() == 0, run.stderr and run.stderr.read()
        span = time.monotonic() - began
        assert out.read_bytes() == expected, "the file of a cluster differs"
        out.unlink()
        while sum(killed.values()) < kills or out.exists():
            kind = kinds[sum(killed.values()) % len(kinds)] if sum(killed.values()) < kills else ""
            run = start(data, out, machines.ready())
            time.sleep(rng.uniform(0.2, 0.95) * span)
            mine = below(run.pid)
            struck = bool(kind) and strike(kind, machines, run, rng)
            killed[kind] += struck
            error = run.communicate(timeout=180)[1]
            gone(mine)
            fatal = struck and kind in ("head", "driver", "command")
            if run.returncode:
                assert fatal, f"ended with {run.returncode} after a {kind} was killed: {error}"
                assert kind == "command" or (run.returncode == 2 and "same command again" in error), error
                assert "Traceback" not in error, error
            if out.exists():
                store = FeatureStore(out)
                now = len(store) - len(store.pending)
                assert now >= done, f"{done - now} finished rows were lost"
                done = now
            if not run.returncode:
                assert out.read_bytes() == expected, f"the file differs after a {kind} was killed"
                done = 0
                out.unlink()
            if struck and kind == "head":
                machines.end()
            told = f"a {kind} was killed" if struck else "nothing was killed"
            print(f"{sum(killed.values())}: {told}, exit code {run.returncode}", file=sys.stderr, flush=True)
    finally:
        machines.end()
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        killed = torture(options.kills, Path(folder), options.seed, options.images, tuple(options.kinds))
    counts = ", ".join(f"{count} of a {kind}" for kind, count in killed.items() if kind)
    print(
        f"{sum(killed.values())} kills at random moments ({counts}); every file bit-identical to one process's, "
        f"and nothing left running ({time.monotonic() - began:.0f} s)"
    )


if __name__ == "__main__":
    main()
