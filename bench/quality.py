"""Ranking quality: every model on several data sets, splits and seeds, with intervals, paired tests and ablations.

    python bench/quality.py --data FOLDER sample --features hm.h5 sample.h5 --page docs/results.md

Exact AUC on all, cold and unseen items. Each cell (data, split, seed, configuration) is kept as a JSON file under
`--cells`, and computed again only when its configuration, features or the code of the models changes. One thread unless
OMP_NUM_THREADS says otherwise. `--page` writes the tables between two marks of that page; else they are printed.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import ast
import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, table, write_page

import vbpr
from vbpr.base.errors import VbprError
from vbpr.base.files import replace_text
from vbpr.data.dataset import Dataset
from vbpr.data.split import Split, SplitConfig
from vbpr.evaluation import metrics
from vbpr.evaluation.evaluate import PARTS, evaluate
from vbpr.evaluation.intervals import holm, paired_tests
from vbpr.stores.features.store import FeatureStore
from vbpr.studies.compare.table import shown_p
from vbpr.training.catalogue import align, prepare
from vbpr.training.config import TrainConfig
from vbpr.training.configure import configure
from vbpr.training.fit import fit
from vbpr.training.identity import identity_of
from vbpr.training.item_features import ItemFeatures
from vbpr.training.models import MODELS

Array = np.ndarray[Any, Any]

DEFAULT = ["popularity", "knn", "visual", "bprmf", "als", "bpr", "ease", "cease", "feature-als", "filter", "spectral"]
DEFAULT += ["vbpr", "hybrid"]

# What each ingredient brings: of a model, a name and the options that take it away or change it.
ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "visual": {
        "without the history term": {"history": False},
        "without the vectors of items taken": {"history_factors": False},
        "without the visual bias": {"visual_bias": False},
        "256 axes": {"axes": 256},
        "neither whitening nor principal axes": {"whiten": 0.0},
        "wholly whitened": {"whiten": 1.0},
        "rows not of length one": {"unit": False},
        "uniform negatives": {"negatives": "uniform"},
        "half of the negatives by popularity": {"popularity_share": 0.5},
        "all negatives by popularity": {"popularity_share": 1.0},
        "one own negative each": {"shared_negatives": 0},
        "in-batch negatives": {"negatives": "in-batch"},
        "sampled softmax": {"loss": "softmax"},
        "WARP": {"loss": "warp"},
        "K 50": {"dim": 50},
        "without the head's penalty": {"reg_head": 0.0},
    },
    "vbpr": {
        "parts trained together": {"joint": True},
        "the visual part without shrinkage": {"shrink": 0.0},
        "the latent part at .2": {"latent_weight": 0.2},
        "K 50 + 50": {"dim": 50, "factors": 50},
    },
    "bprmf": {
        "without shrinkage": {"shrink": 0.0},
        "a quarter of the negatives by popularity": {"negatives": "popularity"},
        "one own negative each": {"shared_negatives": 0},
    },
    "hybrid": {
        "the visual part alone": {"factors": 0},
        "without images": {"dim": 0},
        "negatives a quarter by popularity": {"popularity_share": 0.25},
    },
}

# What is averaged over users: part of the evaluation, and how a user's value comes from the ranks.
MEASURES: dict[str, tuple[str, Any]] = {part: (part, metrics.mean_auc) for part in PARTS} | {
    "NDCG@10": ("all", lambda ranks: metrics.ndcg(ranks, 10)),
    "NDCG@20": ("all", lambda ranks: metrics.ndcg(ranks, 20)),
    "Recall@20": ("all", lambda ranks: metrics.recall(ranks, 20)),
    "HR@10": ("all", lambda ranks: metrics.hit_rate(ranks, 10)),
}
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["sample"])
    parser.add_argument("--features", nargs="+", required=True, help="one a data set; A.h5,B.h5 for two side by side")
    parser.add_argument("--models", nargs="*", default=DEFAULT, choices=list(MODELS))
    parser.add_argument("--ablations", nargs="*", default=list(ABLATIONS), choices=list(ABLATIONS), metavar="MODEL")
    parser.add_argument("--splits", nargs="+", default=["random", "time"])
    parser.add_argument("--split-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training")
    parser.add_argument("--cells", type=Path, default=Path("artifacts/quality"))
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    if len(args.data) != len(args.features):
        parser.error("give --features one file for each of --data")
    sections = []
    for place, (name, files) in enumerate(zip(args.data, args.features, strict=True)):
        data, stores = Dataset.resolve(name), [FeatureStore(file) for file in files.split(",")]
        own = data.interactions().splits is not None
        for how in ["file"] if own else args.splits:
            ablations = args.ablations if place == 0 and how in ("file", args.splits[0]) else []
            sections += section(data, stores, how, ablations, args)
    text = "\n".join([*sections, f"{machine()}; seconds: fitting, wall clock."])
    if args.page is None:
        print("\n" + text)
        return
    write_page(args.page, "bench/quality.py", text)


def section(
    data: Dataset, stores: Sequence[FeatureStore], how: str, ablations: list[str], args: argparse.Namespace
) -> list[str]:
    """The tables of one data set under one split rule, as lines of Markdown."""
    wanted = {name: (name, {}) for name in args.models} | {name: (name, {}) for name in ablations}
    changed = {f"{model}, {what}": (model, given) for model in ablations for what, given in ABLATIONS[model].items()}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted | changed}
    rules, counts = [], (0, 0, 0)
    try:
        for split_seed in [0] if how == "file" else args.split_seeds:  # which draws nothing
            split = prepare(data, stores, config=SplitConfig(how, seed=split_seed))
            rules.append(split.rule)
            counts = (len(split.user_ids), len(split.item_ids), split.train.nnz)
            features = align(stores, split.item_ids)
            for name, (model, given) in (wanted | changed).items():
                for seed in args.seeds:
                    config = configure(model, seed=seed, **given)
                    runs[name].append(cell(args.cells, f"{data.title} {how} {name}", split, features, stores, config))
    except VbprError as error:
        if "timestamp" not in str(error):
            raise
        print(f"{data.title}: no split by {how}, for it has no times", flush=True)
        return []
    users, items, pairs = counts
    lines = [f"### {data.title}: {rules[0].split(', seed')[0]}", ""]
    seeds = (
        f"training seeds {args.seeds}"
        if how == "file"
        else f"split seeds {args.split_seeds}, training seeds {args.seeds}"
    )
    lines += [f"{users:,} users, {items:,} items, {pairs:,} train interactions; means over {seeds}.", ""]
    if args.models:
        lines += [table([row(name, runs[name]) for name in args.models]), ""]
        best = max(args.models, key=lambda name: np.mean([run["mean"]["all"] for run in runs[name]]))
        lines += [*against(best, {name: runs[name] for name in args.models}), ""]
    for model in ablations:
        variants = [f"{model}, {what}" for what in ABLATIONS[model]]
        lines += [f"#### Ingredients of `{model}`", ""]
        lines += [table([ablated(name, runs[name], runs[model]) for name in [model, *variants]]), ""]
    return lines


# ---------------------------------------------------------------------------------------------- cells


def cell(
    folder: Path,
    label: str,
    split: Split,
    features: ItemFeatures,
    stores: Sequence[FeatureStore],
    config: TrainConfig,
    held: str = "test",
    change: str = "",
) -> dict[str, Any]:
    """Fit and evaluate one configuration on the held-out items; from its file if that is of this very computation.

    Args:
        change: what has been done to the features of the stores, if anything has.
    """
    more = [what for what in (held, change) if what not in ("test", "")]
    identity = identity_of(split, [own_code(), *(store.digest() for store in stores), *more], config, tested=True)
    path = folder / f"{identity}.json"
    with contextlib.suppress(OSError, ValueError):
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    start = time.perf_counter()
    factors = fit(split, features if MODELS[config.model].visual else None, config)
    seconds = time.perf_counter() - start
    done = evaluate(factors, held, device="cpu")
    told: dict[str, Any] = {"label": label, "seconds": seconds, "coverage": done.coverage, "mean": {}, "users": {}}
    for name, (part, measure) in MEASURES.items():
        ranks = done.ranks[part]
        if not len(ranks.users) or (part == "unseen" and not done.scores_unseen):
            continue
        values = measure(ranks)
        told["mean"][name] = float(values.mean())
        told["users"][name] = [np.unique(ranks.users).tolist(), [round(float(v), 7) for v in values]]
    replace_text(path, json.dumps(told))
    means = ", ".join(f"{name} {value:.4f}" for name, value in told["mean"].items())
    print(f"{label}, {split.rule}, seed {config.seed}: {means}, {seconds:.1f} s", flush=True)
    return told


def code(package: Path) -> str:
    """A digest of the code that decides a cell, whatever its comments and layout."""
    files = [file for folder in DECIDING for file in sorted((package / folder).rglob("*.py"))]
    trees = "".join(ast.dump(ast.parse(file.read_text(encoding="utf-8"))) for file in files)
    return hashlib.blake2b(trees.encode(), digest_size=16).hexdigest()


DECIDING = ("training", "evaluation", "stores/model")  # folders of the package


@functools.cache
def own_code() -> str:
    return code(Path(vbpr.__file__).parent)


# ---------------------------------------------------------------------------------------------- tables


def sums(runs: list[dict[str, Any]], name: str) -> tuple[Array, Array]:
    """(n,) each user's total of a measure over the runs, and in how many of them they have one."""
    users, values = (np.concatenate([np.asarray(run["users"][name][k]) for run in runs]) for k in (0, 1))
    users = users.astype(int)
    return np.bincount(users, values), np.bincount(users)


