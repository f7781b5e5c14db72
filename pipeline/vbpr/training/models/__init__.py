"""Every model by name. A new one is a file with its `Model` and a line here; the contract tests pick it up."""

from . import baselines, bprmf, cease, ease, feature_als, filter, hybrid, implicit, spectral, vbpr, visual
from .dvbpr.dvbpr import MODEL as DVBPR
from .entry import Model

MODELS: dict[str, Model] = {
    "visual": visual.MODEL,
    "vbpr": vbpr.MODEL,
    "hybrid": hybrid.MODEL,
    "bprmf": bprmf.MODEL,
    "als": implicit.ALS,
    "bpr": implicit.BPR,
    "ease": ease.MODEL,
    "cease": cease.MODEL,
    "feature-als": feature_als.MODEL,
    "filter": filter.MODEL,
    "spectral": spectral.MODEL,
    "popularity": baselines.POPULARITY,
    "knn": baselines.KNN,
    "random": baselines.RANDOM,
    "dvbpr": DVBPR,
}

__all__ = ["MODELS"]
