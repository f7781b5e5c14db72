"""Tensors by name: read from files that hold nothing else, loaded by name and shape, and their digest."""

import hashlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from ..base.errors import VbprError, first_line

State = dict[str, torch.Tensor]


def read_weights(path: Path) -> State:
    """Tensors by name from a safetensors file or a tensors-only .pt/.pth.

    Raises:
        VbprError: no such file, not of tensors only, or with values that are not finite.
    """
    if not path.is_file():
        raise VbprError(f"{path} is no file; --weights takes a .safetensors file, or a .pt of tensors only")
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError, ImportError) as error:
        raise VbprError(f"{path} is not a readable weights file ({first_line(error)[:120]})") from error
    except Exception as error:  # pickle.UnpicklingError and whatever a hostile pickle provokes
        raise VbprError(f"{path} holds more than tensors and is refused; convert it to safetensors") from error
    for name in ("state_dict", "model"):  # as checkpoints of trainings wrap it
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not state or not all(map(is_plain, state.keys(), state.values())):
        raise VbprError(f"{path} is not a table of dense tensors by name; save the model's state_dict")
    numbers = {key.removeprefix("module."): v.float() if v.is_floating_point() else v for key, v in state.items()}
    if not all(torch.isfinite(v).all() for v in numbers.values()):
        raise VbprError(f"{path} holds values that are not finite; fetch it again")
    return decisive(numbers)


def decisive(state: State) -> State:
    """The tensors that features depend on: all but the counters of batch norms."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def is_plain(key: Any, value: Any) -> bool:
    """Whether this is a name, and a tensor whose numbers are all there and mean what they say."""
    tensor = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return isinstance(key, str) and tensor and not value.is_quantized


def load_strictly(module: nn.Module, state: State, path: Path) -> None:
    """Load every tensor by name and shape; only a classifier, which features do not need, may be left over.

    Raises:
        VbprError: names or shapes differ.
    """
    config = getattr(module, "pretrained_cfg", {})
    heads = config.get("classifier") or ()
    prefixes = (*(f"{head}." for head in ([heads] if isinstance(heads, str) else heads)), "AuxLogits.")
    wanted = decisive(module.state_dict())
    state = {key: value for key, value in state.items() if key in wanted or not key.startswith(prefixes)}
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        raise VbprError(
            f"{path} does not fit the backbone: it lacks {len(missing)} of its {len(wanted)} tensors"
            f"{' (' + missing[0] + ')' if missing else ''} and has {len(extra)} others"
            f"{' (' + extra[0] + ')' if extra else ''}; give the weights of this very model"
        )
    for key, tensor in state.items():
        expected = wanted[key]
        if (tensor.shape, tensor.is_floating_point()) != (expected.shape, expected.is_floating_point()):
            raise VbprError(
                f"{path} does not fit the backbone: {key} is {tuple(tensor.shape)} {tensor.dtype}, expected "
                f"{tuple(expected.shape)} {expected.dtype}"
            )
    module.load_state_dict(state, strict=False)


def state_digest(state: State) -> str:
    """A digest of tensors by name."""
    total = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(decisive(state).items()):
        numbers = tensor.detach().contiguous().cpu()
        total.update(f"{key} {numbers.dtype} {tuple(numbers.shape)}".encode())
        total.update(numbers.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


__all__ = ["State", "decisive", "load_strictly", "read_weights", "state_digest"]
