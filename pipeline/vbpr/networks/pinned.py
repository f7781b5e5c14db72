"""Short names for timm's models, each with the tag of its weights: so a name means the same features everywhere."""

from collections.abc import Callable
from pathlib import Path

from .backbone import Backbone
from .timm_models import timm_backbone

PINNED = {
    "inception": "inception_v3.tf_in1k",  # Szegedy et al., 2016, as the report of 2021 has it: 299 px, 2048 numbers
    "dinov3": "vit_small_patch16_dinov3.lvd1689m",  # Simeoni et al., 2025: 256 px, 384 numbers
    "siglip2": "vit_base_patch16_siglip_224.v2_webli",  # Tschannen et al., 2025: 224 px, 768 numbers
}


def pinned(model_name: str) -> Callable[[str, Path | None, bool], Backbone]:
    """A builder of that model, as `load_backbone` calls it."""
    return lambda name, weights, random_weights: timm_backbone(name, weights, random_weights, model_name)


__all__ = ["PINNED", "pinned"]
