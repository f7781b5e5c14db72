"""Models of one's own: a class in a file that a person names, or of an installed package.

A class has `fit` as `Recommender` has it, is built like every model with (configuration, checkpoint or None), and says
in its attributes what an entry of MODELS says: `defaults`, `reads`, `space`, `presets`, `visual`, `images`.
"""

import dataclasses
import functools
import inspect
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import VbprError, near
from ...base.own import MODEL_GROUP, Own, find_own, naming_lines
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import OPTIONS, TrainConfig
from ..item_features import ItemFeatures
from .entry import Model

TOLD = tuple(f.name for f in dataclasses.fields(Model) if f.name not in ("build", "own"))
SET_BY_VBPR = ("model", "identity")


class Guarded:
    """A model of one's own at work: what goes wrong in it names its line, and what it returns is looked at."""

    def __init__(self, own: Own, config: TrainConfig, checkpoint: Path | None = None) -> None:
        self.own = own
        with naming_lines(own.file):
            self.model = own.value(config, checkpoint)

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            VbprError: its code fails, or it returns something else.
        """
        with naming_lines(self.own.file):
            factors = self.model.fit(split, features, images)
        if not isinstance(factors, Factors):
            raise VbprError(
                f"{self.own.title}: fit returned {type(factors).__name__}; it must return "
                "vbpr.factors_of(split, users, items)"
            )
        for name in ("user_ids", "item_ids"):
            if not np.array_equal(getattr(factors, name), getattr(split, name)):
                raise VbprError(f"{self.own.title}: fit returned other {name} than the split has, in its order")
        return factors


def find_model(name: str) -> Model | None:
    """The model that a person names: of FILE.py:NAME, whose code is run, or of an installed package; None: neither.

    Raises:
        VbprError: there is no such file or class, its code fails, or its attributes are no model's.
    """
    own = find_own(MODEL_GROUP, name)
    return None if own is None else model_of(own)


@functools.cache
def model_of(own: Own) -> Model:
    """The entry of a class of one's own.

    Raises:
        VbprError: naming the attribute that is wrong.
    """
    cls = own.value
    if not inspect.isclass(cls) or not callable(getattr(cls, "fit", None)):
        raise VbprError(f"{own.title} is no model: give a class with fit(split, features, images)")
    told = {name: getattr(cls, name) for name in TOLD if hasattr(cls, name)}
    kinds: dict[str, Any] = {"defaults": dict, "reads": (set, frozenset, list, tuple), "space": dict, "presets": dict}
    for name, value in told.items():
        if not isinstance(value, kinds.get(name, bool)):
            raise VbprError(f"{own.title}: {name} is {value!r:.60}; {WORDS[name]}")
    told["reads"] = frozenset(told.get("reads", ()))
    check_names(own, told)
    if told.get("images") and told.get("space"):
        raise VbprError(f"{own.title}: a model that learns from pictures cannot be tuned; take its space away")
    return Model(functools.partial(Guarded, own), **told, own=own)


WORDS = {
    "defaults": "it must be a dict of options, as {'dim': 32}",
    "reads": "it must be a set of names of options, as {'dim', 'seed'}",
    "space": "it must be a dict of ranges, as {'dim': (8, 128, 'log')}",
    "presets": "it must be a dict of dicts of options, as {'small': {'dim': 8}}",
    "visual": "it must be True or False",
    "images": "it must be True or False",
}


def check_names(own: Own, told: dict[str, Any]) -> None:
    """Refuse options that training does not have, or that have no such value."""
    choices = [name for name in OPTIONS if name not in SET_BY_VBPR]
    presets = told.get("presets", {})
    groups = {"reads": dict.fromkeys(told["reads"]), **{k: told.get(k, {}) for k in ("defaults", "space")}}
    for where, names in (groups | {f"presets[{preset!r}]": values for preset, values in presets.items()}).items():
        for name in names:
            if name not in choices:
                raise VbprError(
                    f"{own.title}: {where} has {name!r}, which is no option of training{near(str(name), choices)}; the "
                    "table in docs/training.md has all of them"
                )
            if name not in told["reads"]:
                raise VbprError(f"{own.title}: {where} has {name!r}, which is not in reads; add it there")
    for where, values in {"defaults": told.get("defaults", {}), **presets}.items():
        checked(own, where, values)
    for name, ends in told.get("space", {}).items():
        if not isinstance(ends, list | tuple) or len(ends) < 2 or set(ends[2:]) - {"log"}:
            raise VbprError(
                f"{own.title}: space has {name!r}: {ends!r:.60}; give a list, or (from, to), (from, to, 'log')"
            )
        for value in ends if isinstance(ends, list) else ends[:2]:
            checked(own, "space", {name: value})


def checked(own: Own, where: str, values: dict[str, Any]) -> None:
    try:
        for name, value in values.items():
            OPTIONS[name].check(value)
    except VbprError as error:
        raise VbprError(f"{own.title}: {where}: {error}") from error


__all__ = ["find_model", "model_of"]
