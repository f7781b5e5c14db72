"""Ranking quality on one data set: models, several splits and training seeds, exact AUC on all, cold, unseen items.

python bench/quality.py --data ../shared/data/hm-july --features artifacts/hm.h5 --split-seeds 0 1 2
"""

import argparse
import time
from pathlib import Path

import numpy as np
from common import machine, table

from vbpr.datasets import Dataset
from vbpr.evaluate import evaluate
from vbpr.features import FeatureStore
from vbpr.models import MODELS, configure
from vbpr.train import align, fit, prepare

DEFAULT = ["popularity", "knn", "visual", "bprmf", "als", "bpr", "spectral", "vbpr", "hybrid"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--models", nargs="+", default=DEFAULT)
    parser.add_argument("--split", default="auto")
    parser.add_argument("--split-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    data, stores = Dataset.resolve(args.data), [FeatureStore(path) for path in args.features]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in args.models}
    for split_seed in args.split_seeds:
        split = prepare(data, stores, how=args.split, seed=split_seed)
        features = align(stores, split.item_ids)
        for name in args.models:
            for seed in args.seeds:
                start = time.perf_counter()
                factors = fit(split, features if MODELS[name].visual else None, configure(name, seed=seed))
                seconds = time.perf_counter() - start
                summary = evaluate(factors).summary()
                row = {part: summary[part].get("auc", np.nan) for part in ("all", "cold", "unseen")}
                row |= {key: summary["all"][key] for key in ("ndcg@10", "recall@20", "hr@10", "coverage@10")}
                results[name].append(row | {"seconds": seconds})
                print(f"split {split_seed} seed {seed} {name}: {row}", flush=True)
    rows = []
    for name, runs in results.items():
        cells: dict[str, object] = {"model": name}
        for key in runs[0]:
            values = np.array([run[key] for run in runs])
            spread = f" ({values.std():.3f})" if key in ("all", "cold", "unseen") and len(values) > 1 else ""
            cells[key] = "-" if np.isnan(values).any() else f"{values.mean():.{1 if key == 'seconds' else 3}f}{spread}"
        rows.append(cells)
    print(f"\n{data.title}; means over splits {args.split_seeds} and seeds {args.seeds} (deviation); {machine()}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
