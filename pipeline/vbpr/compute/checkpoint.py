"""Where a training stands, in one safetensors file that survives a kill: written completely or not at all.

write_checkpoint(path, {"p/theta": theta}, identity, step=12); tensors, about = read_checkpoint(path, identity)
"""

import glob
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from ..base.files import replacing


def checkpoint_of(path: Path) -> Path:
    """Where the training of what is going to be `path` keeps its state."""
    return path.with_name(f".{path.name}.checkpoint")


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], identity: Any, **about: Any) -> None:
    """Write tensors, and JSON values about them, under the identity of the run (a JSON value).

    As safetensors has it: the length of a header, the header, and each tensor's bytes, which go to the file as they lie
    in memory: a library's writer would first copy all of them.
    """
    header: dict[str, Any] = {"__metadata__": {"about": json.dumps(about | {"identity": identity})}}
    end = 0
    for name, value in tensors.items():
        begin, end = end, end + value.nbytes
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in tensors.values():
            file.write(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}


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
