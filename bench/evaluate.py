"""Exact evaluation at the Amazon Fashion shape: seconds, memory, and the ratio to the bare multiplication.

python bench/evaluate.py [--users 45184 --items 166270 --dim 50]
"""

import argparse

import numpy as np
import torch
from common import PeakMemory, machine, median, table

from vbpr.compute.device import full_float32
from vbpr.data.parts import csr
from vbpr.evaluation.metrics import mean_auc
from vbpr.evaluation.ranks import held_out_ranks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=45_184)
    parser.add_argument("--items", type=int, default=166_270)
    parser.add_argument("--dim", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(0)
    held = csr(np.arange(args.users), rng.integers(args.items, size=args.users), (args.users, args.items))
    who = np.repeat(np.arange(args.users), 8)
    taken = csr(who, rng.integers(args.items, size=len(who)), (args.users, args.items))
    observed = ((held + taken) > 0).astype(np.float32).tocsr()
    observed.sort_indices()
    rows = []
    for dim in args.dim:
        users, items = (torch.randn(n, dim, device=device) for n in (args.users, args.items))
        bias = torch.randn(args.items, device=device)
        flop = 2 * args.users * args.items * dim

        def run(users=users, items=items, bias=bias) -> float:
            return float(mean_auc(held_out_ranks(users, items, bias, held, observed)).mean())

        with PeakMemory() as memory:
            run()
        seconds = median(run, args.repeat)
        floor = flop / multiply_rate(device)
        rows.append(
            {
                "users": f"{args.users:,}",
                "items": f"{args.items:,}",
                "K": dim,
                "GFLOP": f"{flop / 1e9:,.0f}",
                "seconds": f"{seconds:.2f}",
                "floor s": f"{floor:.2f}",
                "floor / seconds": f"{floor / seconds:.2f}",
                "users/s": f"{args.users / seconds:,.0f}",
                "memory above factors MB": f"{memory.peak:.0f}",
            }
        )
    print(f"exact AUC of every user over every item; {machine()}\n")
    print(table(rows))
    print(
        "\nfloor: the same number of operations at the rate of a float32 convolution of a size that suits the machine."
    )


def multiply_rate(device: torch.device) -> float:
    """Float32 operations a second of a 1x1 convolution, the fastest dense product that torch has on a CPU."""
    x = torch.randn(8, 512, 32, 32, device=device).to(memory_format=torch.channels_last)
    convolution = torch.nn.Conv2d(512, 512, 1, bias=False).to(device).to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode(), full_float32():
            convolution(x)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * 512 * 512 * 8 * 32 * 32 / median(run, 9)


if __name__ == "__main__":
    main()
