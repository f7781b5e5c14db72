"""Several methods on several data sets under one protocol: the report's table 7.1, with everything it left out.

    compare([Dataset.resolve("data")], ["dvbpr", "cae", "inception", "popularity"], "artifacts/compare")

A method is an entry of MODELS, `dvbpr-efficient`, or the name of a backbone: its features under the model `visual`;
model files of the same split can stand beside them. One split for all; exact AUC over every item that a user has not
taken; intervals by bootstrap over users and paired t-tests (AUC of all, cold and unseen items, NDCG@10), with Holm's
correction over the pairs of methods. A finished cell (data set, split, method, seed) is kept and not computed again.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtr

from .base.arrays import Array
from .base.errors import VbprError
from .base.files import artifact_name, read_json, replace_text, replacing
from .base.locks import locked
from .base.progress import console
from .base.stopping import Stopped, stop_signals
from .base.targets import check_target
from .compute.checkpoint import discard
from .compute.device import pick_device
from .data.converters.published import PUBLISHED, recognise
from .data.dataset import Dataset
from .data.images import holdings
from .data.parts import digest_of
from .data.split import Split, SplitConfig
from .evaluation.evaluate import PARTS, evaluate
from .evaluation.intervals import interval
from .evaluation.metrics import mean_auc, ndcg
from .extraction.extract import extract
from .extraction.own_autoencoder import autoencoder_of
from .stores.features.store import FeatureStore
from .stores.model.factors import Factors
from .training.catalogue import align
from .training.config import TrainConfig
from .training.configure import configure
from .training.fit import fit, made_from, versions
from .training.identity import identity_of, pictures_in
from .training.models import MODELS
from .training.models.dvbpr.network import build

MEANS = ("auc", "auc_strict", "ndcg@10", "recall@20", "hr@10", "mrr", "map", "coverage@10")
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Options:
    """How a comparison is run.

    Attributes:
        seeds: runs of each trained method, whose users' AUCs are averaged.
        weights: of a backbone, by name: a file. random_weights: backbones without a file are untrained, and called so.
        dvbpr: TrainConfig fields for dvbpr and dvbpr-efficient. cae: see `train_autoencoder`.
        published: the published protocols too (None: where the data set is recognised).
        fitted: by name, model files of the very same split to measure beside the methods: tuned, or made elsewhere.
    """

    seeds: int = 1
    weights: dict[str, Path] = dataclasses.field(default_factory=dict)
    random_weights: bool = False
    dvbpr: dict[str, Any] = dataclasses.field(default_factory=dict)
    cae: dict[str, Any] = dataclasses.field(default_factory=dict)
    published: bool | None = None
    split: SplitConfig = SplitConfig()
    device: str = "auto"
    fitted: dict[str, Path] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table: a model, and the backbone whose features it reads (empty: none)."""

    name: str
    model: str
    backbone: str
    preset: str = "default"


def methods_of(names: Sequence[str]) -> list[Method]:
    """Methods by name; models that read features get the first backbone's.

    Raises:
        VbprError: no name, two of one method, or a model that needs features where no backbone is named.
    """
    names = [name.strip() for name in names if name.strip()]
    if not names or len(set(names)) < len(names):
        raise VbprError("--models takes distinct names, as in --models dvbpr,cae,inception,popularity")
    known = {**{name: name for name in MODELS}, "dvbpr-efficient": "dvbpr"}
    backbones = [name for name in names if name not in known]
    out = []
    for name in names:
        if name not in known:
            out.append(Method(name, "visual", name))
            continue
        visual = MODELS[known[name]].visual
        if visual and not backbones:
            raise VbprError(f"--models {name} reads features; name a backbone too, as in --models lite0,{name}")
        preset = "efficient" if name == "dvbpr-efficient" else "default"
        out.append(Method(name, known[name], backbones[0] if visual else "", preset))
    for one, other in itertools.combinations(out, 2):
        if dataclasses.replace(one, name=other.name) == other:
            raise VbprError(f"--models {one.name} and {other.name} are one method; leave one out")
    return out


