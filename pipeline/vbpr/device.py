"""Which processor does the work. Apart from the backbones, whose libraries take longer to import than a fit takes."""

import torch

from .errors import VbprError


def pick_device(device: str) -> torch.device:
    """auto, cpu, cuda or cuda:N as a torch device.

    Raises:
        VbprError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise VbprError(f"--device {device} is not known; choose auto, cpu, cuda or cuda:N") from error
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0  # a driver too old has devices and no use
    if chosen.type == "cuda" and (chosen.index or 0) >= usable:
        raise VbprError(f"--device {device}: this machine has {usable} usable GPUs; choose cpu or auto")
    if chosen.type not in ("cpu", "cuda"):
        raise VbprError(f"--device {device} is not supported; choose auto, cpu, cuda or cuda:N")
    return chosen


__all__ = ["pick_device"]
