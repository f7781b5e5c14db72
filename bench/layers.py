"""Beyond one linear layer: other layers of the network, other forms of its features and of the head, by validation.

    python bench/layers.py --data FOLDER sample --weights lite0.safetensors --page docs/results.md
    python bench/layers.py --data tiktok ml-small --features tiktok.h5 ml-small.h5

`visual`, without popularity, is fitted for every split seed and judged by the validation items; the differences to the
model as it is come with 95% bootstrap intervals over users. Data sets without ready features get those of `--layers`
from their images.
A data set with a split of its own keeps it, and the training's seed takes the place of the split's. Cells are kept as
in `quality.py`. One thread unless OMP_NUM_THREADS says otherwise.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, table, write_page
from quality import MEASURES, cell, mean_of, sums

from vbpr import extract
from vbpr.data.dataset import Dataset
from vbpr.data.split import SplitConfig
from vbpr.evaluation.intervals import paired_tests
from vbpr.networks.registry import load_backbone
from vbpr.stores.features.store import FeatureStore
from vbpr.training.catalogue import align, prepare
from vbpr.training.configure import configure
from vbpr.training.item_features import ItemFeatures

Array = np.ndarray[Any, Any]
Runs = list[dict[str, Any]]

HEADS: dict[str, dict[str, Any]] = {
    "64 hidden units": {"hidden": 64},
    "256 hidden units": {"hidden": 256},
    "10 epochs": {"epochs": 10},
    "256 hidden units, 10 epochs": {"hidden": 256, "epochs": 10},
    "an item bias": {"item_bias": True},
    "256 hidden units, an item bias": {"hidden": 256, "item_bias": True},
    "all axes": {"axes": 0},
    "rows not of length one": {"unit": False},
    "wholly whitened": {"whiten": 1.0},
}
FOURIER, WIDTH = 1024, 0.7  # random features, and the deviation of their frequencies


def standardised(f: Array) -> Array:
    deviation = f.std(0)
    z: Array = (f - f.mean(0)) / np.where(deviation > 1e-6, deviation, 1)
    return z


def unit(f: Array) -> Array:
    rows: Array = f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-6)
    return rows


def fourier(f: Array) -> Array:
    """Beside the features, a random hidden layer that never learns (Rahimi & Recht, 2007): cosines."""
    z, rng = unit(standardised(f)), np.random.default_rng(0)
    waves = WIDTH * rng.standard_normal((z.shape[1], FOURIER)).astype(np.float32)
    cosines = np.cos(z @ waves + rng.uniform(0, 2 * np.pi, FOURIER).astype(np.float32))
    return np.concatenate([standardised(f), standardised(cosines)], 1)


FORMS: dict[str, Callable[[Array], Array]] = {
    "raw rows of length one": lambda f: 16 * unit(f),
    "signed square roots": lambda f: np.sign(f) * np.sqrt(np.abs(f)),
    f"{FOURIER:,} Fourier features beside": fourier,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["sample"])
    parser.add_argument("--features", nargs="*", default=[], help="ready files, one a data set; else made from images")
    parser.add_argument("--backbone", default="lite0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument(
        "--layers", nargs="*", help="for example all blocks.2,final [default: each with final, and all]"
    )
    parser.add_argument("--changes", nargs="*", default=[*HEADS, *FORMS], choices=[*HEADS, *FORMS], metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", type=Path, default=Path("artifacts/layers"))
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    if args.features and len(args.features) != len(args.data):
        parser.error("give --features one file for each of --data, or none")
    args.cells.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for place, name in enumerate(args.data):
        data = Dataset.resolve(name)
        ready = {"final": Path(args.features[place])} if args.features else made(data, place, args)
        lines += section(data, ready, args)
    text = "\n".join([*lines, f"{machine()}."])
    if args.page is None:
        print("\n" + text)
    else:
        write_page(args.page, "bench/layers.py", text)


def made(data: Dataset, place: int, args: argparse.Namespace) -> dict[str, Path]:
    """Feature files of a data set's images, by what they are of."""
    layers = args.layers
    if layers is None:
        stages = load_backbone(f"{args.backbone}:all", args.weights).layers.split(",")[:-1]
        layers = [*(f"{stage},final" for stage in stages), "all"]
    files = {}
    for layer in ["final", *layers]:
        files[layer] = args.cells / f"{place}-{args.backbone}-{layer.replace(',', '+')}.h5"
        asked = None if layer == "final" else layer
        extract(data, args.backbone, files[layer], weights=args.weights, layer=asked)
    return files


def section(data: Dataset, files: dict[str, Path], args: argparse.Namespace) -> list[str]:
    """The table of one data set, as lines of Markdown."""
    runs: dict[str, Runs] = {}
    own = data.interactions().splits is not None
    for seed in args.seeds:
        for layer, file in files.items():
            store = FeatureStore(file)
            split = prepare(data, [store], config=SplitConfig("file" if own else "random", seed=0 if own else seed))
            features = align([store], split.item_ids)
            plain = layer == "final"
            variants: dict[str, tuple[dict[str, Any], str]] = {"as it is" if plain else layer: ({}, "")}
            if plain:
                variants |= {name: (given, "") for name, given in HEADS.items() if name in args.changes}
                variants |= {name: ({}, name) for name in FORMS if name in args.changes}
            for name, (given, form) in variants.items():
                known = changed(features, form) if form else features
                config = configure(
                    "visual", widest=known.matrix.shape[1], seed=seed if own else 0, popular=False, **given
                )
                label = f"{data.title}, {name}"
                done = cell(args.cells, label, split, known, [store], config, "validation", form)
                runs.setdefault(name, []).append(done)
    base = runs.pop("as it is")
    rows = [row("as it is", base, base), *(row(name, each, base) for name, each in runs.items())]
    seeds = f"{'training' if own else 'split'} seeds {args.seeds}"
    return [f"#### {data.title}: validation items, {seeds}", "", table(rows), ""]


def changed(features: ItemFeatures, form: str) -> ItemFeatures:
    """The features in another form."""
    known = FORMS[form](np.asarray(features.matrix[np.flatnonzero(features.known)], np.float32))
    matrix = np.zeros((len(features.known), known.shape[1]), np.float16)
    matrix[features.known] = known
    return ItemFeatures.of(matrix, features.known)


def row(name: str, runs: Runs, base: Runs) -> dict[str, object]:
    """Means of the model as it is, or the differences to it with their intervals."""
    cells: dict[str, object] = {"`visual`": name}
    for measure in MEASURES:
        if not all(measure in run["mean"] for run in [*runs, *base]):
            cells[measure] = "-"
        elif runs is base:
            cells[measure] = f"{mean_of(runs, measure):.4f}"
        else:
            test = paired_tests({"a": by_user(runs, measure), "b": by_user(base, measure)})[0]
            low, high = test["interval"]
            cells[measure] = f"{test['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
    return cells | {"seconds": f"{np.mean([run['seconds'] for run in runs]):.1f}"}


def by_user(runs: Runs, measure: str) -> Array:
    """(n,) each user's mean over the runs in which they have such an item."""
    total, count = sums(runs, measure)
    means: Array = total[count > 0] / count[count > 0]
    return means


if __name__ == "__main__":
    main()
