"""Models as Python objects, with the names that implicit's users know: fit, then ask the factors.

factors = VBPR(epochs=4).fit(Interactions.read("data/interactions.csv"), "artifacts/inc.h5")
items, scores = factors.recommend("A0", 10)
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import VbprError
from ..data.interactions import Interactions
from ..data.split import Split, SplitConfig
from ..stores.features.store import FeatureStore, stores_of
from ..stores.model.factors import Factors
from .catalogue import absent_from, align
from .configure import configure, refuse_idle
from .fit import fit, made_from
from .models import MODELS


class Visual:
    """The two-stage visual ranker; keyword arguments are those of `TrainConfig`."""

    model = "visual"

    def __init__(self, preset: str = "default", **config: Any) -> None:
        self.configure = functools.partial(configure, self.model, preset, **config)
        self.configure()  # what is impossible is said here
        refuse_idle(self.model, config)

    def fit(
        self,
        interactions: Interactions | Split,
        features: Path | str | FeatureStore | Sequence[Path | str | FeatureStore] = (),
        config: SplitConfig | None = None,
    ) -> Factors:
        """Learn tastes.

        Args:
            interactions: a split, or interactions, which are then split as `config` says (None: as it is by default).
            features: feature files or opened stores; several are put side by side.

        Raises:
            VbprError: features are needed and missing, unfinished or of other items; the configuration is impossible.
        """
        stores = [store.finished() for store in stores_of(features)]
        if isinstance(interactions, Split):
            split = interactions
            if config is not None:
                raise VbprError("a Split is split already; leave out `config`, or give the interactions")
        else:
            catalogue = np.unique(np.concatenate([s.item_ids[s.done] for s in stores])) if stores else None
            split = Split.make(interactions, config or SplitConfig(), catalogue=catalogue)
        if stores:
            absent_from(stores, split.item_ids[split.item_counts > 0], "the interactions")
        matrix = align(stores, split.item_ids) if stores and MODELS[self.model].visual else None
        factors = fit(split, matrix, self.configure(widest=sum(store.dim for store in stores)))
        return made_from(factors, None, stores, [store.digest() for store in stores])


class VBPR(Visual):
    """VBPR (He & McAuley, 2016): visual and latent factors."""

    model = "vbpr"


class BPRMF(Visual):
    """BPR matrix factorisation (Rendle et al. 2009), without images."""

    model = "bprmf"


__all__ = ["BPRMF", "VBPR", "Visual"]
