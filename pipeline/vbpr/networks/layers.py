"""Features of other layers than the last: maps of a network's stages, each averaged over its positions, side by side.

load_backbone("lite0:blocks.2,blocks.4,final")

A layer is called as timm calls the module of a stage (`feature_info`); `final` is what the network gives by itself,
pooled in its own way, and `all` is every stage and `final`. timm's `forward_intermediates` makes maps (n, C, height,
width) of all of them; class tokens of a transformer are no positions, and are left out.
"""

import dataclasses

import torch
from torch import nn

from ..base.errors import VbprError
from .backbone import Backbone, shape_of_features

FINAL, ALL = "final", "all"


class Layers(nn.Module):
    """A timm model that gives (n, D) of several of its layers."""

    def __init__(self, module: nn.Module, layers: list[str], stages: list[str]) -> None:
        super().__init__()
        self.module, self.layers = module, layers
        self.indices = sorted(stages.index(layer) for layer in layers if layer != FINAL)
        self.places = {stages[index]: place for place, index in enumerate(self.indices)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last, maps = self.module.forward_intermediates(x, indices=self.indices, output_fmt="NCHW")  # type: ignore[operator]
        means = [each.mean((2, 3)) for each in maps]
        pooled = self.module.forward_head(last) if FINAL in self.layers else last  # type: ignore[operator]
        return torch.cat([pooled if layer == FINAL else means[self.places[layer]] for layer in self.layers], 1)


def of_layers(backbone: Backbone, asked: str) -> Backbone:
    """The same network, of whose layers these are taken: names with commas between them.

    Raises:
        VbprError: it has no such layer, or none to choose from.
    """
    stages = stages_of(backbone)
    layers = [*stages, FINAL] if asked == ALL else asked.split(",")
    unknown = next((layer for layer in layers if layer not in (*stages, FINAL)), None)
    if unknown is not None or len(set(layers)) < len(layers):
        wrong = f"has no layer '{unknown}'" if unknown is not None else "gives each layer once"
        raise VbprError(
            f"--layer {asked}: {backbone.name} {wrong}; choose from {', '.join((*stages, FINAL))}, several with commas "
            f"between them, or {ALL}"
        )
    module = Layers(backbone.module, layers, stages).eval()
    (dim,) = shape_of_features(module, backbone.preprocessing.size)
    return dataclasses.replace(
        backbone, name=f"{backbone.name}:{asked}", module=module, dim=dim, layers=",".join(layers)
    )


def stages_of(backbone: Backbone) -> list[str]:
    """What timm calls the stages of a network, the first one first.

    Raises:
        VbprError: it tells of none.
    """
    module = backbone.module
    info = getattr(module, "feature_info", None)
    if info is None or not hasattr(module, "forward_intermediates"):
        raise VbprError(f"--layer: {backbone.name} has no layers to choose from; leave it out")
    return [stage["module"] for stage in getattr(info, "info", info)]


__all__ = ["of_layers"]