def compare(
    data_sets: Sequence[Dataset], names: Sequence[str], out: Path | str, options: Options | None = None
) -> dict[str, Any]:
    """Run every cell that is not yet there and write compare.json, compare.md and compare.png into `out`.

    Raises:
        VbprError: an unknown method, data without interactions or images to look at; or whatever a stage raises.
        Stopped: Ctrl-C or SIGTERM; run again to resume.
    """
    options, folder = options or Options(), Path(out)
    methods = methods_of(names) if names or not options.fitted else []
    if len({slug(data) for data in data_sets}) < len(data_sets):
        raise VbprError("--data takes distinct data sets; one of them is given twice")
    for name in options.fitted:
        if name in names or not name.strip():
            raise VbprError(f"--fitted {name}={options.fitted[name]}: give it a name that no method has")
    if options.fitted and len(data_sets) > 1:
        raise VbprError("--fitted is for one --data: a model file is of one data set; leave one of them out")
    device = pick_device(options.device)  # a GPU that is not there is said before the first method runs
    check_methods(data_sets, methods, folder, options)
    result: dict[str, Any] = {"protocol": PROTOCOL, "seeds": options.seeds}
    result |= {"versions": versions(), "device": str(device), "threads": torch.get_num_threads(), "data": []}
    with stop_signals() as stopping:  # the flag of all that runs inside: none of it goes on when one was stopped
        for data in data_sets:
            result["data"].append(compare_on(data, methods, folder / slug(data), options, stopping))
    for name, text in (("compare.json", json.dumps(result, indent=1) + "\n"), ("compare.md", markdown(result))):
        replace_text(folder / name, text)
    draw(result, folder / "compare.png")
    return result


def check_methods(data_sets: Sequence[Dataset], methods: list[Method], folder: Path, options: Options) -> None:
    """Have a wrong name or weights that are not there said now, and not after the methods before have trained.

    Raises:
        VbprError: what a method needs and has not used yet cannot be had.
    """
    from .networks.cae_training import identity_for
    from .networks.registry import load_backbone

    def lacks(files: str) -> bool:
        return not all(any((folder / slug(data)).glob(files)) for data in data_sets)

    for name in dict.fromkeys(method.backbone for method in methods if method.backbone):
        weights, untrained = weights_of(name, options)
        if name == "cae" and weights is None:
            identity_for(**options.cae)
        elif lacks(f"{artifact_name(name)}.h5"):
            load_backbone(name, weights, untrained)
    for method in methods:
        if MODELS[method.model].images and lacks(f"{artifact_name(method.name)}.0.??????.json"):
            build(config_of(method, options, None))


def weights_of(backbone: str, options: Options) -> tuple[Path | None, bool]:
    """The weights file of a backbone, and whether it is to be untrained."""
    weights = options.weights.get(backbone)
    return weights, options.random_weights and weights is None and backbone != "cae"


PROTOCOL = (
    "Exact AUC over every item that a user has not taken, ties one half; users' mean; 95% bootstrap interval over "
    "users. cold: held-out items with fewer than 5 train interactions; unseen: with none. Validation chooses the "
    "epoch; the test items are asked once. coverage@10: the share of the catalogue in the first ten of any of up to "
    "2,000 users, drawn at random."
)
PUBLISHED_PROTOCOLS = {
    "sampled-100": "share of 100 random items not taken that score strictly lower (DVBPR's code)",
    "sampled-1": "one random item not taken, strictly lower (the report); standard error about .4 / sqrt(users)",
    "best-epoch-on-test": "exact AUC of the epoch that the test items themselves chose (the report): too high",
}


def slug(data: Dataset) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", data.title.lower()).strip("-")
    return f"{name}-{hashlib.blake2b(data.name.encode(), digest_size=3).hexdigest()}"


