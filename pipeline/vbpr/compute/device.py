"""Which processor does the work, and how exactly; apart from the backbones, whose libraries take long to import."""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import torch

from ..base.errors import VbprError, first_line


def pick_device(device: str) -> torch.device:
    """auto, cpu, cuda or cuda:N as a torch device.

    Raises:
        VbprError: there is no such device, or torch cannot compute on it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and not fault(0) else "cpu")
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]?))?", device):  # torch takes cuda:256 for cuda:0
        raise VbprError(f"--device {device} is not known; choose auto, cpu, cuda or cuda:N")
    chosen = torch.device(device)
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0  # a driver too old has devices and no use
    if chosen.type == "cuda" and (chosen.index or 0) >= usable:
        raise VbprError(f"--device {device}: this machine has {usable} usable GPUs; choose cpu or auto")
    if chosen.type == "cuda" and (why := fault(chosen.index or 0)):
        raise VbprError(
            f"--device {device}: torch {torch.__version__} cannot compute there ({why}); choose cpu or auto"
        )
    return chosen


@functools.cache
def fault(index: int) -> str:
    """Why nothing can be computed on a GPU: it is too old or new for this torch, or in use by one program alone."""
    try:
        torch.zeros(1, device=f"cuda:{index}").add_(1).item()
    except RuntimeError as error:
        return first_line(error)
    return ""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: GPUs before Ampere and CPUs with no units for it imitate it."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported() or cpu_has("bf16")  # the latter on ARM


def dtype_for(precision: str, device: torch.device) -> torch.dtype:
    """What features are stored and multiplied in; `auto`: what the device is fast at. Sums and parameters are float32.

    Args:
        precision: auto, float32 or bfloat16.
    """
    bf16 = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(device))
    return torch.bfloat16 if bf16 else torch.float32


def cpu_has(unit: str) -> bool:
    """Whether the CPU has a unit, by torch's name for it; False where torch is too old to tell."""
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(told.get(unit))


@contextlib.contextmanager
def full_float32(measured: bool = True) -> Iterator[None]:
    """On a GPU, float32 is not rounded to TF32, whatever a program has set.

    Args:
        measured: whether cuDNN's algorithms are, once for each shape.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision
    cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision = measured, "ieee", "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision = before


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's own random numbers on the CPU from a seed, and as they were afterwards; GPUs are not touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


__all__ = ["cpu_has", "dtype_for", "fault", "full_float32", "multiplies_bfloat16", "pick_device", "seeded"]
