"""What `--precision fast` costs in quality: cosine to exact features, neighbours kept, AUC of the visual ranker.

    python bench/precision.py --backbone lite0 --data ../shared/data/hm-july

Feature files are kept in --out, so that a second call measures without extracting again.
"""

import argparse
from pathlib import Path

import numpy as np

from vbpr.base.errors import VbprError
from vbpr.data.dataset import Dataset
from vbpr.evaluation.evaluate import evaluate
from vbpr.extraction.extract import extract
from vbpr.stores.features.store import FeatureStore
from vbpr.stores.model.factors import Factors
from vbpr.training.configure import configure
from vbpr.training.train import train


def neighbours(features: np.ndarray, k: int = 10, block: int = 1024) -> np.ndarray:
    """(n, k) the nearest other rows by cosine of centred features."""
    unit = features - features.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True) + 1e-12
    found = np.empty((len(unit), k), np.int64)
    for a in range(0, len(unit), block):
        scores = unit[a : a + block] @ unit.T
        scores[np.arange(len(scores)), np.arange(a, a + len(scores))] = -np.inf
        found[a : a + block] = np.argpartition(-scores, k, axis=1)[:, :k]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="lite0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--out", type=Path, default=Path("artifacts/precision"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    data = Dataset.resolve(options.data)
    features, aucs = {}, {}
    for precision in ("exact", "fast"):
        path = options.out / f"{options.backbone}-{precision}.h5"
        try:
            done = extract(
                data, options.backbone, path, weights=options.weights, precision=precision, engine=options.engine
            )
        except VbprError as error:  # for one, that this machine has no units for bfloat16
            parser.exit(2, f"{error}\n")
        print(
            f"{precision}: {done.items:,} images, {done.rate:,.0f} images/s" if done.written else f"{precision}: kept"
        )
        store = FeatureStore(path)
        features[precision] = np.asarray(store.features[store.done], np.float32)
        aucs[precision] = []
        for seed in range(options.seeds):
            config = configure("visual", "default", seed=seed)
            model = path.with_suffix(".model.h5")
            train(data, [path], config, model)
            aucs[precision].append(evaluate(Factors.load(model), "test", "auto").summary()["all"]["auc"])
    a, b = features["exact"], features["fast"]
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.maximum(length, 1e-12)
    kept = [len(np.intersect1d(x, y)) / 10 for x, y in zip(neighbours(a), neighbours(b), strict=True)]
    exact, fast = np.mean(aucs["exact"]), np.mean(aucs["fast"])
    print(f"relative L2 {np.linalg.norm(a - b) / np.linalg.norm(a):.1e}")
    print(f"cosine: mean {cosine.mean():.5f}, lowest {cosine.min():.5f}")
    print(f"neighbours kept of 10: {np.mean(kept):.3f}")
    spread = max(np.std(aucs["exact"]), np.std(aucs["fast"]))
    print(f"AUC, mean of {options.seeds} seeds: exact {exact:.4f}, fast {fast:.4f}, {fast - exact:+.4f}")
    print(f"  (standard deviation over the seeds {spread:.4f})")


if __name__ == "__main__":
    main()
