"""Where a training stands, in one safetensors file that survives a kill: written completely or not at all.

write_checkpoint(path, {"p/theta": theta}, identity, step=12); tensors, about = read_checkpoint(path, identity)
"""

import glob
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ..base.files import replacing


def checkpoint_of(path: Path) -> Path:
    """Where the training of what is going to be `path` keeps its state."""
    return path.with_name(f".{path.name}.checkpoint")


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], identity: Any, **about: Any) -> None:
    """Write tensors, and JSON values about them, under the identity of the run (a JSON value)."""
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    metadata = {"about": json.dumps(about | {"identity": identity})}
    with replacing(path) as temporary:
        safetensors.torch.save_file(copies, temporary, metadata)


def read_checkpoint(path: Path | None, identity: Any) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, about) of the checkpoint of this very run; None for a missing, damaged or foreign one: start anew."""
    if path is None or not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as handle:
            about = json.loads(handle.metadata()["about"])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    return (tensors, about) if about.pop("identity", None) == identity else None


def discard(path: Path) -> None:
    """Remove the checkpoint of a training whose result is safe, and those of its parts."""
    name = glob.escape(path.name)
    for pattern in (f"{name}*", f".{name}*.tmp", f".{name}*.probe"):  # the latter two: of a run killed while it wrote
        for leftover in path.parent.glob(pattern):
            leftover.unlink(missing_ok=True)


__all__ = ["checkpoint_of", "discard", "read_checkpoint", "write_checkpoint"]
