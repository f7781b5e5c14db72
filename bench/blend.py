"""The weights of `hybrid`, chosen by validation alone: the parts are fitted once, then weights are tried on them.

    python bench/blend.py --data ../shared/data/hm-july --features artifacts/lite0.h5

The objective, fixed before the search, is the mean over the splits of AUC (all) + AUC (cold) / 2 + AUC (unseen) / 4 +
HR@10, on the validation items. Test items are not looked at. The weight of the visual part is 1.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from common import machine

from vbpr.data.dataset import Dataset
from vbpr.data.split import Split, SplitConfig
from vbpr.evaluation.metrics import hit_rate, mean_auc
from vbpr.evaluation.ranks import held_out_ranks
from vbpr.stores.features.store import FeatureStore
from vbpr.stores.model.factors import Factors
from vbpr.training.catalogue import align, prepare
from vbpr.training.configure import configure
from vbpr.training.models.blend import blend
from vbpr.training.models.hybrid import WEIGHTS, Hybrid

STEPS = (0.1, 0.05)  # a weight moves by so much, then by less


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="sample")
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--split-seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    data, stores = Dataset.resolve(args.data), [FeatureStore(path) for path in args.features]
    fitted: list[tuple[Split, dict[str, Factors]]] = []
    for seed in args.split_seeds:
        split = prepare(data, stores, config=SplitConfig(seed=seed))
        parts = Hybrid(configure("hybrid")).parts(split, align(stores, split.item_ids), [])
        fitted.append((split, parts))

    tried: dict[tuple[float, ...], np.ndarray] = {}
    names = [name for name in WEIGHTS if name != "visual"]

    def measure(weights: tuple[float, ...]) -> float:
        if weights not in tried:
            chosen = {"visual": 1.0, **dict(zip(names, weights, strict=True))}
            figures = [validation(split, parts, chosen) for split, parts in fitted]
            tried[weights] = np.mean(figures, axis=0)
            print(" ".join(f"{w:.2f}" for w in weights), np.round(tried[weights], 4), flush=True)
        return float(tried[weights] @ [1, 0.5, 0.25, 1])

    print(f"{data.title}, splits {args.split_seeds}; {machine()}")
    print(f"weights of {', '.join(names)}; validation AUC all, cold, unseen, HR@10")
    best = tuple(WEIGHTS[name] for name in names)
    for step in STEPS:
        while True:  # coordinate search: the best neighbour, until there is none
            around = [
                tuple(round(max(0.0, w + step * sign * (k == n)), 2) for k, w in enumerate(best))
                for n in range(len(best))
                for sign in (1, -1)
            ]
            leader = max([best, *around], key=measure)
            if leader == best:
                break
            best = leader
    print("best:", dict(zip(names, best, strict=True)), np.round(tried[best], 4))
    chosen = {"visual": 1.0, **dict(zip(names, best, strict=True))}
    for name in chosen:
        for what, weights in ((f"{name} alone", {name: 1.0}), (f"without {name}", {**chosen, name: 0.0})):
            weights = dict.fromkeys(chosen, 0.0) | weights
            figures = np.mean([validation(split, parts, weights) for split, parts in fitted], axis=0)
            print(f"{what:20s}", np.round(figures, 4), flush=True)


def validation(split: Split, parts: dict[str, Factors], weights: dict[str, float]) -> list[float]:
    """AUC of all, cold and unseen validation items, and HR@10."""
    kept = [name for name in parts if weights[name]]
    f = blend([(weights[name], parts[name]) for name in kept], kept)
    users, items, bias = (torch.from_numpy(a) for a in (f.users, f.items, f.bias))
    ranks = held_out_ranks(users, items, bias, split.validation, split.observed)
    bought = split.item_counts[ranks.items]
    auc = mean_auc(ranks)  # one validation item a user
    return [auc.mean(), auc[bought < 5].mean(), auc[bought == 0].mean(), hit_rate(ranks, 10).mean()]


if __name__ == "__main__":
    main()
