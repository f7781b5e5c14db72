"""k-NN category probe: how often an image's nearest other images are of its own category, by several features.

python bench/probe.py --data FOLDER --column small_label --weights lite0=FILE --images 1000

Features are standardised and compared by cosine; each labelled image asks all others. `cae` is trained on all of the
folder's images first (its weights stay in --out), a backbone without weights is untrained and called so, and `pixels`
are the 16 x 16 thumbnails themselves. A probe of what features know, before any ranker is blamed.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from common import machine, table

from vbpr.data.dataset import Dataset
from vbpr.data.images.source import BadImage, ImageSource
from vbpr.extraction.engines import Encoder
from vbpr.networks.cae_training import train_autoencoder
from vbpr.networks.prepare import Preprocessing, prepare
from vbpr.networks.registry import load_backbone

THUMBNAIL = Preprocessing(16, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, squash=True)


def pixels(source: ImageSource, rows: list[int], how: Preprocessing) -> np.ndarray:
    return np.stack([prepare(source.read(i), how) for i in rows])


def usable(source: ImageSource, rows: list[int]) -> list[int]:
    def can(i: int) -> bool:
        try:
            prepare(source.read(i), THUMBNAIL)
        except BadImage:
            return False
        return True

    return [i for i in rows if can(i)]


def accuracy(features: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of rows whose k nearest others vote for their own label; the nearer one's label breaks ties."""
    z = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    cosine = z @ z.T
    np.fill_diagonal(cosine, -np.inf)
    nearest = labels[np.argsort(-cosine, axis=1, kind="stable")[:, :k]]
    votes = [Counter(row.tolist()).most_common(1)[0][0] for row in nearest]
    return float(np.mean(np.array(votes) == labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--column", default="category", help="of items.csv: what to tell apart")
    parser.add_argument("--features", nargs="+", default=["pixels", "cae", "lite0", "inception"])
    parser.add_argument("--weights", nargs="*", default=[], help="BACKBONE=FILE")
    parser.add_argument("--images", type=int, default=1000, help="labelled images, drawn at random")
    parser.add_argument("--out", type=Path, default=Path("artifacts/probe"))
    args = parser.parse_args()
    data, files = Dataset.resolve(args.data), dict(pair.split("=", 1) for pair in args.weights)
    source, known = data.images(), data.items().get(args.column, {})
    rows = [i for i, item in enumerate(source.item_ids) if known.get(str(item))]
    chosen = np.random.default_rng(0).permutation(rows)[: args.images].tolist()
    chosen = usable(source, sorted(chosen))
    labels = np.array([known[str(source.item_ids[i])] for i in chosen])
    most = max(Counter(labels.tolist()).values()) / len(labels)
    lines: list[dict[str, object]] = []
    for name in args.features:
        if name == "pixels":
            features, made = pixels(source, chosen, THUMBNAIL).reshape(len(chosen), -1).astype(np.float32), "none"
        else:
            weights = Path(files[name]) if name in files else None
            if name == "cae" and weights is None:
                weights = train_autoencoder(source, args.out / "cae.safetensors")
            backbone = load_backbone(name, weights, weights is None)
            features, made = Encoder(backbone)(pixels(source, chosen, backbone.preprocessing)), backbone.weights
            made = "RANDOM" if weights is None else made.split(",")[0]
        lines.append(
            {"features": name, "weights": made, "D": features.shape[1]}
            | {f"{k}-NN": f"{accuracy(features, labels, k):.3f}" for k in (1, 10)}
        )
        print(lines[-1], flush=True)
    print(
        f"\n{data.title}, {args.column}: {len(labels):,} images of {len(set(labels.tolist()))} kinds, the commonest "
        f"{most:.3f}; {machine()}\n"
    )
    print(table(lines))


if __name__ == "__main__":
    main()
