"""Frozen image models: pixels in, one pooled feature vector out, with the preprocessing that their weights came with.

backbone = load_backbone("inception", weights="inception_v3.safetensors")

`BACKBONES` are those with names of our own, each a file and a line here, or a line of `PINNED`. The table is not in the
folder's `__init__`, because timm, which takes a second to import, would then come with every module of the folder.
"""

from collections.abc import Callable
from pathlib import Path

import timm

from ..base import own
from ..base.errors import VbprError, near, some
from .backbone import Backbone
from .cae import cae
from .layers import of_layers
from .lite0 import lite0
from .names import parted
from .own import find_backbone, own_backbone
from .pinned import PINNED, pinned
from .timm_models import timm_backbone


def load_backbone(name: str, weights: Path | str | None = None, random_weights: bool = False) -> Backbone:
    """Build a backbone: an entry of `BACKBONES`, or any timm model name or name.tag, and `:LAYERS` of `layers.py`;
    FILE.py:NAME of one's own, or a plug-in.

    Args:
        weights: a safetensors file, or a .pt/.pth that holds tensors only.
        random_weights: untrained weights (seed 0), when that is what is wanted.

    Raises:
        VbprError: unknown name or layer, unreachable or unfitting weights, or code of one's own that fails.
    """
    return built(name, weights, random_weights, run=True)


def recorded_backbone(name: str, weights: Path | str | None = None, random_weights: bool = False) -> Backbone:
    """`load_backbone` for a name that a file records, which runs no FILE.py: such code counts if this process has named
    it before."""
    return built(name, weights, random_weights, run=False)


def built(name: str, weights: Path | str | None, random_weights: bool, run: bool) -> Backbone:
    if weights is not None and random_weights:
        raise VbprError("--weights and --random-weights exclude each other; give one")
    file, (network, layers) = None if weights is None else Path(weights), parted(name)
    build = BACKBONES.get(network)
    if not own.is_own(name) and (build is not None or timm.is_model(network.split(".")[0])):
        backbone = (build or timm_backbone)(network, file, random_weights)
        return of_layers(backbone, layers) if layers else backbone
    found = find_backbone(name, run)
    if found is None:
        known = [*BACKBONES, *own.plugins(own.BACKBONE_GROUP)]
        names = [*known, *timm.list_models()]
        raise VbprError(
            f"no backbone is called '{network}'{hint(network, names)}; choose from "
            f"{', '.join(known)}, any timm model (timm.list_models()), or give FILE.py:NAME"
        )
    return own_backbone(found, file, random_weights)


def hint(name: str, names: list[str]) -> str:
    """A hint for a mistyped name: names that begin with it, else names that look like it."""
    longer = [other for other in names if other.startswith(name.split(".")[0].casefold())]
    return f" (did you mean {some(longer)}?)" if longer and name else near(name, names)


BACKBONES: dict[str, Callable[[str, Path | None, bool], Backbone]] = {
    **{name: pinned(model_name) for name, model_name in PINNED.items()},
    "lite0": lite0,
    "cae": cae,
}

__all__ = ["BACKBONES", "load_backbone", "recorded_backbone"]
