"""A linear filter of the interactions and a graph of looks, without training (MM-GF, 2025).

score(u, i) = (X P)_ui / deviation + share (X N)_ui / deviation, by user;   P = (R' R)^power by element,
R = D_u^-a X D_i^(a - 1);  N: the graph of each item's nearest by cosine of features, normalised by degree, and its
transpose
"""

import dataclasses
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from ...base.arrays import Array
from ...base.errors import VbprError
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig
from ..item_features import ItemFeatures
from .axes import axes
from .entry import Model
from .parts import Part, alone, columns, held
from .singular import leading

NORMALISED, POWER = 0.6, 0.7
NEAREST = 20
GRAPH_ITEMS = 30_000  # all cosines are looked at
LEADING, SWEEPS = 64, 6  # singular values where scores are too many to be held, at least, and sweeps for them
SHARE = 0.3  # of looks


@dataclasses.dataclass(frozen=True)
class Filter:
    """Both, added; an item that nobody took lives by its looks."""

    config: TrainConfig
    checkpoint: Path | None = None

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`."""
        if features is None:
            raise VbprError("--model filter needs --features")
        looks, _ = axes(features, len(split.item_ids))
        parts = [linear_filter(split)] + [looks_graph(split, looks)] * (len(looks) <= GRAPH_ITEMS)
        return alone(split, parts, [1.0, SHARE][: len(parts)], features, self.config.seed)


def linear_filter(split: Split, seed: int = 0) -> Part:
    """X P."""
    user = np.maximum(1, np.diff(split.train.indptr)) ** -NORMALISED
    item = np.maximum(1, split.item_counts) ** (NORMALISED - 1.0)
    r = (sp.diags(user) @ split.train @ sp.diags(item)).tocsr().astype(np.float32)
    if not held(split):  # of power 1, as R' R is not held, and by its leading rank
        left, values, right = leading([split.train, r.T.tocsr(), r], columns(split, LEADING), seed, SWEEPS)
        return Part([(left * values, np.ascontiguousarray(right.T))])
    p = (r.T @ r).tocsr()
    p.data **= POWER
    return Part([(split.train, p)])


def looks_graph(split: Split, looks: Array, seed: int = 0) -> Part:
    """X N, where all scores can be held; else, by its leading rank."""
    unit = torch.nn.functional.normalize(torch.from_numpy(looks), dim=1, eps=1e-12)
    items, near = len(unit), max(1, min(NEAREST, len(unit) // 4))
    found = []
    for a in range(0, items, 1024):
        cosine = unit[a : a + 1024] @ unit.T
        cosine[torch.arange(len(cosine)), torch.arange(a, a + len(cosine))] = -9
        found.append(torch.topk(cosine, near, 1).indices.numpy())
    ends = np.arange(0, items * near + 1, near)
    graph = sp.csr_matrix((np.ones(items * near, np.float32), np.vstack(found).ravel(), ends), (items, items))
    out, into = (sp.diags(np.maximum(1, np.asarray(graph.sum(axis)).ravel()) ** -0.5) for axis in (1, 0))
    graph = (out @ graph @ into).tocsr()
    graph = (graph + graph.T).tocsr().astype(np.float32)
    if held(split):
        return Part([(split.train, graph)])
    left, values, right = leading([split.train, graph], columns(split, LEADING), seed, SWEEPS)
    return Part([(left * values, np.ascontiguousarray(right.T))])


MODEL = Model(Filter, {"dim": 0}, frozenset({"seed"}), visual=True)

__all__ = ["GRAPH_ITEMS", "MODEL", "Filter", "linear_filter", "looks_graph"]
