"""What an extraction will take, told after ten pictures: features an image, bytes of the file, images a second.

plan(Dataset.resolve("data"), "inception").rate
"""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import VbprError
from ..data.dataset import Dataset
from ..data.images.source import BadImage
from .request import check_options, with_layers
from .workers import begun

PICTURES = 10


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known before the work.

    Attributes:
        backbone: its name. dim: D. images: of the data set. bytes: of the feature file, about. engine: that will run.
        fallback: why it is another than was asked for; "" where it is that one.
        rate: images a second, reckoned from a few pictures that were decoded and encoded.
    """

    backbone: str
    dim: int
    images: int
    bytes: int
    engine: str
    fallback: str
    rate: float

    @property
    def seconds(self) -> float:
        """Of the whole extraction."""
        return self.images / self.rate


def plan(
    data: Dataset | Path | str,
    backbone: str = "inception",
    *,
    weights: Path | str | None = None,
    random_weights: bool = False,
    device: str = "auto",
    precision: str = "exact",
    engine: str = "auto",
    batch: int | None = None,
    threads: int | None = None,
    layer: str | None = None,
) -> Plan:
    """Decode and encode `PICTURES` pictures of a data set as `extract` would, and write nothing.

    Raises:
        VbprError: see `extract`; or `cae` without weights, which would have to be trained first.
    """
    check_options(precision, 0.05, batch, threads, "mean", None)
    backbone = with_layers(backbone, layer)
    if backbone == "cae" and weights is None and not random_weights:
        raise VbprError("--plan: cae is trained on the images first, which takes most of its time; give --weights")
    from ..networks.prepare import prepare
    from ..networks.registry import load_backbone

    source = Dataset.resolve(data).images()
    model = load_backbone(backbone, weights, random_weights)
    how = model.preprocessing
    encoder, fallback, _ = begun(model, source, engine, device, precision, batch, None, len(source))
    pictures: list[Any] = []
    spent = 0.0  # on decoding
    for row in np.unique(np.linspace(0, len(source) - 1, PICTURES).astype(int)):
        started = time.perf_counter()
        try:
            pictures.append(prepare(source.read(int(row)), how))
        except BadImage:
            continue
        spent += time.perf_counter() - started
    if not pictures:
        raise VbprError(f"none of the {PICTURES} pictures that were tried could be used; run without --plan")
    many = encoder.batch * (encoder.depth + 1)  # so that the engine is as busy as it will be
    pixels = np.stack([pictures[n % len(pictures)] for n in range(many)])
    started = time.perf_counter()
    encoder(pixels)
    each = (time.perf_counter() - started) / many + spent / len(pictures) / (threads or len(os.sched_getaffinity(0)))
    size = len(source) * (2 * model.dim + 10 + source.item_ids.dtype.itemsize // 4)
    return Plan(backbone, model.dim, len(source), size, encoder.engine, fallback, 1 / each)


__all__ = ["Plan", "plan"]
