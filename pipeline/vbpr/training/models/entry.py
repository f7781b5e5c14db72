"""What the table of models holds of each: how it is built, its own defaults, what it reads, what is tuned of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...base.own import Own
from ..config import TrainConfig
from ..model import Recommender

# A list: one of these. A pair: from, to; whole numbers give whole numbers. "log": equal ratios are equally likely.
Space = dict[str, list[Any] | tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Model:
    """An entry of MODELS.

    Attributes:
        build: (configuration, checkpoint path or None) -> something with `fit`.
        defaults: where this model departs from TrainConfig's defaults.
        reads: the fields that change this model.
        space: what `vbpr tune` searches, and over which range; empty: nothing.
        presets: further defaults by the name of a preset, which no other model has.
        visual: whether it reads features.
        images: whether it learns from the pictures themselves, which `fit` is given.
        own: where its code lies, of a model of one's own.
    """

    build: Callable[[TrainConfig, Path | None], Recommender]
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    reads: frozenset[str] = frozenset()
    space: Space = dataclasses.field(default_factory=dict)
    presets: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    visual: bool = False
    images: bool = False
    own: Own | None = None


__all__ = ["Model", "Space"]