def compare_on(
    data: Dataset, methods: list[Method], folder: Path, options: Options, stopping: Callable[[], bool]
) -> dict[str, Any]:
    """All methods on one data set."""
    looked_at = any(method.backbone or MODELS[method.model].images for method in methods)
    pictured = data.images().item_ids if looked_at or holdings(data.path) else None
    split = Split.make(data.interactions(), options.split, catalogue=pictured)
    if not split.test.nnz:
        raise VbprError("--split none holds nothing out to compare methods by; choose another --split")
    counts = (len(split.user_ids), len(split.item_ids), split.train.nnz + split.validation.nnz + split.test.nnz)
    known = recognise(*counts)
    published = known is not None if options.published is None else options.published
    fitted = {name: fitted_on(split, name, path) for name, path in options.fitted.items()}
    rows, users = [], {}
    for method in methods:
        features, spent = features_of(method, data, folder, options)
        cells = []
        for seed in range(options.seeds if "seed" in MODELS[method.model].reads else 1):
            config = config_of(method, options, features).changed(seed=seed)
            cells.append(cell(method, data, split, features, config, folder, published))
            if stopping():
                raise Stopped(f"stopped after {method.name}; run the same command again to resume")
        users[method.name] = users_of(cells)
        untrained = config.network_weights == "random"
        row = row_of(method, cells, users[method.name], spent, known, features, untrained)
        rows.append(row | {"config": config.to_json()})
    for name, factors in fitted.items():
        about, nothing = factors.about, {"seconds": 0.0, "images": 0}
        told = fitted_cell(name, factors, folder, options.device, published)
        users[name] = users_of([told])
        row = row_of(Method(name, str(about.get("model", "")), ""), [told], users[name], nothing, known, None, False)
        rows.append(row | {"config": about.get("config", {}), "file": str(options.fitted[name])})
    return {
        "data": data.name,
        "title": data.title,
        "recognised": known,
        "users": counts[0],
        "items": counts[1],
        "interactions": counts[2],
        "split": split.rule,
        "dropped_users": split.dropped_users,
        "published_protocols": published,
        "methods": rows,
        "tests": told_apart(rows, users),
    }


def users_of(cells: list[dict[str, Any]]) -> dict[str, Array]:
    """Of each measure, every user's figure: the mean over the seeds."""
    return {name: np.mean([cell["users"][name] for cell in cells], axis=0) for name in USERS}


def fitted_on(split: Split, name: str, path: Path) -> Factors:
    """A model file, which must be of this split.

    Raises:
        VbprError: it is of another, or no model file.
    """
    factors = Factors.load(path)
    if factors.split_digest() != digest_of(split).hexdigest():
        raise VbprError(
            f"--fitted {name}={path} is of another data set or split ({factors!r}; split: "
            f"{factors.about.get('split', 'not on record')}), on which figures do not compare; train it on {split!r}"
        )
    return factors


def fitted_cell(name: str, factors: Factors, folder: Path, device: str, published: bool) -> dict[str, Any]:
    """What a fitted model is measured to be: from its file if that is of this very model."""
    identity, path = factors.digest(), folder / f"{artifact_name(name)}.fitted.json"
    check_target(path)
    with locked(path):
        told = read_json(path)
        if not is_whole(told, identity) or (published and not told["published"]):
            console.print(f"measuring {name}")
            told = measured(factors, device) | {"identity": identity, "seconds": factors.about.get("seconds")}
            told["published"] = sampled(factors) if published else {}
            replace_text(path, json.dumps(told))
    return told


def config_of(method: Method, options: Options, features: FeatureStore | None) -> TrainConfig:
    given = options.dvbpr if method.model == "dvbpr" else {}
    widest = None if features is None else features.dim
    return configure(method.model, method.preset, widest=widest, device=options.device, **given)


def features_of(
    method: Method, data: Dataset, folder: Path, options: Options
) -> tuple[FeatureStore | None, dict[str, Any]]:
    """The method's feature file, extracted if it is not there, and what that took: seconds, images encoded."""
    if not method.backbone:
        return None, {"seconds": 0.0, "images": 0}
    name = method.backbone
    path, (weights, untrained) = folder / f"{artifact_name(name)}.h5", weights_of(name, options)
    with spending(path.with_suffix(".spent.json"), {"images": 0}) as spent:
        done = extract(
            data, name, path, weights=weights, random_weights=untrained, device=options.device, cae=options.cae
        )
        spent["worked"] = bool(done.written)
        if done.written:
            spent["images"] = done.items - len(done.failures)
            spent["images"] += passes(autoencoder_of(path)) if name == "cae" else 0
    return FeatureStore(path), spent


