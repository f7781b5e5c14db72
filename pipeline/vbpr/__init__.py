"""vbpr: visually-aware recommendation. Frozen image features, a trainable head and user factors, in seconds.

The names below are the public ones; each is imported on first use, so that `import vbpr` costs nothing.
"""

import importlib
from typing import Any

PUBLIC = {
    "BPRMF": "training.estimators",
    "Dataset": "data.dataset",
    "FeatureStore": "stores.features.store",
    "Factors": "stores.model.factors",
    "Interactions": "data.interactions",
    "MODELS": "training.models",
    "BACKBONES": "networks.registry",
    "Backbone": "networks.backbone",
    "Metrics": "evaluation.evaluate",
    "Nearest": "answers.nearest",
    "Preprocessing": "networks.prepare",
    "Split": "data.split",
    "SplitConfig": "data.split",
    "Stopped": "base.stopping",
    "TrainConfig": "training.config",
    "VBPR": "training.estimators",
    "Visual": "training.estimators",
    "VbprError": "base.errors",
    "add_items": "answers.add_items",
    "configure": "training.configure",
    "encode_photo": "extraction.photos",
    "evaluate": "evaluation.evaluate",
    "extract": "extraction.extract",
    "load_backbone": "networks.registry",
    "open_images": "data.images",
    "train": "training.train",
    "tune": "studies.tune.tune",
}

__all__ = sorted(PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'vbpr' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
