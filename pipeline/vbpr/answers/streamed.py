"""Exact search over the item vectors of a model file, which are read block by block: for one question, sooner than an
index is read.
"""

from pathlib import Path

import numpy as np

from ..base.arrays import Array
from ..base.hdf5 import kind_of
from ..base.progress import console
from ..stores.model.head import unit_rows
from ..stores.model.lookup import mask_of
from ..stores.model.stored import StoredModel, reading
from ..stores.model.topk import best
from .index_file import index_path, read_about
from .nearest import Nearest, not_made_from, of_model, refuse_empty, stale


def nearest_for_one(path: Path | str) -> Nearest:
    """What answers one question of a model or feature file: a model's vectors in its file, by the metric of the index
    beside it, if there is one; else see `Nearest.open`.

    Raises:
        VbprError: see `Nearest.of` and `Nearest.open`.
    """
    model = StoredModel.open(path) if kind_of(path) == "model" else None
    if model is None:
        return Nearest.open(path)
    refuse_empty(path, model)
    saved, metric = index_path(path), "cosine"
    if saved.exists():
        about = read_about(saved, str(path))
        if stale(about["source"], path):
            console.print(f"note: {not_made_from(saved, path)}")
        else:
            metric = about["metric"]
    return Nearest(model.item_ids, Streamed(model, metric), **of_model(model), kind="stored", metric=metric)


class Streamed:
    """Item vectors (n, d) in a file, of length one where cosines are compared.

    Attributes:
        ntotal, d: n and d.
    """

    def __init__(self, model: StoredModel, metric: str) -> None:
        self.model, self.unit = model, metric == "cosine"
        self.ntotal, self.d = model.items.shape

    def rows(self, at: Array) -> Array:
        """(m, d) vectors at positions (m,)."""
        with reading(self.model.path):
            vectors = self.model.items.take(at)
        return unit_rows(vectors) if self.unit else vectors

    def search(self, queries: Array, k: int, allowed: Array | None = None) -> tuple[Array, Array]:
        """For queries (q, d): (q, k) positions and scores, best first, equal ones in the catalogue's order; -1 where
        there are no more.

        Args:
            allowed: (n,) bool, the items that may come back; None for all.
        """
        scores = np.empty((len(queries), self.ntotal), np.float32)
        with reading(self.model.path):
            for first, vectors in self.model.items:
                some = scores[:, first : first + len(vectors)]
                some[:] = queries @ vectors.T
                if self.unit:
                    some /= np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)), np.float32(1e-12))
            if not np.isfinite(scores).all():
                raise ValueError("its items are not finite")
        if allowed is not None:
            scores[:, ~mask_of(allowed, self.ntotal)] = -np.inf
        listed, values = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        for query, row in enumerate(scores):
            top = best(row, k)
            top = top[np.isfinite(row[top])]
            listed[query, : len(top)], values[query, : len(top)] = top, row[top]
        return listed, values


__all__ = ["nearest_for_one"]
