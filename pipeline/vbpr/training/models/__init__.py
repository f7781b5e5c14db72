"""Every model by name. A new one is a file with its `Model` and a line here; the contract tests pick it up.

`MODELS[NAME]` also has models of one's own that were named in this process; only `named` runs their code.
"""

from ...base.errors import VbprError, near
from ...base.own import MODEL_GROUP, known_own, plugins
from . import baselines, bprmf, cease, ease, feature_als, filter, hybrid, implicit, spectral, vbpr, visual
from .dvbpr.dvbpr import MODEL as DVBPR
from .entry import Model
from .own import find_model, model_of


class Models(dict[str, Model]):
    """The models of vbpr by name; those of one's own are found, and not listed."""

    def __missing__(self, name: str) -> Model:
        known = known_own(MODEL_GROUP, name)
        if known is None:
            raise KeyError(name)
        return model_of(known)


MODELS = Models(
    {
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
)


def named(model: str) -> Model:
    """The model that a person asks for: an entry of MODELS, FILE.py:NAME, whose code is run, or a plug-in.

    Raises:
        VbprError: there is none, or that of one's own is at fault.
    """
    found = dict.get(MODELS, model) or find_model(model)
    if found is None:
        names = [*MODELS, *plugins(MODEL_GROUP)]
        raise VbprError(
            f"--model {model} is not known{near(model, names)}; choose from {', '.join(names)}, or give FILE.py:NAME"
        )
    return found


__all__ = ["MODELS", "named"]
