"""Training at the Amazon Fashion shape, on made data with planted tastes: rates, time of 20 epochs, memory, growth.

    python bench/train.py [--users 45184 --items 166270 --pairs 267635 --feature-dim 2048 --dim 50]

Triplets are counted as the loss counts them. With shared negatives a step of B positives and N negatives forms B x N
triplets from B + N encodings; `positives/s` is what compares with a trainer that draws one negative for each.
"""

import argparse
import time

import numpy as np
import torch
from common import PeakMemory, machine, median, planted, table

from vbpr.evaluate import evaluate
from vbpr.models import configure
from vbpr.models.bpr import difference
from vbpr.recommender import ItemFeatures
from vbpr.train import fit

MODES = {
    "own negative each": {
        "shared_negatives": 0,
        "history": False,
        "visual_bias": False,
        "batch": 4096,
        "negatives": "uniform",
    },
    "default": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=45_184)
    parser.add_argument("--items", type=int, default=166_270)
    parser.add_argument("--pairs", type=int, default=267_635)
    parser.add_argument("--feature-dim", type=int, nargs="+", default=[2048])
    parser.add_argument("--dim", type=int, nargs="+", default=[50])
    parser.add_argument("--epochs", type=int, default=20, help="two or more")
    parser.add_argument("--growth", action="store_true", help="also twice the interactions")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    print(f"training; {machine()}\n", flush=True)
    for feature_dim in args.feature_dim:
        for times in (1, 2) if args.growth else (1,):
            split, matrix = planted(args.users, args.items, args.pairs * times, feature_dim)
            features = ItemFeatures.of(matrix, np.ones(len(matrix), bool))
            floor = floor_rate(matrix, args.dim[0], device)
            for dim in args.dim:
                for mode, values in MODES.items():
                    config = configure("visual", dim=dim, epochs=args.epochs, patience=0, eval_every=5, **values)
                    start = time.perf_counter()
                    fit(split, features, config.changed(epochs=1))
                    once = time.perf_counter() - start
                    with PeakMemory() as memory:
                        start = time.perf_counter()
                        factors = fit(split, features, config)
                        seconds = time.perf_counter() - start
                    epoch = (split.train.nnz // config.batch) * config.batch
                    rate = (args.epochs - 1) * epoch / (seconds - once)  # what epochs cost beside all that is done once
                    auc = evaluate(factors).summary()["all"]["auc"]
                    rows.append(
                        {
                            "mode": mode,
                            "D": feature_dim,
                            "K": dim,
                            "train pairs": f"{split.train.nnz:,}",
                            "epochs": args.epochs,
                            "seconds": f"{seconds:.1f}",
                            "positives/s": f"{rate:,.0f}",
                            "triplets/s": f"{rate * max(1, config.shared_negatives):,.0f}",
                            "floor positives/s": f"{floor:,.0f}",
                            "ratio": f"{rate / floor:.2f}",
                            "memory MB": f"{memory.peak:,.0f}",
                            "features MB": f"{matrix.nbytes / 2**20:,.0f}",
                            "test AUC": f"{auc:.4f}",
                        }
                    )
                    print(rows[-1], flush=True)
    print("\n" + table(rows))
    print(
        "\nseconds: everything from features in memory to factors (statistics, axes, training, validations, exact\n"
        "item vectors). positives/s: of the epochs after the first, validations included.\n"
        "floor: gathering two rows a triplet and two products with the head, nothing else."
    )


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
