"""What every benchmark shares: the machine in a line, medians, made data with planted tastes, and a table."""

import importlib.metadata
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vbpr.base.files import replace_text
from vbpr.data.interactions import Interactions
from vbpr.data.parts import csr
from vbpr.data.split import Split, leave_one_out

# The plain two-stage ranker: one uniform negative for each positive, no history term, no visual bias.
OWN_NEGATIVES = {
    "shared_negatives": 0,
    "history": False,
    "visual_bias": False,
    "batch": 4096,
    "per_user": 1,
    "negatives": "uniform",
}


def machine(*packages: str) -> str:
    """Processor or GPU, threads, versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("vbpr", "torch", *(packages or ["numpy"]))
    )
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads{gpu}; {versions}"


def median(run: Callable[[], object], times: int = 5, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median seconds of a call by a clock, after one that warms up."""
    run()
    taken = []
    for _ in range(times):
        start = clock()
        run()
        taken.append(clock() - start)
    return statistics.median(taken)


class PeakMemory:
    """Peak resident memory of this process above where it stood at the start, in MB, sampled 50 times a second."""

    def __enter__(self) -> "PeakMemory":
        self.base, self.peak, self.stop = resident(), 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.stop.wait(0.02):
            self.peak = max(self.peak, resident() - self.base)

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def planted(users: int, items: int, pairs: int, dim: int, seed: int = 0, tastes: int = 20) -> tuple[Split, np.ndarray]:
    """Interactions drawn from low-rank tastes on low-rank features: about `pairs` for training, and (I, D) float16.

    Items are as popular as Zipf has it; each user gets at least five.
    """
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((items, tastes), np.float32)
    basis = rng.standard_normal((tastes, dim), np.float32)
    features = np.empty((items, dim), np.float16)
    for a in range(0, items, 8192):
        block = latent[a : a + 8192] @ basis
        features[a : a + 8192] = block + 2 * rng.standard_normal(block.shape, np.float32)
    taste = rng.standard_normal((users, tastes), np.float32)
    popularity = 1 / (1 + np.arange(items)) ** 0.6
    popularity = rng.permutation(popularity / popularity.sum())
    counts = 5 + rng.poisson(max(0.0, (pairs + 2 * users) / users - 5), users)
    cumulative = np.cumsum(popularity)
    u_all, i_all = [], []
    for u in range(users):  # of eight popular candidates for each pair, the ones that suit the taste
        pool = np.unique(np.minimum(items - 1, np.searchsorted(cumulative, rng.random(8 * counts[u]))))
        keep = pool[np.argpartition(-(latent[pool] @ taste[u]), min(counts[u], len(pool)) - 1)[: counts[u]]]
        u_all.append(np.full(len(keep), u))
        i_all.append(keep)
    u, i = np.concatenate(u_all), np.concatenate(i_all)
    everything = Interactions(
        np.array([f"u{n:07d}" for n in range(users)]),
        np.array([f"i{n:07d}" for n in range(items)]),
        u.astype(np.int32),
        i.astype(np.int32),
    )
    part = leave_one_out(everything, rng.random(len(u)))
    matrices = [csr(u[part == p], i[part == p], (users, items)) for p in range(3)]
    return Split(everything.user_ids, everything.item_ids, *matrices, "planted"), features


def table(rows: list[dict[str, object]]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def write_page(page: Path, script: str, text: str) -> None:
    """Put a script's output between its two marks in a page."""
    begin, end = (f"<!-- {script}: {mark} -->" for mark in ("begin", "end"))
    before, rest = page.read_text(encoding="utf-8").split(begin)
    replace_text(page, f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end)[1]}")
