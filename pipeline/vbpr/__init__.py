"""vbpr: visually-aware recommendation. Frozen image features, a trainable head and user factors, in seconds.

The names below are the public ones; each is imported on first use, so that `import vbpr` costs nothing.
"""

import importlib
from typing import Any

PUBLIC = {
    "add_items": "answers.add_items",
    "ALS": "training.estimators",
    "Backbone": "networks.backbone",
    "BACKBONES": "networks.registry",
    "BPR": "training.estimators",
    "BPRMF": "training.estimators",
    "CEASE": "training.estimators",
    "configure": "training.configure",
    "Dataset": "data.dataset",
    "DVBPR": "training.estimators",
    "EASE": "training.estimators",
    "encode_photo": "extraction.photos",
    "evaluate": "evaluation.evaluate",
    "extract": "extraction.extract",
    "Factors": "stores.model.factors",
    "factors_of": "training.model",
    "FeatureALS": "training.estimators",
    "FeatureStore": "stores.features.store",
    "Filter": "training.estimators",
    "Head": "stores.model.head",
    "Hybrid": "training.estimators",
    "Interactions": "data.interactions",
    "KNN": "training.estimators",
    "load_backbone": "networks.registry",
    "Metrics": "evaluation.evaluate",
    "MODELS": "training.models",
    "Nearest": "answers.nearest",
    "open_images": "data.images",
    "Popularity": "training.estimators",
    "Preprocessing": "networks.prepare",
    "Random": "training.estimators",
    "report_epoch": "base.progress",
    "Spectral": "training.estimators",
    "Split": "data.split",
    "SplitConfig": "data.split",
    "Stopped": "base.stopping",
    "train": "training.train",
    "TrainConfig": "training.config",
    "tune": "studies.tune.tune",
    "VBPR": "training.estimators",
    "VbprError": "base.errors",
    "Visual": "training.estimators",
}

__all__ = sorted(PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'vbpr' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
