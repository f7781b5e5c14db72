"""A cell of a comparison: one method on one data set with one seed, trained, measured and kept as a JSON file.

Every cell file has the identity of its computation, so that a stopped comparison goes on with the missing cells, and a
cell of other data, options or weights is computed again.
"""

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
from ...base.files import read_json, replace_text
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
from ...extraction.request import artifact_name
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
    """Of each measure, (n users,) figures: the means over the seeds."""
    return {name: np.mean([cell["users"][name] for cell in cells], axis=0) for name in USERS}


def fitted_on(split: Split, name: str, path: Path) -> Factors:
    """Load a model file, which must be of this split.

    Raises:
        VbprError: it is no model file, or of another split.
    """
    factors = Factors.load(path)
    if factors.split_digest() != digest_of(split).hexdigest():
        raise VbprError(
            f"--fitted {name}={path} is of another data set or split ({factors!r}; split: "
            f"{factors.record.split or 'not on record'}), on which figures do not compare; train it on {split!r}"
        )
    return factors


def fitted_cell(name: str, factors: Factors, folder: Path, device: str, published: bool) -> dict[str, Any]:
    """The cell of a model made elsewhere; read from its file where that is of the same model."""
    identity, path = factors.digest(), folder / f"{artifact_name(name)}.fitted.json"
    check_target(path)
    with locked(path):
        record = read_json(path)
        if not is_complete(record, identity) or (published and not record["published"]):
            console.print(f"measuring {name}")
            record = measure(factors, device) | {"identity": identity, "seconds": factors.record.seconds}
            record["published"] = sampled(factors) if published else {}
            replace_text(path, json.dumps(record))
    return record


def features_of(
    method: Method, data: Dataset, folder: Path, options: Options
) -> tuple[FeatureStore | None, dict[str, Any]]:
    """The method's feature file, extracted if it is missing, and what that cost: seconds, images encoded."""
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
    """The cost of a step over all its runs: `seconds`, and what the caller adds, kept in the file `note`.

    Args:
        new: the cost at the start, where there is no note or one of another `identity`. A run that sets `worked` to
            False leaves the note as it was.
    """
    before = read_json(note)
    spent = {"seconds": 0.0} | new | (before if before.get("identity") == new.get("identity") else {})
    started = time.monotonic()
    try:
        yield spent
    finally:
        if spent.pop("worked", True):
            spent["seconds"] += time.monotonic() - started
            with contextlib.suppress(VbprError):  # the step itself reports a full disk
                replace_text(note, json.dumps(spent))


def passes(weights: Path) -> int:
    """Images that an autoencoder's training encoded: its epochs times what it was shown."""
    from ...networks.cae import metadata_of

    told = metadata_of(weights)
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
    """The cell of a method: read from its file where that is of the same computation, else trained and measured."""
    images = data.images() if MODELS[config.model].images else None
    stores = [] if features is None else [features]
    digests, named = [store.digest() for store in stores], config.changed(identity=method.name)
    identity = identity_of(split, [*digests, *pictures_in(images)], named, tested=True)
    mark = hashlib.blake2b(split.rule.encode(), digest_size=3).hexdigest()  # so that another split has other files
    path = folder / f"{artifact_name(method.name)}.{config.seed}.{mark}.json"
    check_target(path)
    with locked(path):
        record, model = read_json(path), path.with_suffix(".model.h5")
        done = is_complete(record, identity)
        if done and (record["published"] or not published):
            return record
        console.print(f"{data.title}: {method.name}, seed {config.seed}")
        matrix = align(stores, split.item_ids) if stores else None
        if done and model.is_file():
            factors = Factors.load(model)
        else:
            checkpoint, note = path.with_suffix(".checkpoint"), path.with_suffix(".spent.json")
            with spending(note, {"identity": identity}) as spent:
                factors = fit(split, matrix, config.changed(identity=identity), checkpoint, images)
                factors = made_from(factors, data, stores, digests)
            record = {"identity": identity, "seconds": spent["seconds"], "published": {}}
            record |= measure(factors, config.device)
            path.unlink(missing_ok=True)  # a cell file never lies beside another cell's model
            factors.save(model)
            replace_text(path, json.dumps(record))
            discard(checkpoint)
            note.unlink(missing_ok=True)
        if published:
            record["published"] = sampled(factors)
            if factors.record.curve:
                swapped = dataclasses.replace(split, validation=split.test, test=split.validation)
                config, oracle = config.changed(identity=identity + " oracle"), path.with_suffix(".checkpoint-oracle")
                best = fit(swapped, matrix, config, oracle, images)
                value = evaluate(best, "validation", config.device).summary()["all"]["auc"]
                record["published"]["best-epoch-on-test"] = value
                discard(oracle)
            replace_text(path, json.dumps(record))
        return record


