"""What an engine runs: a backbone that takes raw pixels, whole or in parts."""

import copy
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ...data.images.source import Pixels
from ...networks.backbone import Backbone

CPU = torch.device("cpu")
Features = np.ndarray[Any, np.dtype[np.float32]]


class Scaled(nn.Module):
    """A backbone that takes raw pixels: (n, size, size, 3) uint8, scaled inside the graph; its weights in `dtype`."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, backbone: Backbone, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.module = copy.deepcopy(backbone.module).to(dtype)  # the backbone's own stays where and what it is
        mean, std = torch.tensor(backbone.preprocessing.mean) * 255, torch.tensor(backbone.preprocessing.std) * 255
        self.register_buffer("shift", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", std.view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = (pixels.permute(0, 3, 1, 2).float() - self.shift) / self.scale
        return self.module(scaled.to(self.dtype)).float()  # type: ignore[no-any-return]


def channels_last(model: Scaled) -> Scaled:
    """The model, its convolutions' weights laid out with channels innermost; so are all maps that follow.

    Tensors of four dimensions only: the weights of convolutions in three, as LambdaNetworks have, know no such layout.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model


class Whole(nn.Module):
    """A function as a module without parts, so that tracing takes weights for constants.

    Of a module with parts torch first makes one in TorchScript, part by part, which takes longer than the tracing.
    """

    def __init__(self, model: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.model = [model]  # in a list, torch does not see it

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model[0](pixels)


class FixedSizes(TorchFunctionMode):
    """While a model is traced under it, resizes take their sizes as numbers, not as what the shape of the pixels gives:
    so a resize of constants is a constant, too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is nn.functional.interpolate and isinstance(kwargs.get("size"), list | tuple):
            kwargs["size"] = [int(side) for side in kwargs["size"]]
        return func(*args, **kwargs)


def traced(model: Scaled, example: torch.Tensor, folded: bool = False) -> torch.jit.ScriptModule:
    """A model in TorchScript, for pixels of the example's shape.

    What depends on no pixel, as position tables resized to the image, is computed here, once: OpenVINO's own constants
    of antialiased bicubic resizes are others (a cubic coefficient of -.75 where torch, and OpenVINO when it runs, have
    -.5).

    Args:
        folded: batch norms are folded into convolutions.
    """
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(Whole(model).eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        frozen: torch.jit.ScriptModule = torch.jit.freeze(made, optimize_numerics=folded)
        return frozen


class Runner(Protocol):
    """One engine on one device; see `Encoder` for what `batch`, `depth` and `start` mean."""

    batch: int
    depth: int

    def start(self, pixels: Pixels) -> Callable[[], Features]: ...


def in_parts(run: Callable[[Pixels], Features], pixels: Pixels, part: int) -> Features:
    """What `run`, which takes exactly `part` images, gives for these; the last part is filled up with black ones.

    On a CPU a step goes through the network a few images at a time: what a layer gives is then still in the caches
    when the next one reads it.
    """
    missing = -len(pixels) % part
    if missing:
        pixels = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])
    return np.concatenate([run(pixels[a : a + part]) for a in range(0, len(pixels), part)])[: len(pixels) - missing]


__all__ = ["CPU", "Features", "FixedSizes", "Runner", "Scaled", "channels_last", "in_parts", "traced"]
