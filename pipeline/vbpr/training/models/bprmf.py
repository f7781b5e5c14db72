"""BPR matrix factorisation (Rendle et al. 2009): latent factors alone, no images, uniform negatives; see `bpr.bpr`."""

from typing import Any

from ..config import fields_of
from .bpr.bpr import BPR
from .entry import Model, Space

DEFAULTS: dict[str, Any] = {
    "dim": 0,
    "factors": 64,
    "item_bias": True,
    "visual_bias": False,
    "history": False,
    "whiten": 0.0,
    "negatives": "uniform",
    "epochs": 20,
    "batch": 1024,
    "per_user": 1,
    "least_steps": 0,
    "lr": 0.04,
    "shrink": 8.0,
    "reg_users": 0.045,
    "reg_items": 0.03,
    "reg_bias": 0.02,
}
READS = fields_of("steps", "shared", "latent", "bias", "shards")
SPACE: Space = {
    "factors": (16, 256, "log"),
    "shrink": (0.0, 20.0),
    "epochs": (3, 30, "log"),
    "lr": (3e-3, 0.1, "log"),
    "reg_users": (1e-3, 0.3, "log"),
    "reg_items": (1e-3, 0.3, "log"),
    "reg_bias": (1e-4, 0.1, "log"),
}
MODEL = Model(BPR, DEFAULTS, READS, SPACE)

__all__ = ["DEFAULTS", "MODEL"]
