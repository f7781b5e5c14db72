"""Every model by name. A new one is a class with `fit` and a line here; the contract tests pick it up."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..model import Recommender
from .baselines import Popularity, Random, VisualKNN
from .bpr.bpr import BPR, BPRMF
from .cease import CEASE
from .dvbpr.dvbpr import DVBPR
from .ease import EASE
from .feature_als import FeatureALS
from .filter import Filter
from .hybrid import Hybrid
from .implicit import BPR_DEFAULTS, Implicit
from .spectral import Spectral
from .vbpr import VBPR

FIELDS = frozenset(f.name for f in dataclasses.fields(TrainConfig))
BPR_READS = FIELDS - {"alpha", "image_size", "images_per_step", "network", "network_weights"}
BLEND = {"joint", "latent_weight"}  # of `vbpr`
OF_FEATURES = {"dim", "reg_head", "memory_limit", "precision", "unit", "whiten", "axes", "visual_bias"}
LATENT_READS = BPR_READS - BLEND - OF_FEATURES - {"history", "history_factors"}
OF_ITEMS = {"factors", "item_bias", "history", "history_factors", "shrink", "reg_items", "reg_bias"}
SAMPLED = {"per_user", "shared_negatives", "loss"}
# Its item is the network's output and nothing else, its triplets those of the batch.
DVBPR_READS = FIELDS - {"alpha"} - BLEND - OF_ITEMS - SAMPLED - OF_FEATURES | {"dim", "reg_head", "precision"}


@dataclasses.dataclass(frozen=True)
class Model:
    """An entry of MODELS.

    Attributes:
        build: (configuration, checkpoint path or None) -> something with `fit`.
        defaults: where this model departs from TrainConfig's defaults.
        visual: whether it reads features.
        images: whether it reads the pictures themselves: its `images` is set before `fit`.
        reads: the fields that change this model.
    """

    build: Callable[[TrainConfig, Path | None], Recommender]
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    visual: bool = True
    images: bool = False
    reads: frozenset[str] = BPR_READS


# What DVBPR and the report published. Their penalties are for a loss summed over the batch of 128; here it is a mean.
PUBLISHED: dict[str, Any] = {
    "dim": 50,
    "epochs": 20,
    "batch": 128,
    "lr": 1e-4,
    "schedule": "constant",
    "reg_users": 1.0,
    "reg_head": 1e-3 / 128,
    "positives": "users",
    "negatives": "uniform",
    "patience": 0,
}
MODELS: dict[str, Model] = {
    # two-stage visual ranker: BPR of a head on frozen features
    "visual": Model(BPR, {"popularity_share": 0.4}, reads=BPR_READS - BLEND),
    # VBPR (He & McAuley, 2016): visual and latent factors, item and visual bias
    "vbpr": Model(VBPR, {"factors": 64, "item_bias": True, "popularity_share": 0.4}),
    # the one to take: rankers of many kinds, weighted by validation items
    "hybrid": Model(
        Hybrid, {"factors": 64, "popularity_share": 1.0}, reads=BPR_READS - BLEND - {"item_bias", "reg_bias", "unit"}
    ),
    # BPR matrix factorisation (Rendle et al. 2009): no images, uniform negatives
    "bprmf": Model(BPR, BPRMF, visual=False, reads=LATENT_READS),
    # implicit's ALS (Hu et al. 2008)
    "als": Model(
        Implicit,
        {"dim": 0, "factors": 64, "epochs": 15, "reg_items": 200.0},
        visual=False,
        reads=frozenset({"factors", "epochs", "reg_items", "alpha", "seed"}),
    ),
    # implicit's BPR: negatives by popularity, so that popular items are held down
    "bpr": Model(
        Implicit,
        BPR_DEFAULTS,
        visual=False,
        reads=frozenset({"factors", "epochs", "lr", "reg_items", "seed"}),
    ),
    # EASE (Steck, 2019): item-item closed form, its leading rank
    "ease": Model(
        EASE,
        {"dim": 0, "factors": 256, "reg_items": 400.0},
        visual=False,
        reads=frozenset({"factors", "reg_items", "seed"}),
    ),
    # CEASE (Jeunen et al. 2020): EASE whose items have to explain each other's features as well
    "cease": Model(CEASE, {"dim": 0, "reg_items": 100.0}, reads=frozenset({"reg_items", "seed"})),
    # implicit ALS whose items are drawn to what their features say
    "feature-als": Model(
        FeatureALS,
        {"dim": 0, "factors": 64, "epochs": 10, "reg_items": 0.35},
        reads=frozenset({"factors", "epochs", "reg_items", "alpha", "seed"}),
    ),
    # a linear filter of the interactions and a graph of looks (MM-GF, 2025), without training
    "filter": Model(Filter, {"dim": 0}, reads=frozenset({"seed"})),
    # the ideal low-pass filter of the normalised interactions: of GF-CF (Shen et al. 2021) without its linear part
    "spectral": Model(Spectral, {"dim": 0, "factors": 64}, visual=False, reads=frozenset({"factors", "seed"})),
    # train interactions of each item
    "popularity": Model(Popularity, visual=False, reads=frozenset()),
    # mean cosine to the features of the user's history
    "knn": Model(VisualKNN, reads=frozenset()),
    # chance
    "random": Model(Random, visual=False, reads=frozenset({"seed"})),
    # DVBPR (Kang et al. 2017): the image network learns end to end; wants a GPU
    "dvbpr": Model(DVBPR, PUBLISHED, visual=False, images=True, reads=DVBPR_READS),
}

__all__ = ["FIELDS", "MODELS", "PUBLISHED", "Model"]
