"""The two-stage visual ranker: BPR of a head on frozen features; see `bpr.bpr`."""

from typing import Any

from ..config import fields_of
from .bpr.bpr import BPR
from .dvbpr.dvbpr import PUBLISHED
from .entry import Model, Space

DEFAULTS: dict[str, Any] = {"popularity_share": 0.4}
READS = fields_of("steps", "shared", "head", "features", "history", "latent", "bias")
SPACE: Space = {
    "dim": (16, 256, "log"),
    "whiten": (0.0, 1.0),
    "axes": [0, 256, 512, 1024],
    "epochs": (2, 12),
    "lr": (1e-3, 0.1, "log"),
    "reg_users": (1e-3, 0.3, "log"),
    "reg_head": (1e-5, 1e-2, "log"),
    "shared_negatives": (64, 512, "log"),
    "popularity_share": (0.0, 1.0),
}
# As in the report of 2021, which trained it as DVBPR was.
REPORT: dict[str, Any] = {
    **PUBLISHED,
    "reg_head": 2e-3 / 128,  # the report's penalty has no half
    "factors": 0,
    "item_bias": False,
    "visual_bias": False,
    "history": False,
    "unit": False,
    "whiten": 0.0,
    "shared_negatives": 0,
}
MODEL = Model(BPR, DEFAULTS, READS, SPACE, {"report": REPORT}, visual=True)

__all__ = ["MODEL", "READS", "SPACE"]
