"""Whether something of one's own keeps the contract of a model or of a backbone."""

from collections.abc import Iterator
from pathlib import Path

from ...base.own import MODEL_GROUP, is_own, load_own, plugins
from ...networks.registry import BACKBONES
from ...training.models import MODELS
from .backbones import check_backbone
from .finding import Finding
from .models import check_model


def check(name: str, weights: Path | None = None, random_weights: bool = False) -> tuple[str, Iterator[Finding]]:
    """What it is (model or backbone), and the findings as they are made.

    Args:
        name: FILE.py:NAME, whose code is run; or the name of a model, a backbone or a plug-in.
        weights, random_weights: of a backbone; see `load_backbone`.

    Raises:
        VbprError: there is no such thing, or it cannot be built.
    """
    if is_own(name):
        model = hasattr(load_own(name).value, "fit")
    else:
        model = name in MODELS or (name not in BACKBONES and name in plugins(MODEL_GROUP))
    return ("model", check_model(name)) if model else ("backbone", check_backbone(name, weights, random_weights))


__all__ = ["check"]
