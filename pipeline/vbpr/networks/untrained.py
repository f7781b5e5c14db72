"""Untrained networks that tell pictures apart, from a seed: `--random-weights`.

timm starts many networks in the belief that training will settle their batch norms: until it has, maps shrink or grow
from layer to layer, so that features vanish, overflow, or are the same for every picture. Such networks, and no others,
are started anew, or have the statistics of their batch norms measured on smooth noise.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

LARGEST = 1e4  # of a feature on noise; float16 ends at 65,504


def settle(module: nn.Module, size: int) -> None:
    """Mend an untrained network whose features say nothing; one that is fine stays as it is, to the bit.

    Args:
        size: pixels of a side.
    """
    with torch.inference_mode():
        features = module.eval()(torch.randn(1, 3, size, size))
    if not features.abs().max() < 1000:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    with torch.inference_mode():
        features = module(smooth_noise(2, size))
    if features.ndim == 2 and fault_of(features.numpy()):
        measure_batch_norms(module, smooth_noise(4, size))


def measure_batch_norms(module: nn.Module, images: Tensor) -> None:
    """Give every batch norm the statistics of these images, (n, 3, size, size), in one pass."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # no memory of earlier images
    with torch.inference_mode():
        module(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    module.eval()


def smooth_noise(n: int, size: int) -> Tensor:
    """(n, 3, size, size) of deviation 1: noise at five scales, as photographs have more of the coarse than of the fine.
    It takes numbers from torch's generator."""
    total = torch.zeros(n, 3, size, size)
    for side in (2, 4, 8, 16, 32):
        total += F.interpolate(torch.randn(n, 3, side, side), size=(size, size), mode="bicubic", align_corners=False)
    return total / total.std()


def fault_of(features: np.ndarray, largest: float = LARGEST) -> str:
    """What is wrong with (2, D) features of two different pictures, in words; nothing: ""."""
    if not np.isfinite(features).all() or np.abs(features).max() >= largest:
        return "are too large for float16"
    rounded = features.astype(np.float16)
    if not rounded.any():
        return "are all zero"
    return "are the same for different pictures" if np.array_equal(rounded[0], rounded[1]) else ""


__all__ = ["fault_of", "measure_batch_norms", "settle", "smooth_noise"]
