"""One method on one data set: trained, measured and kept, so that a stopped comparison goes on."""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...base.arrays import Array
from ...base.errors import VbprError
from ...base.files import artifact_name, read_json, replace_text
from ...base.locks import locked
from ...base.progress import console
from ...base.targets import check_target
from ...compute.checkpoint import discard
from ...data.dataset import Dataset
from ...data.parts import digest_of
from ...data.split import Split
from ...evaluation.evaluate import PARTS, evaluate
from ...evaluation.metrics import mean_auc, ndcg
from ...extraction.extract import extract
from ...extraction.own_autoencoder import autoencoder_of
from ...stores.features.store import FeatureStore
from ...stores.model.factors import Factors
from ...training.catalogue import align
from ...training.config import TrainConfig
from ...training.fit import fit, made_from
from ...training.identity import identity_of, pictures_in
from ...training.models import MODELS
from .methods import Method, Options, weights_of

PROTOCOL = (
    "Exact AUC over every item that a user has not taken, ties one half; users' mean; 95% bootstrap interval over "
    "users. cold: held-out items with fewer than 5 train interactions; unseen: with none. Validation chooses the "
    "epoch; the test items are asked once. coverage@10: the share of the catalogue in the first ten of any of up to "
    "2,000 users, drawn at random."
)


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
            f"{factors.record.split or 'not on record'}), on which figures do not compare; train it on {split!r}"
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
            told = measured(factors, device) | {"identity": identity, "seconds": factors.record.seconds}
            told["published"] = sampled(factors) if published else {}
            replace_text(path, json.dumps(told))
    return told


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
    from ...networks.cae import told_by

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
            if factors.record.curve:
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
        "encoded": factors.record.encoded,
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


__all__ = ["PROTOCOL", "USERS", "cell", "features_of", "fitted_cell", "fitted_on", "sampled_auc", "users_of"]
