"""Training at the Amazon Fashion shape, on made data with planted tastes: rates, time of 20 epochs, memory, growth.

    python bench/train.py [--users 45184 --items 166270 --pairs 267635 --feature-dim 2048 --dim 50]

Triplets are counted as the loss counts them. With shared negatives a step of B positives and N negatives forms B x N
triplets from B + N encodings; `positives/s` is what compares with a trainer that draws one negative for each.
Popularity may join a model once it is trained. It is left out here: after a single epoch it would join, and what the
epochs after the first take would be wrong.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import OWN_NEGATIVES, PeakMemory, machine, median, planted, table

from vbpr.compute.device import dtype_for
from vbpr.compute.memory import available_memory
from vbpr.data.split import Split
from vbpr.evaluation.evaluate import evaluate
from vbpr.training.config import TrainConfig
from vbpr.training.configure import configure
from vbpr.training.fit import fit
from vbpr.training.item_features import ItemFeatures
from vbpr.training.models.bpr.terms import difference

MODES: dict[str, dict[str, Any]] = {"own negative each": OWN_NEGATIVES, "default": {}}
# What grows twofold: users, items, interactions.
GROWTH = {"as given": (1, 1, 1), "interactions": (1, 1, 2), "users and interactions": (2, 1, 2), "items": (1, 2, 1)}
MAPPED = 0.001  # GB of prepared features: all of them lie on the disk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=45_184)
    parser.add_argument("--items", type=int, default=166_270)
    parser.add_argument("--pairs", type=int, default=267_635)
    parser.add_argument("--feature-dim", type=int, nargs="+", default=[2048])
    parser.add_argument("--dim", type=int, nargs="+", default=[50])
    parser.add_argument("--epochs", type=int, default=20, help="two or more")
    parser.add_argument("--growth", action="store_true", help="also twice the users, items and interactions")
    parser.add_argument(
        "--room",
        type=float,
        nargs="+",
        default=[],
        help="also train from the disk, the machine's memory filled until it has room for these shares of the rows",
    )
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    print(f"training; {machine()}\n", flush=True)
    for feature_dim in args.feature_dim:
        for grown, (users, items, pairs) in list(GROWTH.items())[: None if args.growth else 1]:
            split, matrix = planted(users * args.users, items * args.items, pairs * args.pairs, feature_dim)
            features = ItemFeatures.of(matrix, np.ones(len(matrix), bool))
            about = {"D": feature_dim, "twofold": grown, "train pairs": f"{split.train.nnz:,}"}
            for dim in args.dim:
                floor = floor_rate(matrix, dim, device)
                for mode, values in MODES.items():
                    of_all: dict[str, Any] = {"epochs": args.epochs, "patience": 0, "eval_every": 5, "popular": False}
                    config = configure("visual", dim=dim, **of_all, **values)
                    rows.append({"mode": mode, "K": dim, **about, **measure(split, features, config, floor)})
                    print(rows[-1], flush=True)
            width = dtype_for(config.precision, device).itemsize * min(config.axes, feature_dim)
            prepared = sum(split.train.shape) * width / 2**20  # MB
            beside = float(rows[-1]["memory MB"].replace(",", "")) - prepared
            config = config.changed(memory_limit=MAPPED)
            for room in args.room:
                filled = np.ones(max(0, int(available_memory() - (beside + room * prepared) * 2**20)), np.uint8)
                mode = f"default, from the disk, room for {room:.0%} of {prepared:,.0f} MB"
                rows.append({"mode": mode, "K": dim, **about, **measure(split, features, config, floor)})
                print(rows[-1], flush=True)
                del filled
    print("\n" + table(rows))
    print(
        "\nseconds: everything from features and their statistics in memory to factors (axes, training, validations,\n"
        "exact item vectors). positives/s: of the epochs after the first, validations included.\n"
        "floor: gathering two rows a triplet and two products with the head, nothing else."
    )


def measure(split: Split, features: ItemFeatures, config: TrainConfig, floor: float) -> dict[str, str]:
    """One fit of all epochs, and one of a single epoch for what is done but once."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "state"
        start = time.perf_counter()
        fit(split, features, config.changed(epochs=1), checkpoint=checkpoint)
        once = time.perf_counter() - start
        with PeakMemory() as memory:
            start, before = time.perf_counter(), bytes_read()
            factors = fit(split, features, config, checkpoint=checkpoint)
            seconds = time.perf_counter() - start
    epoch = (split.train.nnz // config.batch) * config.batch
    rate = (config.epochs - 1) * epoch / (seconds - once)  # what epochs cost beside all that is done once
    return {
        "seconds": f"{seconds:.1f}",
        "positives/s": f"{rate:,.0f}",
        "triplets/s": f"{rate * max(1, config.shared_negatives):,.0f}",
        "floor positives/s": f"{floor:,.0f}",
        "ratio": f"{rate / floor:.2f}",
        "memory MB": f"{memory.peak:,.0f}",
        "features MB": f"{features.matrix.nbytes / 2**20:,.0f}",
        "read MB/epoch": f"{(bytes_read() - before) / config.epochs / 2**20:,.0f}",
        "test AUC": f"{evaluate(factors).summary()['all']['auc']:.4f}",
    }


def bytes_read() -> int:
    """What this process has had the disks read."""
    line = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes"))
    return int(line.split()[1])


def floor_rate(matrix: np.ndarray, dim: int, device: torch.device, batch: int = 4096) -> float:
    """Triplets a second of the bare operation."""
    x = torch.from_numpy(matrix[:60_000]).to(device).bfloat16()
    e = torch.randn(dim, x.shape[1], device=device).bfloat16()
    i, j = (torch.randint(len(x), (batch,), device=device) for _ in range(2))

    def run() -> None:
        d = difference(x, i, j)
        (d @ e.T).T @ d
        if device.type == "cuda":
            torch.cuda.synchronize()

    return batch / median(run, 9)


if __name__ == "__main__":
    main()
