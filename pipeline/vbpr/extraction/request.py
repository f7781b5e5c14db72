"""What a run is asked for, checked before the work, and whether a feature file holds just that already."""

import dataclasses
import importlib.metadata
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.own import BACKBONE_GROUP, find_own, is_own
from ..base.progress import console
from ..data.dataset import Dataset
from ..data.images.remote import is_remote
from ..data.images.source import PASSING, ImageSource, is_image_name
from ..data.same_ids import note_suffixes, refuse_other_names
from ..networks.names import parted
from ..stores.features.layout import TOLD
from ..stores.features.store import FeatureStore


class How(NamedTuple):
    """The options of `extract` that say how images are encoded."""

    backbone: str
    weights: Path | str | None
    random_weights: bool
    device: str
    precision: str
    engine: str
    batch: int | None
    threads: int | None
    max_shared: int | None
    max_bad: float
    verify: bool
    cluster: str | None


def check_options(
    precision: str, max_bad: float, batch: int | None, threads: int | None, views: str, max_shared: int | None
) -> None:
    """
    Raises:
        VbprError: an option that no run can follow.
    """
    if views not in ("mean", "first"):
        raise VbprError(f"--views {views} is not known; choose mean or first")
    if precision not in ("exact", "fast"):
        raise VbprError(f"--precision {precision} is not known; choose exact or fast")
    if not 0 <= max_bad <= 1:
        raise VbprError(f"--max-bad is {max_bad}; it must be from 0 to 1")
    for name, value in (("batch", batch), ("threads", threads), ("max-shared", max_shared)):
        if value is not None and value < 1:
            raise VbprError(f"--{name} is {value}; it must be at least 1")


def placed(data: Dataset, images: Path | str | None, id_field: str | None) -> Dataset:
    """A data set whose images are elsewhere, or whose samples have their ids in this field."""
    place = data.place if images is None else str(images) if is_remote(images) else str(Path(images).absolute())
    return dataclasses.replace(data, place=place, id_field=id_field)


def recorded_place(data: Dataset) -> dict[str, Any]:
    """What a feature file records of where its images were, beside the data set's name."""
    place = {} if data.place in (None, data.name) else {"images": data.place}
    return place | ({} if data.id_field is None else {"id_field": data.id_field})


def check_names(data: Dataset, source: ImageSource) -> None:
    """Tell before the work, not in `train` after it, whether images are named after the items of the interactions.

    Raises:
        VbprError: see `refuse_other_names`.
    """
    try:
        items = data.interactions().item_ids
    except VbprError:  # features need none; whoever needs them says what is wrong with them
        return
    refuse_other_names(items, source.item_ids, source.name)
    note_suffixes(items, source.item_ids, str(data.path))
    pictured = int(np.isin(items, source.item_ids).sum())
    if pictured < len(items) / 2:
        console.print(f"note: {pictured:,} of the {len(items):,} items in the interactions have an image")


def with_layers(backbone: str, layer: str | None) -> str:
    """The name of a backbone of which some layers are asked for (None: the last alone).

    Raises:
        VbprError: of a backbone that has none to choose from.
    """
    if layer and (is_own(backbone) or parted(backbone)[0] == "cae"):
        raise VbprError(f"--layer is for networks of timm's, and not for {backbone}; leave it out")
    return f"{backbone}:{layer}" if layer else backbone


def artifact_name(backbone: str) -> str:
    """What a backbone's feature file is called, without `.h5`: `inc` for inception, else the backbone's own name."""
    if is_own(backbone):  # my_eyes.Net, of any folder
        return Path(backbone).name.replace(".py:", ".")
    network, layers = parted(backbone)
    name = {"inception": "inc"}.get(network, network.replace("/", "_"))
    return f"{name}-{layers.replace(',', '+')}" if layers else name


def feature_file(backbone: str, out: Path | str | None) -> Path:
    """Where features go: `out`, or else into artifacts/ under the backbone's name.

    Raises:
        VbprError: `out` is named like an image: in a folder of images, the next run would take it for one.
    """
    path = Path(out) if out is not None else Path("artifacts") / f"{artifact_name(backbone)}.h5"
    if is_image_name(path.name):
        raise VbprError(f"--out {path} is named like an image; give a name that ends in .h5")
    return path


def request_of(
    backbone: str, weights: Path | str | None, random_weights: bool, precision: str, cae: dict[str, Any]
) -> dict[str, Any]:
    """All that decides what the features of an image are, as far as it is known without loading the model.

    Args:
        cae: the options that the autoencoder is trained with, where it is.
    """
    file = None if weights is None else Path(os.path.realpath(weights))  # a link to itself stays as it is
    own = find_own(BACKBONE_GROUP, backbone)
    status = file.stat() if file is not None and file.is_file() else None
    return {
        "backbone": backbone,
        "weights_file": None if file is None else str(file),
        "weights_size": status and status.st_size,
        "weights_time": status and status.st_mtime_ns,
        "random_weights": random_weights,
        "precision": precision,
        "versions": {name: importlib.metadata.version(name) for name in ("vbpr", "torch", "timm", "pillow")},
        **({"cae": cae} if cae else {}),
        **({} if own is None else {"own": own.told()}),
    }


def up_to_date(
    path: Path,
    request: dict[str, Any],
    data: Dataset,
    source: ImageSource,
    signatures: Array,
    verify: bool,
    told: dict[str, Any],
) -> FeatureStore | None:
    """The feature file, if this very request has been carried out on these very images; else None.

    Args:
        verify: compare its rows with their digests, too.
        told: what else it records: see `TOLD`.
    """
    if not path.is_file():
        return None
    store = FeatureStore(path)
    made, asked = store.provenance, told | {"request": request, "data": data.name}
    same = all(made.get(name) == asked.get(name) for name in ("request", *TOLD))
    same = same and store.holds(source.item_ids, store.remembered(source.item_ids, signatures))
    # What failed for a passing reason is looked at again, unless it still is not there (signature 0).
    failed = {item for item, reason in store.failures() if reason in PASSING}
    again = bool(failed) and np.isin(store.item_ids[store.signature != 0], list(failed)).any()
    # Nor is it done with a row pending, or where a kill came between the last row and its digest.
    finished = same and not again and store.sealed_rows() == len(store)
    return store if finished and not (verify and store.verify()) else None


__all__ = [
    "How",
    "artifact_name",
    "check_names",
    "check_options",
    "feature_file",
    "placed",
    "recorded_place",
    "request_of",
    "up_to_date",
    "with_layers",
]
