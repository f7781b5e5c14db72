"""New items from their images alone: the recorded backbone and the model's head give each a vector, without retraining.

add_items("artifacts/inc.model.h5", "new-images")
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError, some
from ..base.locks import locked
from ..base.progress import Progress
from ..base.stopping import Stopped, stop_signals
from ..data.images import open_images
from ..data.images.source import BadImage, ImageSource, Pixels
from ..extraction.photos import PhotoEncoder
from ..stores.model.factors import Factors
from ..stores.model.head import BLIND
from .index_file import index_path
from .nearest import Nearest, source_of

BATCH, MANY = 16, 500  # images a step; images that pay for compiling an engine


@dataclasses.dataclass(frozen=True)
class Added:
    """What a run did: ids added, ids that the model had already, failures (item id, reason), the index's fate, and
    files passed over because they are not named like an image, by ending."""

    item_ids: list[str]
    skipped: list[str]
    failures: list[tuple[str, str]]
    index: str
    others: Mapping[str, int]


def add_items(
    model: Path | str,
    folder: Path | str,
    *,
    weights: Path | str | None = None,
    duplicates: str = "skip",
    device: str = "auto",
) -> Added:
    """Append the images under `folder` to a model file and, where it has one, to its index.

    The model file is replaced in one step; a kill leaves the old one. The index follows: between the two steps it is of
    another model and is refused.

    Args:
        duplicates: what to do with items that the model has already: skip, or refuse the whole run.

    Raises:
        VbprError: no usable image, a model that cannot read images, or an item that is there already.
        Stopped: Ctrl-C or SIGTERM; nothing is changed.
    """
    if duplicates not in ("skip", "refuse"):
        raise VbprError(f"--duplicates {duplicates} is not known; choose skip or refuse")
    if weights is not None and not Path(weights).is_file():
        raise VbprError(f"--weights {weights} is no file; give that of the model's backbone, or leave it out")
    path = Path(model)
    with locked(path):
        factors = Factors.load(path)
        if factors.head is None:
            raise VbprError(f"{path} ({factors.record.model or 'nameless'}): {BLIND}")
        saved, index, state = index_path(path), None, ""
        if saved.exists():
            index = Nearest.load(saved, path)  # a stale or damaged one is refused before any work is done
        source = open_images(folder, "IMAGES")
        old = np.isin(source.item_ids, factors.item_ids)
        skipped = source.item_ids[old].tolist()
        if skipped and duplicates == "refuse":
            raise VbprError(
                f"{len(skipped):,} of {len(source):,} items in {folder} are in {path} already "
                f"({some(skipped)}); take them away, or use --duplicates skip"
            )
        todo = np.flatnonzero(~old)
        if not len(todo):
            return Added([], skipped, [], state, source.others)
        encoder = PhotoEncoder(
            factors.record.features, weights, device, BATCH, "auto" if len(todo) >= MANY else "torch"
        )
        first = any(made.get("views") == "first" for made in factors.record.features)
        ids: list[str] = []
        rows: list[tuple[Array, Array]] = []
        failures: list[tuple[str, str]] = []
        with Progress("add items", len(todo), "images") as bar, stop_signals() as stopping:
            for a in range(0, len(todo), BATCH):
                part = todo[a : a + BATCH]
                good, bad = usable(source, part, encoder, first)
                failures += bad
                if good:
                    rows.append(factors.head(means(encoder, list(good.values()))))
                    ids += good
                bar.advance(len(part))
                if stopping():
                    raise Stopped(f"stopped; {path} is as it was, run the same command again")
        if not ids and not skipped:
            raise VbprError(
                f"none of the {len(todo):,} new images in {folder} could be used ({failures[0][0]}: {failures[0][1]}); "
                "give a folder of readable images"
            )
        if not ids:  # those that can be used came in an earlier run
            return Added([], skipped, failures, state, source.others)
        vectors, bias = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        names = np.array(ids, np.str_)
        added = [*factors.record.added, {"folder": str(Path(folder).resolve()), "items": len(ids)}]
        new = factors.extended(names, vectors, bias)
        dataclasses.replace(new, about=factors.about | {"added": added}).save(path)
        if index is not None:
            index.extended(names, vectors, source_of(path)).save(saved)
            state = str(saved)
    return Added(ids, skipped, failures, state, source.others)


def usable(
    source: ImageSource, items: Array, encoder: PhotoEncoder, first: bool
) -> tuple[dict[str, list[list[Pixels]]], list[tuple[str, str]]]:
    """Each of these items with its pictures as each backbone wants them, and why the others have none.

    Args:
        first: whether an item's first picture counts alone.
    """
    good: dict[str, list[list[Pixels]]] = {}
    failures = []
    for i in items.tolist():
        rows, of = [i], source
        if source.pictures is not None and not first:
            of, starts = source.pictures.source, source.pictures.starts
            rows = source.pictures.places[starts[i] : starts[i + 1]].tolist()
        pictures, reasons = [], []
        for row in rows:
            try:
                pictures.append(encoder.prepare(of.read(row)))
            except BadImage as error:
                reasons.append(str(error))
        if pictures:
            good[str(source.item_ids[i])] = pictures
        else:
            failures.append((str(source.item_ids[i]), reasons[0]))
    return good, failures


def means(encoder: PhotoEncoder, items: list[list[list[Pixels]]]) -> Array:
    """(n, D) float32: the mean of the features of each item's pictures, as `extract` combines them."""
    features = encoder.encode([picture for pictures in items for picture in pictures])
    counts = np.array([len(pictures) for pictures in items])
    if (counts == 1).all():
        return features
    total = np.add.reduceat(features.astype(np.float64), np.append(0, np.cumsum(counts)[:-1]), axis=0)
    mean: Array = (total / counts[:, None]).astype(np.float32)
    return mean


__all__ = ["Added", "add_items"]
