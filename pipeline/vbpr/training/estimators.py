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
from ..data.images.source import ImageSource
from ..data.interactions import Interactions
from ..data.split import Split, SplitConfig
from ..stores.features.store import FeatureStore, stores_of
from ..stores.model.factors import Factors
from .catalogue import absent_from, align
from .configure import configure, refuse_idle
from .fit import fit, made_from
from .models import MODELS


class Estimator:
    """A model by its name in MODELS; keyword arguments are those of `TrainConfig`."""

    model = ""

    def __init__(self, preset: str = "default", **config: Any) -> None:
        self.configure = functools.partial(configure, self.model, preset, **config)
        self.configure()  # what is impossible is said here
        refuse_idle(self.model, config)

    def fit(
        self,
        interactions: Interactions | Split,
        features: Path | str | FeatureStore | Sequence[Path | str | FeatureStore] = (),
        config: SplitConfig | None = None,
        images: ImageSource | None = None,
    ) -> Factors:
        """Learn tastes.

        Args:
            interactions: a split, or interactions, which are then split as `config` says (None: as it is by default).
            features: feature files or opened stores; several are put side by side.
            images: the pictures, as of `open_images`, for `DVBPR`.

        Raises:
            VbprError: features or images are needed and missing, unfinished or of other items; the configuration is
                impossible.
        """
        stores = [store.finished() for store in stores_of(features)]
        if MODELS[self.model].images and images is None:
            raise VbprError(f"--model {self.model} learns from the pictures; give images=vbpr.open_images(FOLDER)")
        if isinstance(interactions, Split):
            split = interactions
            if config is not None:
                raise VbprError("a Split is split already; leave out `config`, or give the interactions")
        else:
            have = [s.item_ids[s.done] for s in stores] or ([] if images is None else [images.item_ids])
            catalogue = np.unique(np.concatenate(have)) if have else None
            split = Split.make(interactions, config or SplitConfig(), catalogue=catalogue)
        if stores:
            absent_from(stores, split.item_ids[split.item_counts > 0], "the interactions")
        matrix = align(stores, split.item_ids) if stores and MODELS[self.model].visual else None
        factors = fit(split, matrix, self.configure(widest=sum(store.dim for store in stores)), images=images)
        return made_from(factors, None, stores, [store.digest() for store in stores])


class Visual(Estimator):
    """The two-stage visual ranker: BPR of a head on frozen features."""

    model = "visual"


class VBPR(Estimator):
    """VBPR (He & McAuley, 2016): visual and latent factors."""

    model = "vbpr"


class Hybrid(Estimator):
    """Rankers of different kinds, blended by weights that validation items chose."""

    model = "hybrid"


class BPRMF(Estimator):
    """BPR matrix factorisation (Rendle et al. 2009), without images."""

    model = "bprmf"


class ALS(Estimator):
    """Implicit ALS (Hu et al. 2008), by the implicit library."""

    model = "als"


class BPR(Estimator):
    """BPR whose negatives are drawn by popularity, by the implicit library."""

    model = "bpr"


class EASE(Estimator):
    """EASE (Steck 2019): each item regressed on all others."""

    model = "ease"


class CEASE(Estimator):
    """CEASE (Jeunen et al. 2020): EASE whose items explain each other's features as well."""

    model = "cease"


class FeatureALS(Estimator):
    """Implicit ALS whose items are drawn to what their features say."""

    model = "feature-als"


class Filter(Estimator):
    """A linear filter of the interactions and a graph of looks, without training (MM-GF, 2025)."""

    model = "filter"


class Spectral(Estimator):
    """An ideal low-pass filter: the leading rank of the normalised interactions."""

    model = "spectral"


class Popularity(Estimator):
    """How often an item was taken."""

    model = "popularity"


class KNN(Estimator):
    """The mean cosine of an item's features to those of what a user took."""

    model = "knn"


class Random(Estimator):
    """Scores at random."""

    model = "random"


class DVBPR(Estimator):
    """DVBPR (Kang et al. 2017): a network trained on the pictures themselves."""

    model = "dvbpr"


__all__ = [
    "ALS",
    "BPR",
    "BPRMF",
    "CEASE",
    "DVBPR",
    "EASE",
    "KNN",
    "VBPR",
    "FeatureALS",
    "Filter",
    "Hybrid",
    "Popularity",
    "Random",
    "Spectral",
    "Visual",
]
