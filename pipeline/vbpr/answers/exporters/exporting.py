"""Models, features and data sets into a folder of files for other programs, which appears whole or not at all."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.arrays import Array
from ...base.errors import VbprError, near
from ...base.files import replacing_folder
from ...base.hdf5 import kind_of
from ...data.dataset import Dataset
from ...data.interactions import Interactions
from ...data.split import Split, SplitConfig
from ...stores.features.store import FeatureStore, stores_of
from ...stores.model.factors import Factors
from ...stores.model.head import unit_rows
from ..nearest import of_features
from . import SPLITS, VECTORS
from .outgoing import Ground, Vectors

MARK = "export.json"


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: the folder. files: name -> bytes. source: what was exported, in words. notes: how to use it.
    """

    path: Path
    files: dict[str, int]
    source: str
    notes: list[str]


def export(
    source: Path | str,
    to: str,
    out: Path | str,
    *,
    features: Sequence[Path | str] = (),
    split: SplitConfig = SplitConfig(),
) -> Exported:
    """Write a model's or a feature file's vectors, or the split of a model or a data set, for another program.

    Args:
        source: model file, feature file, or what `Dataset.resolve` takes.
        to: of `VECTORS` or `SPLITS`.
        features: with a split: their rows go along, and their items are in the catalogue, as in training on them.
        split: how a data set is split; a model has its own.

    Raises:
        VbprError: `to` is not known or not for this source, or the folder holds something else.
    """
    if to not in (*VECTORS, *SPLITS):
        raise VbprError(
            f"--to {to} is not known{near(to, [*VECTORS, *SPLITS])}; choose {', '.join([*VECTORS, *SPLITS])}"
        )
    folder, kind = Path(out), kind_of_source(source)
    if to in SPLITS:
        stores = stores_of(features)
        ground = ground_of(source, kind, stores, split)
        with replacing_folder(folder, MARK) as temporary:
            notes = SPLITS[to](temporary, folder.resolve().name, ground)
            finish(temporary, source, to)
        return Exported(folder, sizes(folder), f"split: {ground.rule}", notes)
    if features or split != SplitConfig():
        given = "--features" if features else "--split, --min-interactions, --k-core or --split-seed"
        raise VbprError(f"{given} is for --to {', '.join(SPLITS)}; leave it out")
    exporter = VECTORS[to]
    if kind == "model":
        vectors = of_model(source)
        vectors = vectors.with_bias() if exporter.searched else vectors
    elif kind == "features":
        vectors = of_store(FeatureStore(source), exporter.searched, exporter.unit)
    else:
        raise VbprError(f"{source} is a data set: it has no vectors; give a model or feature file, or --to recbole")
    with replacing_folder(folder, MARK) as temporary:
        notes = exporter.write(temporary, vectors)
        finish(temporary, source, to)
    return Exported(folder, sizes(folder), vectors.source, notes)


def kind_of_source(source: Path | str) -> str:
    """model, features, or data."""
    path = Path(source)
    if path.is_file() and path.suffix.lower() in (".h5", ".hdf5"):
        kind = kind_of(path)
        if kind not in ("model", "features"):
            raise VbprError(
                f"{path} is neither a model nor a feature file ({kind or 'unknown'}); give one, or a data set"
            )
        return kind
    return "data"


def finish(folder: Path, source: Path | str, to: str) -> None:
    """Note whose export it is, so that the next one may take its place."""
    text = json.dumps({"source": str(source), "to": to})
    (folder / MARK).write_text(text + "\n", encoding="utf-8")


def sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name != MARK}


def of_model(path: Path | str) -> Vectors:
    """The vectors of a model."""
    factors = Factors.load(path)
    return Vectors(
        factors.item_ids,
        factors.items.shape[1],
        lambda a, b: factors.items[a:b],
        f"{factors.record.title} on {factors.record.data_title or factors.record.data or 'data not on record'}",
        factors.bias,
        factors.user_ids,
        factors.users,
        factors.seen,
    )


def of_store(store: FeatureStore, searched: bool, unit: bool) -> Vectors:
    """The rows of a feature file that are done, in the numbers of their maker.

    Args:
        searched: less their mean, as `similar` compares them. unit: and of length 1.
    """
    store.check(store.verify())
    at, scale = store.done, np.float32(store.provenance.get("scale", 1.0))
    if not len(at):
        raise VbprError(f"{store.path} has features of no item; run the command that made it again")
    encode = of_features(store)["encode"]

    def rows(a: int, b: int) -> Array:
        values = np.asarray(store.features[at[a:b]], np.float32)
        if searched:
            values = encode(values)
            return unit_rows(values) if unit else values
        return values / scale

    source = f"features of {store.provenance['backbone']}"
    how = ", less their mean" * searched + ", of length 1" * unit
    return Vectors(store.item_ids[at], store.dim, rows, source + how)


def ground_of(source: Path | str, kind: str, stores: Sequence[FeatureStore], config: SplitConfig) -> Ground:
    """The split of a model, or a data set's.

    Raises:
        VbprError: a feature file, which has none, or a way to split for a model, which has been.
    """
    split: Any
    times = None
    if kind == "features":
        raise VbprError(
            f"{source} is a feature file, and has no split; give a model or a data set, and it as --features"
        )
    if kind == "model":
        if config != SplitConfig():
            raise VbprError(f"{source} has its own split, which is what is exported; leave the options of --split out")
        split = Factors.load(source)
        rule = split.record.split or "not on record"
    else:
        interactions = Dataset.resolve(source).interactions()
        catalogue = np.unique(np.concatenate([store.item_ids[store.done] for store in stores])) if stores else None
        split = Split.make(interactions, config, catalogue=catalogue)
        rule, times = split.rule, times_of(interactions, split)
    ground = Ground(split, rule, times)
    return dataclasses.replace(ground, features=side_by_side(stores, split.item_ids)) if stores else ground


def times_of(interactions: Interactions, split: Any) -> tuple[Array, ...] | None:
    """The seconds of each pair of each part, in the order of `Ground.pairs`; None where the data have none."""
    if interactions.times is None:
        return None
    ground, n = Ground(split, ""), len(interactions.item_ids)
    key = interactions.users.astype(np.int64) * n + interactions.items
    times = []
    for part in range(3):
        users, items = ground.pairs(part)
        u = np.searchsorted(interactions.user_ids, split.user_ids)[users]
        i = np.searchsorted(interactions.item_ids, split.item_ids)[items]
        times.append(interactions.times[np.searchsorted(key, u * n + i)])
    return tuple(times)


def side_by_side(stores: Sequence[FeatureStore], item_ids: Any) -> Any:
    """Features (m, D) float32 of items by position, files side by side; what a file lacks has its mean there."""
    files = []
    for store in stores:
        store.check(store.verify())
        total = np.zeros(store.dim)
        for a in range(0, len(store.done), 4096):
            total += store.features[store.done[a : a + 4096]].sum(0, dtype=np.float64)
        mean = (total / max(1, len(store.done))).astype(np.float32)
        files.append((store, store.find(item_ids), mean, np.float32(store.provenance.get("scale", 1.0))))

    def rows(at: Array) -> Array:
        parts = []
        for store, places, mean, scale in files:
            place = places[at]
            values = np.tile(mean, (len(at), 1))
            values[place >= 0] = store.features[place[place >= 0]]
            parts.append(values / scale)
        return np.concatenate(parts, 1)

    return rows


__all__ = ["Exported", "export"]