def interval(runs: list[dict[str, Any]], name: str) -> tuple[float, float]:
    """The 95% percentile bootstrap interval over users, each of whom comes with all of their runs."""
    total, count = sums(runs, name)
    times = resamples(len(total))
    with np.errstate(invalid="ignore"):  # a draw of users may hold none with such an item
        low, high = np.nanquantile((times @ total) / (times @ count), [0.025, 0.975])
    return float(low), float(high)


@functools.cache
def resamples(n: int) -> Array:
    """(RESAMPLES, n) how often each of n users is drawn."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32)


def cells_of(runs: list[dict[str, Any]], digits: int = 3) -> Iterator[tuple[str, str]]:
    for name in MEASURES:
        if all(name in run["mean"] for run in runs):
            low, high = interval(runs, name)
            yield name, f"{mean_of(runs, name):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
        else:
            yield name, "-"


def mean_of(runs: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([run["mean"][name] for run in runs]))


def row(name: str, runs: list[dict[str, Any]]) -> dict[str, object]:
    return {
        "model": name,
        **dict(cells_of(runs)),
        "coverage@10": f"{np.mean([run['coverage'] for run in runs]):.3f}",
        "seconds": f"{np.mean([run['seconds'] for run in runs]):.1f}",
    }


def ablated(name: str, runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, object]:
    """Means, and the difference of AUC to the model as it is, with its interval."""
    cells: dict[str, object] = {"model": name}
    for measure in MEASURES:
        known = all(measure in run["mean"] for run in runs)
        cells[measure] = f"{mean_of(runs, measure):.3f}" if known else "-"
    test = None if runs is base else paired({"a": runs, "b": base})
    cells["all, difference"] = "" if test is None else difference(test)
    return cells | {"seconds": f"{np.mean([run['seconds'] for run in runs]):.1f}"}


def paired(two: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The paired test of two models' AUC over all items, each user's mean over the runs."""
    means = {}
    for name, runs in two.items():
        total, count = sums(runs, "all")
        means[name] = total[count > 0] / count[count > 0]
    return paired_tests(means)[0]


def difference(test: dict[str, Any]) -> str:
    return f"{test['difference']:+.4f} ({test['interval'][0]:+.4f} to {test['interval'][1]:+.4f})"


def against(best: str, runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Paired tests of the best model against each other one, Holm-corrected: lines of Markdown."""
    others = [name for name in runs if name != best]
    tests = [paired({best: runs[best], name: runs[name]}) for name in others]
    how = "intervals by bootstrap over users, paired t-tests, Holm's correction"
    lines = [f"AUC over all items, `{best}` against each ({how}):", ""]
    return lines + [
        f"- {name}: {difference(test)}, {shown_p(p)}"
        for name, test, p in zip(others, tests, holm([test["p"] for test in tests]), strict=True)
    ]


if __name__ == "__main__":
    main()
