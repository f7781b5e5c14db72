"""Frozen image models: pixels in, one pooled feature vector out, with the preprocessing that their weights came with.

backbone = load_backbone("inception", weights="inception_v3.safetensors")

`BACKBONES` are those with names of our own, each a file and a line here. The table is not in the folder's `__init__`,
because timm, which takes a second to import, would then come with every module of the folder.
"""

from collections.abc import Callable
from pathlib import Path

import timm

from ..base.errors import VbprError, near, some
from .backbone import Backbone
from .cae import cae
from .inception import inception
from .layers import of_layers
from .lite0 import lite0
from .timm_models import timm_backbone


def load_backbone(name: str, weights: Path | str | None = None, random_weights: bool = False) -> Backbone:
    """Build a backbone: an entry of `BACKBONES`, or any timm model name or name.tag, and `:LAYERS` of `layers.py`.

    Args:
        weights: a safetensors file, or a .pt/.pth that holds tensors only.
        random_weights: untrained weights (seed 0), when that is what is wanted.

    Raises:
        VbprError: unknown name or layer, unreachable or unfitting weights.
    """
    if weights is not None and random_weights:
        raise VbprError("--weights and --random-weights exclude each other; give one")
    name, _, layers = name.partition(":")
    build = BACKBONES.get(name)
    if build is None and not timm.is_model(name.split(".")[0]):
        names = [*BACKBONES, *timm.list_models()]
        raise VbprError(
            f"no backbone is called '{name}'{hint(name, names)}; choose from {', '.join(BACKBONES)} or any "
            "timm model (timm.list_models())"
        )
    backbone = (build or timm_backbone)(name, None if weights is None else Path(weights), random_weights)
    return of_layers(backbone, layers) if layers else backbone


def hint(name: str, names: list[str]) -> str:
    """A hint for a mistyped name: names that begin with it, else names that look like it."""
    longer = [other for other in names if other.startswith(name.split(".")[0].casefold())]
    return f" (did you mean {some(longer)}?)" if longer and name else near(name, names)


BACKBONES: dict[str, Callable[[str, Path | None, bool], Backbone]] = {
    "inception": inception,
    "lite0": lite0,
    "cae": cae,
}

__all__ = ["BACKBONES", "load_backbone"]