CELL = {"identity", "seconds", "encoded", "summary", "users", "scores_unseen", "published"}  # keys of a cell file
USERS = {**{part: f"AUC, {part}" for part in PARTS}, "ndcg@10": "NDCG@10"}  # measures by which methods are tested


def is_complete(record: dict[str, Any], identity: str) -> bool:
    """Whether a file's content is a finished cell of this computation."""
    return record.get("identity") == identity and record.keys() >= CELL and record["users"].keys() >= USERS.keys()


def measure(factors: Factors, device: str) -> dict[str, Any]:
    """The figures of a cell: the summary, and every user's figure by each of USERS."""
    metrics = evaluate(factors, device=device)
    users = {part: mean_auc(metrics.ranks[part]) for part in PARTS} | {"ndcg@10": ndcg(metrics.ranks["all"], 10)}
    return {
        "encoded": factors.record.encoded,
        "summary": metrics.summary(),
        "users": {name: [round(float(v), 9) for v in values] for name, values in users.items()},
        "scores_unseen": metrics.scores_unseen,
    }


def sampled(factors: Factors) -> dict[str, float]:
    """The published estimates by 100 and by one sampled item."""
    return {f"sampled-{n}": sampled_auc(factors, n) for n in (100, 1)}


def sampled_auc(factors: Factors, count: int, seed: int = 0, block: int = 512) -> float:
    """A published estimate of AUC: the share of `count` random items not taken that score strictly lower than the
    held-out one, averaged over the held-out items of a user, then over users."""
    rng = np.random.default_rng(seed)
    held, seen = factors.test.tocoo(), factors.seen
    n_items, below = len(factors.item_ids), np.zeros(factors.test.nnz)
    keys = np.sort(np.repeat(np.arange(seen.shape[0], dtype=np.int64), np.diff(seen.indptr)) * n_items + seen.indices)
    for a in range(0, held.nnz, block):
        u, i = held.row[a : a + block].astype(np.int64), held.col[a : a + block]
        j = rng.integers(n_items, size=(len(u), count))
        full = np.diff(seen.indptr)[u] >= n_items
        while True:  # replace samples that the user has taken
            pair = u[:, None] * n_items + j
            bad = (keys[np.minimum(np.searchsorted(keys, pair), len(keys) - 1)] == pair) & ~full[:, None]
            if not bad.any():
                break
            j[bad] = rng.integers(n_items, size=int(bad.sum()))
        both = np.concatenate([i[:, None], j], 1)  # summed alike, so that equal items tie
        scores = np.einsum("nk,nck->nc", factors.users[u], factors.items[both]) + factors.bias[both]
        below[a : a + block] = (scores[:, :1] > scores[:, 1:]).mean(1)
    counts = np.bincount(held.row)
    return float((np.bincount(held.row, below)[counts > 0] / counts[counts > 0]).mean())


__all__ = ["PROTOCOL", "USERS", "cell", "features_of", "fitted_cell", "fitted_on", "sampled_auc", "users_of"]
