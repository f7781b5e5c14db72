"""What made a feature file, as the file itself records it: backbone, weights, preprocessing, precision, versions, data.

It holds no times: two runs of one request on the same images make the same bytes.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.dataset import Dataset
from ..data.images.source import REASONS
from ..stores.features.store import FeatureStore
from .shared import SHARED

if TYPE_CHECKING:
    from ..networks.backbone import Backbone


def provenance_of(
    model: "Backbone",
    request: dict[str, Any],
    data: Dataset,
    weights: Path | str | None,
    rounding: str,
    fallback: str,
    told: dict[str, Any],
) -> dict[str, Any]:
    """The provenance of features that `model` makes of the images of a data set.

    Args:
        request: see `request_of`.
        weights: the file that the weights were read from.
        rounding: the engine, and on which kind of device it runs. Fast engines round in their own ways, by up to 3% of
            a vector: a file keeps to one of them. In exact precision they agree, and it is not recorded.
        fallback: why another engine runs than the one that was asked for; "" where it is that one.
        told: what else is recorded: see `TOLD`.
    """
    precision, fast = request["precision"], request["precision"] == "fast"
    return {
        "backbone": model.name,
        "weights": model.weights,
        "weights_digest": model.digest,
        "weights_file": None if weights is None else os.path.realpath(weights),
        "dim": model.dim,
        **({"layers": model.layers} if model.layers else {}),
        "preprocessing": str(model.preprocessing),
        "precision": precision,
        **({"engine": rounding} if fast else {}),
        **({"fallback": fallback} if fallback else {}),
        "fingerprint": f"{model.fingerprint} {precision}" + f" {rounding}" * fast,
        "size": model.preprocessing.size,
        "data": data.name,
        "simulated": data.simulated,
        "reasons": [*REASONS, *([SHARED] if "max_shared" in told else []), "other"],
        "versions": request["versions"],
        "request": request,
        **({"own": request["own"]} if "own" in request else {}),
        **told,
    }


def recorded_fallback(path: Path) -> str:
    """Why a feature file was made by torch instead of the engine asked for; "" where it was not, or is not there."""
    return str(FeatureStore(path).provenance.get("fallback", "")) if path.exists() else ""


__all__ = ["provenance_of", "recorded_fallback"]
