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
        ids: list[str] = []
        rows: list[tuple[Array, Array]] = []
        failures: list[tuple[str, str]] = []
        with Progress("add items", len(todo), "images") as bar, stop_signals() as stopping:
            for a in range(0, len(todo), BATCH):
                batch = {str(source.item_ids[i]): prepared(source, int(i), encoder) for i in todo[a : a + BATCH]}
                failures += [(item_id, pixels) for item_id, pixels in batch.items() if isinstance(pixels, str)]
                good = {item_id: pixels for item_id, pixels in batch.items() if not isinstance(pixels, str)}
                if good:
                    rows.append(factors.head(encoder.encode(list(good.values()))))
                    ids += good
                bar.advance(len(batch))
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


def prepared(source: ImageSource, i: int, encoder: PhotoEncoder) -> list[Pixels] | str:
    """An image as each backbone wants it, or why it cannot be used."""
    try:
        return encoder.prepare(source.read(i))
    except BadImage as error:
        return str(error)


__all__ = ["Added", "add_items"]