@contextlib.contextmanager
def spending(note: Path, new: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a step has taken: `seconds` of this run, and of those before it that were stopped, are in `note`.

    Args:
        new: what it starts from if there is no note, or one of another `identity`. Of a run that sets `worked` to
            False nothing is kept.
    """
    known = read_json(note)
    spent = {"seconds": 0.0} | new | (known if known.get("identity") == new.get("identity") else {})
    started = time.monotonic()
    try:
        yield spent
    finally:
        if spent.pop("worked", True):
            spent["seconds"] += time.monotonic() - started
            with contextlib.suppress(VbprError):  # a full disk has been told, or will be
                replace_text(note, json.dumps(spent))


def passes(weights: Path) -> int:
    """Images that an autoencoder's training encoded: its epochs times what it was shown."""
    from .networks.cae import told_by

    told = told_by(weights)
    return int(told["epochs"] * told["images"][0]) if told else 0


def cell(
    method: Method,
    data: Dataset,
    split: Split,
    features: FeatureStore | None,
    config: TrainConfig,
    folder: Path,
    published: bool,
) -> dict[str, Any]:
    """One method, one data set, one seed: from its file if that is of this very computation."""
    images = data.images() if MODELS[config.model].images else None
    stores = [] if features is None else [features]
    digests, named = [store.digest() for store in stores], config.changed(identity=method.name)
    identity = identity_of(split, [*digests, *pictures_in(images)], named, tested=True)
    mark = hashlib.blake2b(split.rule.encode(), digest_size=3).hexdigest()  # another split has files of its own
    path = folder / f"{artifact_name(method.name)}.{config.seed}.{mark}.json"
    check_target(path)
    with locked(path):
        told, model = read_json(path), path.with_suffix(".model.h5")
        done = is_whole(told, identity)
        if done and (told["published"] or not published):
            return told
        console.print(f"{data.title}: {method.name}, seed {config.seed}")
        matrix = align(stores, split.item_ids) if stores else None
        if done and model.is_file():
            factors = Factors.load(model)
        else:
            checkpoint, note = path.with_suffix(".checkpoint"), path.with_suffix(".spent.json")
            with spending(note, {"identity": identity}) as spent:
                factors = fit(split, matrix, config.changed(identity=identity), checkpoint, images)
                factors = made_from(factors, data, stores, digests)
            told = {"identity": identity, "seconds": spent["seconds"], "published": {}}
            told |= measured(factors, config.device)
            path.unlink(missing_ok=True)  # a cell that is there is of the model beside it
            factors.save(model)
            replace_text(path, json.dumps(told))
            discard(checkpoint)
            note.unlink(missing_ok=True)
        if published:
            told["published"] = sampled(factors)
            if factors.about.get("curve"):
                swapped = dataclasses.replace(split, validation=split.test, test=split.validation)
                config, oracle = config.changed(identity=identity + " oracle"), path.with_suffix(".checkpoint-oracle")
                best = fit(swapped, matrix, config, oracle, images)
                value = evaluate(best, "validation", config.device).summary()["all"]["auc"]
                told["published"]["best-epoch-on-test"] = value
                discard(oracle)
            replace_text(path, json.dumps(told))
        return told


CELL = {"identity", "seconds", "encoded", "summary", "users", "scores_unseen", "published"}
USERS = {**{part: f"AUC, {part}" for part in PARTS}, "ndcg@10": "NDCG@10"}  # what methods are told apart by


def is_whole(told: dict[str, Any], identity: str) -> bool:
    """Whether what was written down is a cell of this very computation."""
    return told.get("identity") == identity and told.keys() >= CELL and told["users"].keys() >= USERS.keys()


def measured(factors: Factors, device: str) -> dict[str, Any]:
    """What a cell tells of its model."""
    metrics = evaluate(factors, device=device)
    users = {part: mean_auc(metrics.ranks[part]) for part in PARTS} | {"ndcg@10": ndcg(metrics.ranks["all"], 10)}
    return {
        "encoded": int(factors.about.get("encoded", 0)),
        "summary": metrics.summary(),
        "users": {name: [round(float(v), 9) for v in values] for name, values in users.items()},
        "scores_unseen": metrics.scores_unseen,
    }


def sampled(factors: Factors) -> dict[str, float]:
    return {f"sampled-{n}": sampled_auc(factors, n) for n in (100, 1)}


def sampled_auc(factors: Factors, count: int, seed: int = 0, block: int = 512) -> float:
    """The published estimates: the share of `count` random items not taken that is strictly below the held-out one,
    averaged over the held-out items of a user, then over users."""
    rng = np.random.default_rng(seed)
    held, seen = factors.test.tocoo(), factors.seen
    n_items, below = len(factors.item_ids), np.zeros(factors.test.nnz)
    keys = np.sort(np.repeat(np.arange(seen.shape[0], dtype=np.int64), np.diff(seen.indptr)) * n_items + seen.indices)
    for a in range(0, held.nnz, block):
        u, i = held.row[a : a + block].astype(np.int64), held.col[a : a + block]
        j = rng.integers(n_items, size=(len(u), count))
        full = np.diff(seen.indptr)[u] >= n_items
        while True:  # draw again what the user has seen
            pair = u[:, None] * n_items + j
            bad = (keys[np.minimum(np.searchsorted(keys, pair), len(keys) - 1)] == pair) & ~full[:, None]
            if not bad.any():
                break
            j[bad] = rng.integers(n_items, size=int(bad.sum()))
        both = np.concatenate([i[:, None], j], 1)  # by one sum, so that equal items tie
        scores = np.einsum("nk,nck->nc", factors.users[u], factors.items[both]) + factors.bias[both]
        below[a : a + block] = (scores[:, :1] > scores[:, 1:]).mean(1)
    counts = np.bincount(held.row)
    return float((np.bincount(held.row, below)[counts > 0] / counts[counts > 0]).mean())


def row_of(
    method: Method,
    cells: list[dict[str, Any]],
    users: dict[str, Array],
    spent: dict[str, Any],
    known: str | None,
    features: FeatureStore | None,
    untrained: bool,
) -> dict[str, Any]:
    """A method's line: means over seeds, the interval of the users' mean AUC."""
    row: dict[str, Any] = {"method": method.name, "model": method.model, "seeds": len(cells)}
    if features is not None:
        row["backbone"], row["weights"] = method.backbone, features.provenance["weights"]
    row["random_weights"] = untrained or row.get("weights") == "random"
    for part in PARTS:
        summaries = [c["summary"][part] for c in cells]
        row[part] = {"users": summaries[0]["users"]}
        if "auc" in summaries[0]:
            row[part] |= {key: float(np.mean([s[key] for s in summaries])) for key in MEANS if key in summaries[0]}
            row[part]["auc_interval"] = interval(users[part])
    row["auc_by_seed"] = [c["summary"]["all"]["auc"] for c in cells]
    row["seconds_once"] = spent["seconds"]
    row["seconds"] = None if cells[0]["seconds"] is None else float(np.mean([c["seconds"] for c in cells]))
    row["images_encoded"] = spent["images"] or cells[0]["encoded"]
    names = cells[0]["published"]
    row["published_protocols"] = {name: float(np.mean([c["published"][name] for c in cells])) for name in names}
    row["report"] = PUBLISHED[known].auc.get(method.name) if known else None
    return row


def told_apart(rows: list[dict[str, Any]], users: dict[str, dict[str, Array]]) -> list[dict[str, Any]]:
    """Paired tests by every measure, of the methods that have it; each measure is a family of its own."""
    out = []
    for name in USERS:
        part = name if name in PARTS else "all"
        values = {row["method"]: users[row["method"]][name] for row in rows if "auc" in row[part]}
        out += [{"measure": name} | test for test in paired_tests(values)]
    return out


def paired_tests(users: dict[str, Array], seed: int = 0) -> list[dict[str, Any]]:
    """Every pair of methods: the difference of their users' mean, its bootstrap interval, and the p-value of a paired
    t-test, Holm-corrected. Of few users no p-value is below that of a sign test, and of one nothing is known."""
    if len(users) < 2:
        return []
    out: list[dict[str, Any]] = []
    values, rng = np.stack(list(users.values()), 1), np.random.default_rng(seed)
    n = len(values)
    means = np.stack([values[rng.integers(n, size=n)].mean(0) for _ in range(RESAMPLES)])  # the same users for all
    for (i, a), (j, b) in itertools.combinations(enumerate(users), 2):
        difference = values[:, i] - values[:, j]
        low, high = np.quantile(means[:, i] - means[:, j], [0.025, 0.975]) if n > 1 else (-1, 1)
        t = difference.mean() / max(difference.std(ddof=n > 1) / n**0.5, 1e-12)
        out.append(
            {
                "a": a,
                "b": b,
                "difference": float(difference.mean()),
                "interval": [float(low), float(high)],
                "p": float(max(2 * stdtr(max(1, n - 1), -abs(t)), 2.0 ** (1 - n))),
            }
        )
    for test, p in zip(out, holm([test["p"] for test in out]), strict=True):
        test["p_holm"] = p
    return out


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction."""
    order, worst = np.argsort(p, kind="stable"), 0.0
    corrected = [0.0] * len(p)
    for place, n in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[n]))
        corrected[int(n)] = worst
    return corrected


# ---------------------------------------------------------------------------------------------- showing it


def table_of(told: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of one data set's table."""
    header = [
        "method",
        "AUC",
        "95% interval",
        "cold",
        "unseen",
        "NDCG@10",
        "HR@10",
        "coverage@10",
        "once, s",
        "train, s",
        "images encoded",
    ]
    names = list(PUBLISHED_PROTOCOLS) if told["published_protocols"] else []
    header += names + (["report"] if told["recognised"] else [])
    rows = []
    for row in told["methods"]:
        low, high = row["all"]["auc_interval"]
        cells = [
            row["method"] + (" (RANDOM weights)" if row.get("random_weights") else ""),
            f"{row['all']['auc']:.4f}",
            f"{low:.4f}-{high:.4f}",
            *(f"{row[part]['auc']:.4f}" if "auc" in row[part] else "-" for part in ("cold", "unseen")),
            f"{row['all']['ndcg@10']:.4f}",
            f"{row['all']['hr@10']:.4f}",
            f"{row['all']['coverage@10']:.4f}",
            f"{row['seconds_once']:,.0f}",
            "-" if row["seconds"] is None else f"{row['seconds']:,.1f}",
            f"{row['images_encoded']:,}",
        ]
        cells += [f"{row['published_protocols'][n]:.4f}" if n in row["published_protocols"] else "-" for n in names]
        if told["recognised"]:
            cells.append(f"{row['report']:.3f}" if row["report"] is not None else "-")
        rows.append(cells)
    return header, rows


def heading(told: dict[str, Any]) -> str:
    known = f", the published {told['recognised']}" if told["recognised"] else ""
    counts = ", ".join(f"{told[name]:,} {name}" for name in ("users", "items", "interactions"))
    return f"{told['title']}{known}: {counts}"


def differences(told: dict[str, Any], intervals: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the paired tests: a line a pair of methods, a column a measure."""
    cells: dict[str, dict[str, str]] = {}
    for t in told["tests"]:
        between = f" ({t['interval'][0]:+.4f} to {t['interval'][1]:+.4f})" if intervals else ""
        apart = " *" if t["p_holm"] < 0.05 else ""
        pair = cells.setdefault(f"{t['a']} - {t['b']}", {})
        pair[t["measure"]] = f"{t['difference']:+.4f}{between}, {shown_p(t['p_holm'])}{apart}"
    names = [name for name in USERS if any(name in of for of in cells.values())]
    rows = [[pair, *(of.get(name, "-") for name in names)] for pair, of in cells.items()]
    return ["difference of means", *(USERS[name] for name in names)], rows


LEGEND = "*: told apart (p < 0.05 by a paired t-test, with Holm's correction over the pairs of a column)"


def shown_p(p: float) -> str:
    return f"p {p:.2g}" if p >= 1e-9 else "p under 1e-9"


def markdown(result: dict[str, Any]) -> str:
    """The tables and tests as a page."""
    lines = ["# Comparison", "", result["protocol"], f"Seeds: {result['seeds']}.", ""]
    for told in result["data"]:
        header, rows = table_of(told)
        lines += [f"## {heading(told)}", "", f"Split: {told['split']}.", ""]
        lines += page_table(header, rows)
        if told["published_protocols"]:
            lines += ["", *(f"- {name}: {about}." for name, about in PUBLISHED_PROTOCOLS.items())]
        if told["tests"]:
            lines += ["", *page_table(*differences(told, intervals=True)), "", LEGEND]
        lines.append("")
    return "\n".join(lines)


def page_table(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)]


COLOURS = {"all": "#2b5c8a", "cold": "#e08a2e", "unseen": "#7a7a7a"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars of AUC with intervals: a panel a data set, a group a method. Drawn with Pillow: nothing more to install."""
    from PIL import Image, ImageDraw, ImageFont

    bar, gap, top, height, left = 26, 26, 40, 300, 60
    widths = [left + len(told["methods"]) * (3 * bar + gap) + gap for told in result["data"]]
    canvas = Image.new("RGB", (max(360, sum(widths)), top + height + 90), "white")
    pen, small, large = ImageDraw.Draw(canvas), ImageFont.load_default(12), ImageFont.load_default(15)

    def y(value: float) -> float:
        return top + height * (1 - value)

    x0 = 0
    for told, width in zip(result["data"], widths, strict=True):
        pen.text((x0 + left, 10), f"AUC on {told['title']}", "black", large)
        for tick in np.arange(0, 1.01, 0.1):
            pen.line((x0 + left, y(tick), x0 + width, y(tick)), "#dddddd")
            pen.text((x0 + left - 30, y(tick) - 7), f"{tick:.1f}", "#444444", small)
        pen.line((x0 + left, y(0.5), x0 + width, y(0.5)), "#aa0000")
        for n, row in enumerate(told["methods"]):
            x = x0 + left + gap + n * (3 * bar + gap)
            for k, part in enumerate(PARTS):
                if "auc" not in row[part]:
                    continue
                at, value = x + k * bar, row[part]["auc"]
                low, high = row[part]["auc_interval"]
                pen.rectangle((at, y(value), at + bar - 3, y(0)), COLOURS[part])
                pen.line((at + bar // 2 - 1, y(low), at + bar // 2 - 1, y(high)), "black", 2)
                pen.text((at - 1, y(high) - 15), f"{value:.2f}".removeprefix("0"), "black", small)
            pen.text((x, top + height + 8), row["method"][:14], "black", small)
        x0 += width
    for k, (part, colour) in enumerate(COLOURS.items()):
        pen.rectangle((left + k * 90, top + height + 40, left + k * 90 + 12, top + height + 52), colour)
        pen.text((left + k * 90 + 18, top + height + 39), part, "black", small)
    pen.text((left, top + height + 62), "red line: chance; whiskers: 95% interval over users", "#444444", small)
    with replacing(path) as temporary:
        canvas.save(temporary, "PNG")


__all__ = [
    "LEGEND",
    "PUBLISHED_PROTOCOLS",
    "Method",
    "Options",
    "compare",
    "differences",
    "heading",
    "holm",
    "methods_of",
    "paired_tests",
    "sampled_auc",
    "table_of",
]
