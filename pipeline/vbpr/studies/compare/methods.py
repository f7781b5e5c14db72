"""The methods of a comparison, by name, and the options that it is run with."""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...base import own
from ...base.errors import VbprError
from ...data.dataset import Dataset
from ...data.split import SplitConfig
from ...extraction.request import artifact_name
from ...stores.features.store import FeatureStore
from ...training.config import TrainConfig
from ...training.configure import configure
from ...training.models import MODELS, named
from ...training.models.dvbpr.network import build


@dataclasses.dataclass(frozen=True)
class Options:
    """How a comparison is run.

    Attributes:
        seeds: runs of each trained method; the figures of each user are averaged over them.
        weights: weights files by name of the backbone.
        random_weights: whether backbones without a file are untrained; the table says so.
        dvbpr: fields of TrainConfig for dvbpr and dvbpr-efficient.
        cae: arguments of `train_autoencoder`.
        published: whether to use the published protocols, too; None: where the data set is recognised.
        split: how interactions are held out.
        device: as in `vbpr train --device`.
        fitted: model files of the same split by the name of their row: tuned, or made elsewhere.
    """

    seeds: int = 1
    weights: dict[str, Path] = dataclasses.field(default_factory=dict)
    random_weights: bool = False
    dvbpr: dict[str, Any] = dataclasses.field(default_factory=dict)
    cae: dict[str, Any] = dataclasses.field(default_factory=dict)
    published: bool | None = None
    split: SplitConfig = SplitConfig()
    device: str = "auto"
    fitted: dict[str, Path] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table: a model, and the backbone whose features it reads (empty: none)."""

    name: str
    model: str
    backbone: str
    preset: str = "default"


def methods_of(names: Sequence[str]) -> list[Method]:
    """Methods by name; models that read features get the first backbone's.

    Raises:
        VbprError: no name, two of one method, or a model that needs features where no backbone is named.
    """
    names = [name.strip() for name in names if name.strip()]
    if not names or len(set(names)) < len(names):
        raise VbprError("--models takes distinct names, as in --models dvbpr,cae,inception,popularity")
    models = {**{name: name for name in (*MODELS, *own.plugins(own.MODEL_GROUP))}, "dvbpr-efficient": "dvbpr"}
    models |= {name: name for name in names if own.is_own(name) and hasattr(own.load_own(name).value, "fit")}
    backbones = [name for name in names if name not in models]
    out = []
    for name in names:
        if name not in models:
            out.append(Method(name, "visual", name))
            continue
        visual = named(models[name]).visual
        if visual and not backbones:
            raise VbprError(f"--models {name} reads features; name a backbone too, as in --models lite0,{name}")
        preset = "efficient" if name == "dvbpr-efficient" else "default"
        out.append(Method(name, models[name], backbones[0] if visual else "", preset))
    for one, other in itertools.combinations(out, 2):
        if dataclasses.replace(one, name=other.name) == other:
            raise VbprError(f"--models {one.name} and {other.name} are one method; leave one out")
    return out


def check_methods(data_sets: Sequence[Dataset], methods: list[Method], folder: Path, options: Options) -> None:
    """Refuse wrong names and missing weights before the first method is trained. Finished cells need none.

    Raises:
        VbprError: a backbone, its weights or a network that a method still needs cannot be had.
    """
    from ...networks.cae_training import identity_for
    from ...networks.registry import load_backbone

    def missing(files: str) -> bool:
        return not all(any((folder / slug(data)).glob(files)) for data in data_sets)

    for name in dict.fromkeys(method.backbone for method in methods if method.backbone):
        weights, untrained = weights_of(name, options)
        if name == "cae" and weights is None:
            identity_for(**options.cae)
        elif missing(f"{artifact_name(name)}.h5"):
            load_backbone(name, weights, untrained)
    for method in methods:
        if MODELS[method.model].images and missing(f"{artifact_name(method.name)}.0.??????.json"):
            build(config_of(method, options, None))


def weights_of(backbone: str, options: Options) -> tuple[Path | None, bool]:
    """The weights file of a backbone, and whether it is to be untrained."""
    weights = options.weights.get(backbone)
    return weights, options.random_weights and weights is None and backbone != "cae"


def slug(data: Dataset) -> str:
    """The name of a data set's folder of cells."""
    name = re.sub(r"[^a-z0-9]+", "-", data.title.lower()).strip("-")
    return f"{name}-{hashlib.blake2b(data.name.encode(), digest_size=3).hexdigest()}"


def config_of(method: Method, options: Options, features: FeatureStore | None) -> TrainConfig:
    """A method's training options: its preset, no wider than the features, and what is given for dvbpr."""
    given = options.dvbpr if method.model == "dvbpr" else {}
    widest = None if features is None else features.dim
    return configure(method.model, method.preset, widest=widest, device=options.device, **given)


__all__ = ["Method", "Options", "check_methods", "config_of", "methods_of", "slug", "weights_of"]
