"""Stage two: interactions and cached features in, a fitted model out, in seconds.

train(Dataset.resolve("data"), ["artifacts/inc.h5"], configure("visual"), out="artifacts/inc.model.h5")
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .base.arrays import Strings
from .base.errors import VbprError, some
from .base.locks import locked
from .base.targets import check_target
from .compute.checkpoint import checkpoint_of, discard
from .compute.memory import available_memory
from .data.dataset import Dataset
from .data.images import holdings
from .data.images.source import ImageSource
from .data.split import Split, SplitConfig
from .models import MODELS, TrainConfig
from .models.bpr import Diverged
from .models.dvbpr import DVBPR
from .recommender import Aligned, ItemFeatures
from .stores.features.store import FeatureStore, stores_of
from .stores.model.factors import Factors


def align(stores: Sequence[FeatureStore], item_ids: Strings) -> ItemFeatures:
    """The features of a catalogue by id, several files side by side; an item that one of them lacks has the mean there,
    and one that all of them lack is unknown."""
    places = [store.find(item_ids) for store in stores]
    known = np.logical_or.reduce([place >= 0 for place in places])
    if len(stores) == 1 and np.array_equal(places[0], np.arange(len(stores[0]))):
        return ItemFeatures.of(stores[0].features, known)  # the catalogue is the file
    files = [(store.features, place) for store, place in zip(stores, places, strict=True)]
    return ItemFeatures.of(Aligned(files), known)


def prepare(
    data: Dataset,
    stores: Sequence[FeatureStore],
    *,
    config: SplitConfig = SplitConfig(),
    images: ImageSource | None = None,
) -> Split:
    """Read the interactions and split them, over a catalogue of every item that has features (or, where there are none,
    an image) or interactions.

    Raises:
        VbprError: the features are of another data set, or lack items that have an image.
    """
    interactions = data.interactions()
    item_ids = (interactions.k_core(config.k_core) if config.k_core else interactions).item_ids
    if images is None and not stores and holdings(data.path):
        images = data.images()  # whoever has images ranks all of them, with features or without
    usable = [] if images is None else [images.item_ids]
    usable += [store.finished().item_ids[store.done] for store in stores]
    if stores:
        absent = absent_from(stores, item_ids, data.name)
        if len(absent):  # else there is no need to list a million of them
            with contextlib.suppress(VbprError):  # who has no images cannot encode more of them
                images = data.images()
        pictured = absent[:0] if images is None else np.intersect1d(absent, images.item_ids)
        if images is not None and len(pictured):
            new = functools.reduce(np.setdiff1d, [store.item_ids for store in stores], images.item_ids)
            raise VbprError(
                f"{named(stores)} lack{'s' * (len(stores) == 1)} {len(new):,} of {len(images):,} images (first: "
                f"{new[0]}), of which {len(pictured):,} are of items in the interactions; run vbpr extract again to "
                "add them"
            )
    return Split.make(interactions, config, catalogue=functools.reduce(np.union1d, usable) if usable else None)


def named(stores: Sequence[FeatureStore]) -> str:
    return " and ".join(str(store.path) for store in stores)


def absent_from(stores: Sequence[FeatureStore], item_ids: Strings, name: str) -> Strings:
    """The items of a data set, called `name`, that none of the feature files has.

    Raises:
        VbprError: too many of them, so that the files must be of another data set, or have other names for its items:
            more than half, or, if one was made from the data set of that name, more than nine in ten.
    """
    have = functools.reduce(np.union1d, [store.item_ids for store in stores])
    absent = np.setdiff1d(item_ids, have)
    sources = list(dict.fromkeys(store.provenance["data"] for store in stores))
    if len(absent) > len(item_ids) * (0.9 if name in sources else 0.5):
        spaced = np.isin(np.char.strip(absent), have).any()
        alike = f"write both ids alike (here {absent[0]}, there {have[0]})"
        mend = (
            "take the spaces off its ids"
            if spaced
            else f"{alike}, or if they are of other things, extract that data set's images, or give its --data"
        )
        raise VbprError(
            f"{named(stores)}, made from {' and '.join(sources)}: features for only {len(item_ids) - len(absent):,} of "
            f"the {len(item_ids):,} items in {name}; {mend}"
        )
    strange = [store for store in stores if not np.isin(store.item_ids, item_ids).any()]
    if strange:
        raise VbprError(f"{named(strange)}: features of none of the {len(item_ids):,} items in {name}; leave it out")
    return absent


# Of a feature file: what a photo must go through.
RECORDED = ("backbone", "weights", "weights_digest", "weights_file", "preprocessing", "precision")


@dataclasses.dataclass(frozen=True)
class Training:
    """What a run did: the factors and where they lie, seconds, items that a feature file lacks (they get the mean)."""

    factors: Factors
    path: Path
    seconds: float
    without_features: list[str]


def fit(
    split: Split,
    features: ItemFeatures | None,
    config: TrainConfig,
    checkpoint: Path | None = None,
    images: ImageSource | None = None,
) -> Factors:
    """Fit one model; the factors know their configuration and learning curve."""
    recommender = MODELS[config.model].build(config, checkpoint)
    if isinstance(recommender, DVBPR):
        recommender.images = images
    return described(with_average_tastes(recommender.fit(split, features)), split, config)


def with_average_tastes(factors: Factors) -> Factors:
    """Factors in which users without train interactions, as a split by time leaves some, have the mean of the others'
    vectors: what is liked on the whole. What training left there says nothing."""
    known = factors.train.getnnz(axis=1) > 0
    if known.all() or not known.any():
        return factors
    users = factors.users.copy()
    users[~known] = users[known].mean(0, dtype=np.float64)
    return dataclasses.replace(factors, users=users)


def described(factors: Factors, split: Split, config: TrainConfig) -> Factors:
    """Factors that know how they were made."""
    random = MODELS[config.model].images and config.network_weights == "random"
    about = {
        **factors.about,
        "model": config.model,
        "title": config.model + " (RANDOM weights)" * random,
        "config": config.to_json(),
        "split": split.rule,
        "dropped_users": split.dropped_users,
        "versions": versions(),
    }
    return dataclasses.replace(factors, about=about)


def made_from(factors: Factors, data: Dataset | None, stores: Sequence[FeatureStore], digests: list[str]) -> Factors:
    """Factors that know the data set and the feature files behind them, and say so where the weights were random."""
    about = dict(factors.about)
    if data is not None:
        about |= {"data": data.name, "data_title": data.title, "simulated": data.simulated}
    about["features"] = [
        {"path": str(s.path.resolve()), "digest": d, **{k: s.provenance[k] for k in RECORDED if k in s.provenance}}
        for s, d in zip(stores, digests, strict=True)
    ]
    random = [s.provenance["backbone"] for s in stores if s.provenance["weights"] == "random"]
    if random and MODELS[about["model"]].visual:
        about["title"] += f" (RANDOM weights: {some(random)})"
    return dataclasses.replace(factors, about=about)


def train(
    data: Dataset | Path | str,
    features: Path | str | FeatureStore | Sequence[Path | str | FeatureStore],
    config: TrainConfig,
    out: Path | str,
    split: SplitConfig = SplitConfig(),
) -> Training:
    """Fit a model and write its file; a killed run resumes from its checkpoint.

    Args:
        features: a feature file or opened store; several are put side by side.

    Raises:
        VbprError: the features are missing, unfinished or of another data set; the configuration is impossible.
        Stopped: Ctrl-C or SIGTERM.
    """
    data, path, checkpoint = Dataset.resolve(data), Path(out), checkpoint_of(Path(out))
    check_target(path, "model")
    check_target(checkpoint.with_name(f"{checkpoint.name}-latent-10"))  # of a model's part: the longest name there is
    stores = stores_of(features)
    visual = MODELS[config.model].visual
    if visual and not stores:
        raise VbprError(f"--model {config.model} needs --features FILE; make one with vbpr extract")
    started = time.monotonic()
    images = data.images() if MODELS[config.model].images else None
    parts = prepare(data, stores, config=split, images=images)
    digests = [store.digest() for store in stores]
    matrix = align(stores, parts.item_ids) if visual else None
    device = config.torch_device()  # another kind of device, or of number, is another run
    numbers = f"{device.type} {config.torch_dtype(device)}"
    check_memory(parts, config)
    identity = identity_of(parts, [*digests, *pictures_in(images), numbers], config, tested=True)
    with locked(path):
        check_target(path, "model")  # with the lock there, is there an inode left?
        config, diverged = config.changed(identity=identity), None
        try:
            factors = fit(parts, matrix, config, checkpoint, images)
        except Diverged as error:
            if error.factors is None:
                raise
            factors, diverged = described(error.factors, parts, config), error
        lacking = [store.find(parts.item_ids) < 0 for store in stores if visual]
        missing = parts.item_ids[np.logical_or.reduce(lacking)].tolist() if lacking else []
        factors = made_from(factors, data, stores, digests)
        spent = {"without_features": len(missing), "seconds": time.monotonic() - started}
        factors = dataclasses.replace(factors, about=factors.about | spent)
        factors.save(path)
        if diverged is None:
            discard(checkpoint)
    if diverged is not None:
        raise VbprError(f"{diverged}; {path} holds the best model before that") from diverged
    return Training(factors, path, time.monotonic() - started, missing)


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("vbpr", "torch", "numpy")}


def check_memory(split: Split, config: TrainConfig) -> None:
    """
    Raises:
        VbprError: factors and their moments alone are more than what memory there is.
    """
    if config.torch_device().type != "cpu":
        return
    reads = MODELS[config.model].reads
    columns = sum(getattr(config, name) for name in ("dim", "factors") if name in reads)
    copies = COPIES if "schedule" in reads else 1
    size, free = copies * 4 * columns * sum(split.train.shape), available_memory()
    if size > free:
        raise VbprError(
            f"K {columns:,} for {split.train.shape[0]:,} users and {split.train.shape[1]:,} items takes "
            f"{size / 1e9:,.1f} GB, and {free / 1e9:,.1f} are available; lower --factors or --dim"
        )


COPIES = 4  # of a parameter: as it is, at its best, and Adam's two moments


def pictures_in(images: ImageSource | None) -> list[str]:
    """What tells whether images have changed, for `identity_of`."""
    return [] if images is None else [repr([images.signature(i) for i in range(len(images))])]


def identity_of(split: Split, digests: list[str], config: TrainConfig, tested: bool = False) -> str:
    """A digest of what decides the model, and, if `tested`, of the test items: its figures hang on them, and the epoch
    that is chosen may, for they are no candidates in validation."""
    total = hashlib.blake2b(json.dumps([digests, config.to_json(), split.rule]).encode(), digest_size=16)
    for ids in (split.user_ids, split.item_ids):
        total.update("\0".join(ids).encode())
    for part in (split.train, split.validation, *([split.test] if tested else [])):
        total.update(part.indptr.tobytes())
        total.update(part.indices.tobytes())
    return total.hexdigest()


__all__ = [
    "Training",
    "absent_from",
    "align",
    "fit",
    "identity_of",
    "made_from",
    "pictures_in",
    "prepare",
    "train",
    "versions",
]
