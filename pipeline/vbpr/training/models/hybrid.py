"""The model to take: rankers of different kinds, blended by weights that validation items chose; see `chooser`.

Closed forms that are exact for items that sell (EASE, and CEASE, which knows features), feature-aware ALS of several
penalties, BPR against popular items, a linear filter; and for items that hardly sell or never did the visual ranker, a
graph of looks and the likeness to what a user took. Without validation items the weights are PRIOR.
"""

from pathlib import Path

import numpy as np

from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig
from ..item_features import ItemFeatures
from .axes import axes
from .blend import part, whole
from .cease import cease
from .chooser import choose
from .feature_als import feature_als_part
from .filter import GRAPH_ITEMS, linear_filter, looks_graph
from .implicit import BPR_DEFAULTS, Implicit
from .parts import Part, Scores, add_up

PRIOR = {  # of warm and cold items
    "cease": (0.7, 0.7),
    "ease": (0.7, 0.6),
    "visual": (0.2, 0.3),
    "als 40 0.7": (0.05, 0.05),
    "als 40 0.35": (0.4, 0.35),
    "als 40 1": (0.05, 0.05),
    "als 10 0.35": (0.2, 0.1),
    "bpr": (0.2, 0.3),
    "graph": (0.05, 0.1),
    "filter": (0.1, 0.1),
    "likeness": (0.03, 0.1),
}
ALS = ((40.0, 0.7), (40.0, 0.35), (40.0, 1.0), (10.0, 0.35))  # alpha, level


class Hybrid:
    """The blend. `dim` of 0 leaves out the parts that need features, `factors` of 0 the others; both are parts' sizes.
    The configuration's epochs, rates and penalties are the visual part's, whose training a killed run goes on with."""

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None) -> None:
        self.config, self.checkpoint = config, checkpoint

    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            Diverged: the visual part did; the model is made of its best epoch and of the others.
        """
        faults: list[str] = []
        parts = self.parts(split, features, faults)
        scores = Scores(list(parts.values()), *split.train.shape)
        prior = np.array([PRIOR[name] for name in parts])
        weights, aucs = choose(split, scores, prior, seed=self.config.seed)
        factors = add_up(split, scores, weights, features, self.config.seed)
        factors.about["blend"] = [
            {"part": name, "warm": round(float(warm), 3), "cold": round(float(cold), 3)}
            | ({} if aucs is None else {key: round(auc, 4) for key, auc in zip(GROUPS, aucs[p], strict=True)})
            for p, (name, warm, cold) in enumerate(zip(parts, weights.warm, weights.cold, strict=True))
        ]
        return whole(factors, faults)

    def parts(self, split: Split, features: ItemFeatures | None, faults: list[str]) -> dict[str, Part]:
        """What is blended, by the names of PRIOR. `faults`: see `part`."""
        c = self.config
        parts: dict[str, Part] = {}
        if c.dim or not c.factors:  # with neither, the visual part says what is wrong
            visual = c.changed(factors=0, item_bias=False, unit=True)
            parts["visual"] = named("visual", part(visual, self.checkpoint, "visual", split, features, faults))
        looks, turn = axes(features if c.dim else None, len(split.item_ids))
        if c.dim:
            likeness = np.asarray(split.train @ looks, np.float32)
            parts["likeness"] = Part([(likeness, looks)], unseen=(likeness, turn))
            if len(looks) <= GRAPH_ITEMS:
                parts["graph"] = looks_graph(split, looks)
            parts["cease"] = cease(split, looks, turn, seed=c.seed)
        if c.factors:
            parts["ease"] = cease(split, looks[:, :0], turn[:0], seed=c.seed)
            for alpha, level in ALS:
                parts[f"als {alpha:g} {level:g}"] = feature_als_part(
                    split, looks, turn, c.factors, alpha, level, c.seed
                )
            bpr = c.changed(model="bpr", **BPR_DEFAULTS | {"factors": c.factors})
            parts["bpr"] = Part.of(Implicit(bpr).fit(split, None))
            parts["filter"] = linear_filter(split)
        return parts


def named(name: str, factors: Factors) -> Part:
    """A part whose learning curve says whose it is."""
    made = Part.of(factors)
    return Part(made.terms, made.bias, made.unseen, [{**point, "part": name} for point in made.curve])


GROUPS = ("auc", "auc_cold", "auc_unseen")  # of validation items

__all__ = ["Hybrid"]
