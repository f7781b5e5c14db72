"""Stage two: interactions and cached features in, a fitted model out, in seconds.

train(Dataset.resolve("data"), ["artifacts/inc.h5"], configure("visual"), out="artifacts/inc.model.h5")
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..base.arrays import Strings
from ..base.errors import VbprError
from ..base.locks import locked
from ..base.targets import check_target
from ..compute.checkpoint import checkpoint_of, discard
from ..compute.device import dtype_for, pick_device
from ..compute.memory import available_memory, give_back
from ..data.dataset import Dataset
from ..data.split import Split, SplitConfig
from ..executors.cluster import check_cluster
from ..stores.features.store import FeatureStore, stores_of
from ..stores.model.factors import Factors
from .catalogue import align, prepare
from .config import TrainConfig
from .fit import fit, made_from
from .identity import identity_of, pictures_in
from .model import Diverged
from .models import MODELS
from .models.bpr.shards import LONGEST


@dataclasses.dataclass(frozen=True)
class Training:
    """The result of a run: the factors and their file, seconds, items that a feature file lacks (they get the mean)."""

    factors: Factors
    path: Path
    seconds: float
    without_features: list[str]


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
    check_shards(config)
    longest = LONGEST if config.shards > 1 else ""
    # of a model's part: the longest name there is
    check_target(checkpoint.with_name(f"{checkpoint.name}-choice-latent-10{longest}"))
    stores = stores_of(features)
    visual = MODELS[config.model].visual
    if visual and not stores:
        raise VbprError(f"--model {config.model} needs --features FILE; make one with vbpr extract")
    started = time.monotonic()
    images = data.images() if MODELS[config.model].images else None
    parts = prepare(data, stores, config=split, images=images)
    digests = [store.digest() for store in stores]
    matrix = align(stores, parts.item_ids) if visual else None
    device = pick_device(config.device)  # another kind of device, or of number, is another run
    numbers = f"{device.type} {dtype_for(config.precision, device)}"
    check_memory(parts, config)
    identity = identity_of(parts, [*digests, *pictures_in(images), numbers], config, tested=True)
    with locked(path):
        check_target(path, "model")  # with the lock there, is there an inode left?
        config, diverged = config.changed(identity=identity), None
        give_back()
        try:
            factors = fit(parts, matrix, config, checkpoint, images)
        except Diverged as error:
            if error.factors is None:
                raise
            factors, diverged = error.factors, error
        missing = without_features(stores, parts.item_ids) if visual else []
        factors = made_from(factors, data, stores, digests)
        spent = {"without_features": len(missing), "seconds": time.monotonic() - started}
        factors = dataclasses.replace(factors, about=factors.about | spent)
        factors.save(path)
        if diverged is None:
            discard(checkpoint)
    if diverged is not None:
        raise VbprError(f"{diverged}; {path} holds the best model before that") from diverged
    return Training(factors, path, time.monotonic() - started, missing)


def without_features(stores: Sequence[FeatureStore], item_ids: Strings) -> list[str]:
    """The items that at least one of the feature files lacks."""
    missing: list[str] = item_ids[np.logical_or.reduce([store.find(item_ids) < 0 for store in stores])].tolist()
    return missing


def check_shards(config: TrainConfig) -> None:
    """
    Raises:
        VbprError: the model has no shards, or there is but one for the workers of a cluster.
    """
    if "shards" not in MODELS[config.model].reads and (config.shards > 1 or config.cluster):
        have = ", ".join(name for name, model in MODELS.items() if "shards" in model.reads)
        raise VbprError(f"--shards and --cluster are for --model {have}, and not {config.model}; leave them out")
    if config.cluster:
        check_cluster(config.cluster, config.device)
        if config.shards == 1:
            raise VbprError("--cluster shares the shards of the users out; give --shards, as many as workers or more")


def check_memory(split: Split, config: TrainConfig) -> None:
    """
    Raises:
        VbprError: factors and their moments alone are more than what memory there is.
    """
    if pick_device(config.device).type != "cpu":
        return
    reads = MODELS[config.model].reads
    columns = sum(getattr(config, name) for name in ("dim", "factors") if name in reads)
    copies = COPIES if "schedule" in reads else 1
    users, items = split.train.shape
    if config.cluster:
        users //= config.shards  # of a worker, whose machine may well be this one
    size, free = copies * 4 * columns * (users + items), available_memory()
    if size > free:
        raise VbprError(
            f"K {columns:,} for {split.train.shape[0]:,} users and {split.train.shape[1]:,} items takes "
            f"{size / 1e9:,.1f} GB, and {free / 1e9:,.1f} are available; lower --factors or --dim"
        )


COPIES = 4  # of a parameter: as it is, at its best, and Adam's two moments

__all__ = ["Training", "train"]
