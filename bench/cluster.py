"""What Ray costs: one worker against the plain command, two workers against one, and bytes through the driver.

python bench/cluster.py                         # lite0 on the sample, and lists for 100,000 users of 20,000 items
python bench/cluster.py --rounds 5 --users 200000

Start-ups are left out: from the first part to the last. Every worker has one thread, and each cluster is made of nodes
of one core on this machine. Overhead is of processor time, of all processes together, so that neighbours count little;
scaling is of wall time, and wants two idle cores. Rounds alternate; medians.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import machine, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from nodes import Nodes, below

from vbpr import Dataset, Factors
from vbpr.answers.everyone import ListsJob, ListsWork
from vbpr.answers.lists import CHUNK, Wishes
from vbpr.executors import hired
from vbpr.executors.parts import Ranges
from vbpr.extraction.request import request_of
from vbpr.extraction.steps import encoded, in_steps
from vbpr.extraction.workers import EncodingJob, begun, ids_digest, range_of
from vbpr.networks.registry import load_backbone

TICK = os.sysconf("SC_CLK_TCK")


def processor_seconds(pids: list[int]) -> float:
    """Of these processes so far."""
    total = 0.0
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += (int(words[11]) + int(words[12])) / TICK
    return total


def own_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(run: Callable[[], int], pids: list[int]) -> tuple[float, float, int]:
    """(wall seconds, processor seconds of this process and those, what it returns)."""
    wall, used = time.perf_counter(), own_seconds() + processor_seconds(pids)
    result = run()
    return time.perf_counter() - wall, own_seconds() + processor_seconds(pids) - used, result


def on_cluster(address: str, nodes: Nodes, job: Any, parts: Callable[[], Any], size: Callable[[Any], int]) -> Any:
    """(wall, processor seconds, bytes of results) of a job whose workers have begun."""
    with hired(address, job) as crew:
        assert crew.about
        while len(nodes.workers()) < len(nodes.nodes):
            time.sleep(0.05)
        time.sleep(2)  # until they have all begun
        pids = [*below(nodes.process.pid), crew.ray.pid]
        return timed(lambda: sum(size(result) for _, _, result in crew.run(parts())), pids)


def extraction(backbone: str) -> tuple[Any, Callable[[], int], Callable[[], Any], Callable[[Any], int], int]:
    """(job, plain run, parts, bytes of a result, rows)."""
    data = Dataset.resolve("sample")
    source, model = data.images(), load_backbone(backbone)
    request = request_of(backbone, None, False, "exact", {})
    job = EncodingJob(
        data.name, ids_digest(source.item_ids), backbone, None, False, model.fingerprint, "auto", "exact", None, 1,
        "cpu", None, request["versions"],
    )  # fmt: skip
    encoder, _, _ = begun(model, source, "auto", "cpu", "exact", None, None, len(source))
    signatures = np.array([source.signature(row) for row in range(len(source))], np.uint64)
    ranges = Ranges(len(source), range_of(encoder.batch))

    def plain() -> int:
        steps = in_steps(np.arange(len(source)), encoder.batch)
        return sum(len(step.rows) for step in encoded(source, encoder, model.preprocessing, steps, 1))

    def parts() -> Any:
        return ((rows, signatures[rows]) for rows in ranges.left(np.arange(len(source))))

    return job, plain, parts, lambda done: done.features.nbytes, len(source)


def lists(users: int, items: int, folder: Path) -> Any:
    """The same of lists of ten."""
    rng = np.random.default_rng(0)
    taken = sp.csr_matrix(
        (np.ones(20 * users, np.float32), rng.integers(items, size=20 * users), np.arange(0, 20 * users + 1, 20)),
        (users, items),
    )
    taken.sum_duplicates()
    taken.data[:] = 1
    none = sp.csr_matrix((users, items), dtype=np.float32)
    factors = Factors(
        rng.standard_normal((users, 50), np.float32),
        rng.standard_normal((items, 50), np.float32),
        np.zeros(items, np.float32),
        np.array([f"u{n:08}" for n in range(users)]),
        np.array([f"i{n:07}" for n in range(items)]),
        taken, none, none,
    )  # fmt: skip
    factors.save(folder / "model.h5")
    job = ListsJob(str(folder / "model.h5"), factors.digest(), None, Wishes())
    work = ListsWork(factors, Wishes())
    ranges = Ranges(users, CHUNK)

    def parts() -> Any:
        return (factors.user_ids[some] for some in ranges.left(np.arange(users)))

    def size(lists: Any) -> int:
        return int(lists.items.nbytes + lists.scores.nbytes + lists.users.nbytes)

    return job, lambda: sum(len(work(some).users) for some in parts()), parts, size, users


def measure(name: str, unit: str, made: Any, rounds: int, one: Nodes, two: Nodes) -> dict[str, object]:
    job, plain, parts, size, rows = made
    plain()
    taken: dict[str, list[tuple[float, float, int]]] = {"plain": [], "one": [], "two": []}
    for _ in range(rounds):
        taken["plain"].append(timed(plain, []))
        taken["one"].append(on_cluster(one.address, one, job, parts, size))
        taken["two"].append(on_cluster(two.address, two, job, parts, size))
    wall = {key: statistics.median(t[0] for t in times) for key, times in taken.items()}
    used = {key: statistics.median(t[1] for t in times) for key, times in taken.items()}
    return {
        "": name,
        "plain": f"{rows / wall['plain']:,.0f} {unit}/s",
        "one worker": f"{rows / wall['one']:,.0f} {unit}/s",
        "two workers": f"{rows / wall['two']:,.0f} {unit}/s",
        "overhead, processor time": f"{100 * (used['one'] / used['plain'] - 1):+.1f}%",
        "overhead, wall": f"{100 * (wall['one'] / wall['plain'] - 1):+.1f}%",
        "two to one, wall": f"{wall['one'] / wall['two']:.2f}",
        f"bytes a {unit.rstrip('s')}": f"{taken['one'][0][2] / rows:,.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="lite0")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(machine("ray", "numpy"))
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as folder, Nodes(1, env=env) as one, Nodes(2, env=env) as two:
        for name, unit, made in (
            (f"extract, {options.backbone}", "images", extraction(options.backbone)),
            ("recommend --all", "users", lists(options.users, options.items, Path(folder))),
        ):
            print(table([measure(name, unit, made, options.rounds, one, two)]), flush=True)


if __name__ == "__main__":
    main()
