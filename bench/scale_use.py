"""What is done with a model of a million items: whole commands, each by its time, processor time and peak memory.

python bench/scale_use.py /tmp/scale --make                 # 300 thousand users, 1 million items, K 128: 0.7 GB
python bench/scale_use.py /tmp/scale --base /path/to/another/checkout --times 3

With --base, the commands of another checkout run in turn with this one's, on the same files, and their ratio is told.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from common import machine, table
from PIL import Image

HERE = Path(__file__).parent.parent
FEW = 2000  # users of the lists that are timed


def make(folder, users, items, rank, pairs, seed=0):
    """A model file as training leaves it: axes of falling energy, popularity as in shops, a head for photos."""
    from vbpr import Factors, load_backbone
    from vbpr.stores.model.head import Head

    rng, fall = np.random.default_rng(seed), (1 + np.arange(rank)) ** -0.5
    turn = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    axes = (fall[:, None] * turn).astype(np.float32)
    vectors = rng.standard_normal((items, rank), np.float32) @ axes
    tastes = rng.standard_normal((users, rank), np.float32) @ axes
    weight = np.cumsum(1 / (10 + np.arange(items)) ** 0.7)
    taken = rng.permutation(items)[np.searchsorted(weight / weight[-1], rng.random(int(1.1 * pairs)))]
    keys = rng.permutation(np.unique(rng.integers(0, users, len(taken)) * items + taken))[:pairs]
    user, item = keys // items, keys % items
    part = np.zeros(len(keys), np.int8)
    part[: users // 5], part[users // 5 : users // 2] = 1, 2
    matrices = [
        sp.csr_matrix((np.ones((part == n).sum(), np.float32), (user[part == n], item[part == n])), (users, items))
        for n in range(3)
    ]
    bias = 0.1 * np.log1p(np.bincount(item, minlength=items)).astype(np.float32)
    names = (np.array([f"{kind}{n:07d}" for n in range(count)]) for kind, count in (("u", users), ("i", items)))
    backbone = load_backbone("lite0")
    made = {
        "path": "none",
        "backbone": backbone.name,
        "weights": backbone.weights,
        "weights_digest": backbone.digest,
        "weights_file": None,
        "preprocessing": str(backbone.preprocessing),
    }
    head = Head(
        np.zeros(backbone.dim, np.float32),
        np.ones(backbone.dim, np.float32),
        rng.standard_normal((rank, backbone.dim), np.float32) / 20,
        np.zeros(backbone.dim, np.float32),
    )
    about = {"model": "vbpr", "title": "VBPR (made)", "split": "made", "features": [made]}
    Factors(tastes, vectors, bias, *names, *matrices, head, about).save(folder / "big.model.h5")
    (folder / "users.txt").write_text("".join(f"u{n:07d}\n" for n in range(0, users, max(1, users // FEW))))
    (folder / "new").mkdir(exist_ok=True)
    for n in range(1000):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / "new" / f"new{n:04d}.jpg")
    products = rng.integers(0, items // 3, items)
    rows = "".join(f"i{n:07d},p{product}\n" for n, product in enumerate(products))
    (folder / "items.csv").write_text("item_id,product\n" + rows)


# A process's peak begins with that of whoever started it: so a small one starts each command.
STARTER = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
spent = used.ru_utime + used.ru_stime
print(json.dumps([status, time.perf_counter() - started, spent, used.ru_maxrss / 1024]))
"""


def measured(tree, words, folder):
    """Seconds, seconds of processors, and MB at the peak, of a command of a checkout; or the last it said."""
    command = [sys.executable, "-S", "-c", STARTER, sys.executable, "-m", "vbpr", *words]
    environment = os.environ | {"PYTHONPATH": str(tree / "pipeline")}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    status, *figures = json.loads(done.stdout)
    return (figures, "") if not status else ([], (done.stderr.strip().splitlines() or ["it was killed"])[-1])


COMMANDS = {
    "info": "info MODEL",
    "recommend --user": "recommend MODEL --user u0000003",
    "similar --item": "similar MODEL --item i0000003",
    f"recommend --users ({FEW:,})": "recommend MODEL --users users.txt --out lists.parquet",
    "recommend --user --one-per": "recommend MODEL --user u0000003 --one-per product --data .",
    "recommend --liked": "recommend MODEL --liked i0000003",
    "evaluate --users 20000": "evaluate MODEL --users 20000",
    "index": "index MODEL --out big.index",
    "report": "report MODEL --rank-users 2000 --out report.html",
    "add-items (1,000)": "add-items COPY new",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--base", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", help="commands whose name begins so")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.make:
        make(asked.folder, asked.users, asked.items, asked.rank, asked.pairs)
    trees, rows = [*([asked.base] if asked.base else []), HERE], []
    for name, text in COMMANDS.items():
        if asked.only and not name.startswith(asked.only):
            continue
        found = {tree: [] for tree in trees}
        for tree in trees * asked.times:
            if "COPY" in text:
                (asked.folder / "copy.model.h5").write_bytes((asked.folder / "big.model.h5").read_bytes())
            words = text.replace("MODEL", "big.model.h5").replace("COPY", "copy.model.h5").split()
            figures, fault = measured(tree, words, asked.folder)
            if fault:
                print(f"{name}: {fault}", file=sys.stderr)
            found[tree] += [figures] if figures else []
        middle = {
            tree: [statistics.median(column) for column in zip(*each, strict=True)] for tree, each in found.items()
        }
        ours, theirs = middle[HERE], middle.get(asked.base)
        row = {"command": name}
        for n, (what, form) in enumerate((("s", ".2f"), ("s of processors", ".2f"), ("MB", ".0f"))):
            row[what] = format(ours[n], form) if ours else "failed"
            if asked.base:
                row[f"{what} before"] = format(theirs[n], form) if theirs else "failed"
                row[f"{what} ratio"] = f"{ours[n] / theirs[n]:.2f}" if ours and theirs else ""
        rows.append(row)
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(f"\n{machine('numpy', 'h5py')}; load average {os.getloadavg()[0]:.1f}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
