"""Backbones of one's own: a torch module in a file that a person names, or of an installed package.

A class is a `torch.nn.Module` that is built without arguments, gives one vector an image, and says in its attribute
`preprocessing` how it wants its pictures. What it starts with are its weights; `--weights FILE` loads others into it.
"""

import dataclasses
import inspect
from hashlib import blake2b
from pathlib import Path

from torch import nn

from ..base.errors import VbprError
from ..base.files import digest
from ..base.own import BACKBONE_GROUP, Own, find_own, is_own, known_own, naming_lines
from ..compute.device import seeded
from .backbone import Backbone, finish
from .prepare import Preprocessing
from .untrained import settle
from .weights import load_strictly, read_weights


def find_backbone(name: str, run: bool = True) -> Own | None:
    """The class that a person names: of FILE.py:NAME, whose code is run, or of an installed package; None: neither.

    Args:
        run: whether a file may be run; else it counts only if it was in this process.

    Raises:
        VbprError: there is no such file or class, or its code fails, or may not be run.
    """
    own = find_own(BACKBONE_GROUP, name) if run or not is_own(name) else known_own(BACKBONE_GROUP, name)
    if own is None and is_own(name):
        raise VbprError(
            f"{name} is a backbone of one's own, and a name in a file runs no code; call vbpr.load_backbone({name!r}) "
            "first, or install it as a plug-in (docs/own-model.md); --item and --liked need none"
        )
    return own


def own_backbone(own: Own, weights: Path | None, random_weights: bool) -> Backbone:
    """See `load_backbone`. Its digest is of the weights and of the text of the file: either decides features.

    Raises:
        VbprError: it is no such class, its code fails, or the weights do not fit.
    """
    cls = own.value
    how = getattr(cls, "preprocessing", None)
    if not inspect.isclass(cls) or not issubclass(cls, nn.Module):
        raise VbprError(f"{own.title} is no backbone: give a class that is a torch.nn.Module, built without arguments")
    if not isinstance(how, Preprocessing):
        raise VbprError(f"{own.title} has no preprocessing; give the class `preprocessing = vbpr.Preprocessing(...)`")
    with seeded(0), naming_lines(own.file):
        module = cls().eval()
        if random_weights:
            for layer in module.modules():
                if callable(reset := getattr(layer, "reset_parameters", None)):
                    reset()
            settle(module, how.size)
    source = "random" if random_weights else own.origin
    if weights is not None:
        load_strictly(module, read_weights(weights), weights)
        source = f"{weights.name}, {digest(weights)}"
    with naming_lines(own.file):
        made = finish(own.reference, module, source, how)
    both = blake2b(f"{made.digest} {own.digest}".encode(), digest_size=16).hexdigest()
    return dataclasses.replace(made, digest=both)


__all__ = ["find_backbone", "own_backbone"]
