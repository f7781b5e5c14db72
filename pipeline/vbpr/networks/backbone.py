"""A frozen image model: a module, the preprocessing of its weights, and what identifies it."""

import dataclasses
import hashlib
from typing import Any

import timm.data.config
import torch
from torch import nn

from ..base.errors import VbprError
from .names import parted
from .prepare import Preprocessing
from .weights import state_digest


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A frozen image model.

    Attributes:
        name: as the user calls it.
        module: (n, 3, size, size) float32, scaled by `preprocessing` -> (n, dim) float32; in eval mode.
        preprocessing: from the weights' own configuration.
        dim: D.
        weights: where the weights came from, in words; "random" if they are untrained.
        digest: of the weights, 32 hexadecimal digits.
        layers: that are put side by side, with commas between them; "": the last alone.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    dim: int
    weights: str
    digest: str
    layers: str = ""

    @property
    def fingerprint(self) -> str:
        """The same for two backbones exactly when their features agree: weights, preprocessing and layers."""
        told = f"{self.digest} {self.preprocessing}" + f" {self.layers}" * bool(self.layers)
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()

    @property
    def network(self) -> str:
        """Its name without layers."""
        return parted(self.name)[0]


def finish(name: str, module: nn.Module, source: str, preprocessing: Preprocessing | None = None) -> Backbone:
    """Freeze a module, and name what identifies its features.

    Args:
        source: where the weights came from, in words.
        preprocessing: [default: that of timm's configuration of the module].

    Raises:
        VbprError: it does not give one vector an image, or wants images that are not square.
    """
    module = module.eval().requires_grad_(False)
    preprocessing = preprocessing or timm_preprocessing(module)
    shape = shape_of_features(module, preprocessing.size)
    if len(shape) != 1:
        raise VbprError(f"backbone {name} gives a {shape} map, not one vector an image; choose a model with pooling")
    return Backbone(name, module, preprocessing, shape[0], source, state_digest(module.state_dict()))


def shape_of_features(module: nn.Module, size: int) -> tuple[int, ...]:
    """The shape of one image's features, without the arithmetic where the module can be followed without it."""
    image = torch.zeros(1, 3, size, size)
    with torch.inference_mode():
        try:
            tensors = dict(module.named_parameters()) | dict(module.named_buffers())
            empty = {name: tensor.to("meta") for name, tensor in tensors.items()}
            # Without a look for tied weights, of which a layer that is there twice would keep the empty ones.
            features = torch.func.functional_call(module, empty, image.to("meta"), tie_weights=False)
        except Exception:  # tables outside the state, or values that decide what is computed
            features = module(image)
    return tuple(features.shape[1:])


def timm_preprocessing(module: nn.Module) -> Preprocessing:
    return preprocessing_of(timm.data.config.resolve_data_config({}, model=module))  # type: ignore[no-untyped-call]


def preprocessing_of(config: dict[str, Any]) -> Preprocessing:
    """timm's own evaluation preprocessing, of a data configuration that timm has resolved.

    Raises:
        VbprError: it is none that gives a square out of the middle of an image.
    """
    (_, height, width), mode = config["input_size"], config.get("crop_mode") or "center"
    if height != width or mode not in ("center", "squash"):
        raise VbprError(
            f"this backbone wants images of {width} x {height} pixels, cut to size by '{mode}'; choose one that takes "
            "squares, cut from the centre or squashed"
        )
    interpolation = config["interpolation"]
    if interpolation not in ("nearest", "bilinear", "bicubic"):  # as "random", which is for training
        interpolation = "bicubic"
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Preprocessing(width, float(config["crop_pct"]), interpolation, mean, std, mode == "squash")


__all__ = ["Backbone", "finish", "preprocessing_of", "shape_of_features", "timm_preprocessing"]
