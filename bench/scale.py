"""Whole commands on a made shop of a million items: processor seconds, seconds, peak memory; beside a build of before.

    python bench/scale.py [--users 300000 --items 1000000 --pairs 5000000 --feature-dim 512]
    python bench/scale.py --only train-visual --base ../base/pipeline --repeat 3

Every run is a process of its own. With `--base` the two builds take turns, and the table has ratios of their medians.
"""

import argparse
import dataclasses
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from catalogue import Catalogue, make_catalogue
from common import machine, table

from vbpr.evaluation.evaluate import evaluate
from vbpr.stores.model.factors import Factors

HERE = Path(__file__).resolve().parent.parent / "pipeline"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a command took: processor seconds of all its threads, seconds, MB at its peak, and its exit status."""

    processor: float
    seconds: float
    memory: float
    status: int


def command(name: str, made: Catalogue, model: Path, extra: list[str]) -> list[str]:
    """A command of vbpr by its name here."""
    kind, _, what = name.partition("-")
    if kind != "train":
        raise SystemExit(f"{name} is not known; choose from {', '.join(NAMES)}")
    features = [] if what == "bprmf" else ["--features", str(made.features)]
    return ["train", "--model", what, *features, "--data", str(made.data), "--out", str(model), *extra]


NAMES = ("train-visual", "train-vbpr", "train-bprmf")


def measure(build: Path, arguments: list[str], log: Path) -> Run:
    """Run a command of the package in a folder, and wait for it."""
    environment = {**os.environ, "PYTHONPATH": str(build)}
    start = time.perf_counter()
    with log.open("wb") as out:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "vbpr", *arguments],
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, out.fileno(), 2)],
        )
        _, status, used = os.wait4(child, 0)
    return Run(
        used.ru_utime + used.ru_stime,
        time.perf_counter() - start,
        used.ru_maxrss / 1024,
        os.waitstatus_to_exitcode(status),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--feature-dim", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="where the catalogue lies, or is made [default: a temporary one]")
    parser.add_argument("--only", nargs="+", default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--base", type=Path, help="`pipeline` of a build of before, to compare with")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="the rest goes to the command")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="vbpr-scale-"))
    print(f"{args.users:,} users, {args.items:,} items, {args.pairs:,} purchases; {machine()}\n", flush=True)
    try:
        made = make_catalogue(folder, args.users, args.items, args.pairs, args.feature_dim)
        builds = {"base": args.base, "here": HERE} if args.base else {"here": HERE}
        rows = []
        for name in args.only:
            runs: dict[str, list[Run]] = {build: [] for build in builds}
            for n in range(args.repeat):
                for build, place in builds.items():
                    arguments = command(name, made, folder / f"{build}-{name}.model.h5", args.extra)
                    runs[build].append(measure(place, arguments, folder / f"{build}-{name}.log"))
                    print(name, build, n, runs[build][-1], flush=True)
            rows.append(row(name, runs))
            for build in builds:
                rows[-1][f"{build}: AUC of {USERS:,} users"] = f"{auc(folder / f'{build}-{name}.model.h5'):.4f}"
        print("\n" + table(rows))
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


def auc(model: Path) -> float:
    """Test AUC of USERS users, the same ones for every build."""
    return float(evaluate(Factors.load(model), users=USERS).summary()["all"]["auc"])


def row(name: str, runs: dict[str, list[Run]]) -> dict[str, object]:
    """Medians of each build, and their ratios."""
    out: dict[str, object] = {"command": name}
    middle = {
        build: {field: statistics.median(getattr(run, field) for run in each) for field in COLUMNS}
        for build, each in runs.items()
    }
    for field, title in COLUMNS.items():
        out |= {f"{build}: {title}": f"{middle[build][field]:,.1f}" for build in runs}
        if "base" in middle:
            out[f"{title}, ratio"] = f"{middle['base'][field] / middle['here'][field]:.2f}"
    return out


USERS = 2000
COLUMNS = {"processor": "processor s", "seconds": "s", "memory": "MB"}

if __name__ == "__main__":
    main()
