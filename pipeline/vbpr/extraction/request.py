"""What a run is asked for, and whether a feature file holds just that already."""

import importlib.metadata
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.files import artifact_name
from ..base.progress import console
from ..data.dataset import Dataset
from ..data.images.source import PASSING, ImageSource
from ..stores.features.store import FeatureStore


def check_names(data: Dataset, source: ImageSource) -> None:
    """Have it said before the work, not by `train` after it, where images are not called as the items are.

    Raises:
        VbprError: no item that anybody took has an image.
    """
    try:
        items = data.interactions().item_ids
    except VbprError:  # features need none; where they are wanted, what is wrong with them is said
        return
    pictured = int(np.isin(items, source.item_ids).sum())
    names = f"here {items[0]}, there {source.item_ids[0]}"
    if not pictured:
        raise VbprError(
            f"none of the {len(items):,} items in the interactions has an image in {source.name} ({names}); name each "
            "image after its item, or take the interactions away"
        )
    if pictured < len(items) / 2:
        console.print(f"note: {pictured:,} of the {len(items):,} items in the interactions have an image")


def feature_file(backbone: str, out: Path | str | None) -> Path:
    """Where features go: `out`, or else into artifacts/ under the backbone's name."""
    return Path(out) if out is not None else Path("artifacts") / f"{artifact_name(backbone)}.h5"


def request_of(backbone: str, weights: Path | str | None, random_weights: bool, precision: str) -> dict[str, Any]:
    """All that decides what the features of an image are, as far as it is known without loading the model."""
    file = None if weights is None else Path(os.path.realpath(weights))  # of a link to itself, that
    status = file.stat() if file is not None and file.is_file() else None
    return {
        "backbone": backbone,
        "weights_file": None if file is None else str(file),
        "weights_size": status and status.st_size,
        "weights_time": status and status.st_mtime_ns,
        "random_weights": random_weights,
        "precision": precision,
        "versions": {name: importlib.metadata.version(name) for name in ("vbpr", "torch", "timm", "pillow")},
    }


def up_to_date(
    path: Path, request: dict[str, Any], data: Dataset, source: ImageSource, signatures: Array
) -> FeatureStore | None:
    """The feature file, if this very request has been carried out on these very images; else None."""
    if not path.is_file():
        return None
    store = FeatureStore(path)
    known = store.remembered(source.item_ids, signatures)
    same = (store.provenance.get("request"), store.provenance["data"]) == (request, data.name)
    same = same and store.holds(source.item_ids, known)
    # What failed for a passing reason is looked at again, unless it still is not there (signature 0).
    failed = {item for item, reason in store.failures() if reason in PASSING}
    again = bool(failed) and np.isin(store.item_ids[store.signature != 0], list(failed)).any()
    # Nor is it done with a row pending, or where a kill came between the last row and its digest.
    return store if same and not again and store.sealed_rows() == len(store) else None


__all__ = ["check_names", "feature_file", "request_of", "up_to_date"]
