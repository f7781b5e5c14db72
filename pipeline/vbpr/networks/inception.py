"""InceptionV3 (Szegedy et al. 2016) with the paper authors' weights: 299 px, pooled 2048 numbers."""

from pathlib import Path

from .backbone import Backbone
from .timm_models import timm_backbone


def inception(name: str, weights: Path | None, random_weights: bool) -> Backbone:
    """See `load_backbone`."""
    return timm_backbone(name, weights, random_weights, "inception_v3.tf_in1k")


__all__ = ["inception"]
