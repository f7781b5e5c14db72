"""The items nearest to items or photos, with FAISS, by a model's item vectors or by raw features.

near = Nearest.of("artifacts/inc.model.h5"); near.search(near.query_item("B00A1"), k=10)
near.save("artifacts/inc.model.index"); Nearest.open("artifacts/inc.model.h5")     # uses the saved index
"""

import dataclasses
import functools
import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.arrays import Array, Strings
from ..base.errors import VbprError, some
from ..base.files import digest
from ..base.hdf5 import kind_of
from ..base.progress import console
from ..stores.model.head import BLIND, unit_rows
from ..stores.model.lookup import at_least_one, index_of, indices_of, mask_of
from ..stores.model.stored import StoredModel, model_in
from .copies import allowed_rows, expanded, members_of
from .index_file import index_path, read_index, write_index
from .index_kinds import among, appended, build, one_faiss, reconstructed, searched

if TYPE_CHECKING:
    from ..stores.features.store import FeatureStore
    from ..stores.model.factors import Factors

METRICS = ("cosine", "inner")
ROWS = 4096  # of features read at a time
SUBSET = 50_000  # fewer allowed items than this are compared one by one: exact, and fast enough
GPU_WORK, GPU_K = 10**11, 2048  # of fewer products, the CPU is done while a GPU starts; FAISS's own limit there
GPU = threading.Lock()  # FAISS searches on a GPU from one thread at a time


class Stale(VbprError):
    """An index of what its file was before."""


@dataclasses.dataclass(frozen=True, eq=False)
class Nearest:
    """A FAISS index over item vectors; with cosine they have length 1, so that inner product is cosine.

    Attributes:
        item_ids: (n,) strings of the indexed items. index: FAISS's.
        backbone: what is needed to encode a photo: name, weights, preprocessing of each feature file; or empty.
        encode: (n, D) float32 features, in whose place it may write -> (n, K) vectors like the indexed ones; None
            where photos cannot be asked for.
        data: the data set's name, and added: folders of items added since, for pictures and titles.
        kind: flat, hnsw or ivfpq; stored: exact, by reading the model file. metric: cosine or inner. effort: efSearch
            of hnsw, nprobe of ivfpq. reason: why this kind, in words. recall: recall@10 against exact search, measured
            when it was built. source: of the file that it was made from: see `source_of`.
        row_of: (n,) int64, which vector of `index` each item has, where some have the same; None: each has its own.
    """

    item_ids: Strings
    index: Any
    backbone: list[dict[str, Any]]
    encode: Callable[[Array], Array] | None
    data: str
    added: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    kind: str = "flat"
    metric: str = "cosine"
    effort: int = 0
    reason: str = ""
    recall: float = 1.0
    source: str = ""
    row_of: Array | None = None

    @classmethod
    def of(
        cls, path: Path | str, kind: str = "flat", metric: str = "cosine", model: "Factors | None" = None
    ) -> "Nearest":
        """Index a model's item vectors, or the rows of a feature file.

        Args:
            kind: flat (exact), hnsw, ivfpq, or auto: by the number of items.
            model: that in the file, where it has been read.

        Raises:
            VbprError: neither, or a model without item vectors.
        """
        if metric not in METRICS:
            raise VbprError(f"--metric {metric} is not known; choose from {', '.join(METRICS)}")
        ids, vectors, about = contents(path, model)
        if metric == "cosine":
            vectors = unit_rows(vectors)
        index, chosen = build(vectors, kind)
        return cls(ids, index, **about, metric=metric, source=source_of(path), **chosen)

    @classmethod
    def open(cls, path: Path | str, index: Path | str | None = None, model: "Factors | None" = None) -> "Nearest":
        """The saved index of a model or feature file (`index`, or the one beside it), or an exact one where there is
        none beside it, or that was made from what the file was before.

        Raises:
            VbprError: the index is damaged, or `index` was made from another file.
        """
        if index is not None:
            return cls.load(index, path)
        if index_path(path).exists():
            try:
                return cls.load(index_path(path), path)
            except Stale as error:
                console.print(f"note: {error}; until then every item is compared")
        return cls.of(path, model=model)

    @classmethod
    def load(cls, saved: Path | str, path: Path | str) -> "Nearest":
        """Read an index file, which must be whole and of this very model or feature file."""
        one_faiss()
        import faiss

        data, ids, about, row_of = read_index(saved, str(path))
        if stale(about["source"], path):
            raise Stale(not_made_from(saved, path))
        index = faiss.deserialize_index(data)
        made = of_features(features_in(path)) if kind_of(path) == "features" else of_model(model_in(path))
        return cls(ids, index, **made, **about, row_of=row_of)

    def save(self, path: Path | str) -> None:
        """Write the index file, atomically."""
        import faiss

        about = {key: getattr(self, key) for key in ("kind", "metric", "effort", "reason", "recall", "source")}
        write_index(path, faiss.serialize_index(self.index), self.item_ids, about, self.row_of)

    def extended(self, item_ids: Strings, vectors: Array, source: str) -> "Nearest":
        """A copy of this index with items appended, of the model file with digest `source`."""
        index, row_of = appended(self.index, self.kind, self.row_of, len(self.item_ids), self._as_indexed(vectors))
        ids = np.concatenate([self.item_ids, item_ids])
        return dataclasses.replace(self, index=index, item_ids=ids, source=source, row_of=row_of)

    @functools.cached_property
    def gpu(self) -> Any:
        """A copy of an exact index on the GPU; None without a GPU, without room there, or of another kind."""
        import faiss

        if self.kind != "flat" or not getattr(faiss, "get_num_gpus", int)():
            return None
        try:
            return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self.index)
        except RuntimeError:  # out of the GPU's memory: the processor answers
            return None

    # ------------------------------------------------------------------------------------------ asking

    def by_gpu(self, queries: Array, k: int) -> tuple[Array, Array] | None:
        """What a search on the GPU answers; None where there is none, or no room for the queries."""
        with GPU:
            if self.gpu is None:
                return None
            try:
                scores, rows = self.gpu.search(queries, k)
            except RuntimeError:
                return None
        return rows, scores

    def rows(self, at: Array) -> Array:
        """(n, K) the indexed vectors at these positions (as float16 keeps them, where it decides among candidates)."""
        at = np.asarray(at, np.int64)
        if self.kind == "stored":
            return np.asarray(self.index.rows(at))
        return reconstructed(self.index, at if self.row_of is None else self.row_of[at])

    @property
    def vectors(self) -> Array:
        """(n, K) every indexed vector."""
        return self.rows(np.arange(len(self.item_ids)))

    def query_item(self, *item_ids: str) -> Array:
        """(1, K) the vector of an item, or the mean of several.

        Raises:
            VbprError: unknown ids (the message names near ones), or an item of which the model knows nothing.
        """
        vectors = self.rows(np.array([index_of(self.item_ids, item_id, "item") for item_id in item_ids], np.int64))
        blank = [str(item_id) for item_id, row in zip(item_ids, vectors, strict=True) if not row.any()]
        if blank or not item_ids:
            raise VbprError(f"{some(blank) or 'no item'} has no vector to compare: {UNKNOWN}")
        return self._combined(vectors)

    def query_features(self, features: Array) -> Array:
        """(n, D) features, as the backbone gives them -> (n, K) queries."""
        if self.encode is None:
            raise VbprError(BLIND)
        return self._as_indexed(self.encode(np.array(features, np.float32)))

    def query_photos(self, features: Array) -> Array:
        """(n, D) features of several photos -> (1, K), one query for what they have in common."""
        return self._combined(self.query_features(features))

    def _combined(self, vectors: Array) -> Array:
        return self._as_indexed(vectors.mean(0, keepdims=True))

    def _as_indexed(self, vectors: Array) -> Array:
        """Of length one where cosines are compared."""
        return unit_rows(vectors) if self.metric == "cosine" else np.ascontiguousarray(vectors, np.float32)

    def search(
        self,
        queries: Array,
        k: int = 10,
        leave_out: str | Sequence[str] | None = None,
        allowed: Array | None = None,
    ) -> list[tuple[str, float]]:
        """The k items of highest cosine (or inner product) to one query (1, K): ids and scores, best first.

        Args:
            leave_out: ids that must not come back.
            allowed: (n,) bool, the items that may; None for all.

        Raises:
            VbprError: see `search_many`; or there are several queries.
        """
        if len(queries) != 1:
            raise VbprError(f"one query is answered; got {len(queries)}: query_photos makes one of several photos")
        out = [leave_out] if isinstance(leave_out, str) else list(leave_out or ())
        at, scores = self.search_many(queries, k + len(out), allowed)
        listed = zip(at[0], scores[0], strict=True)
        pairs = [(str(self.item_ids[i]), float(s)) for i, s in listed if i >= 0]
        return [pair for pair in pairs if pair[0] not in out][:k]

    def search_many(self, queries: Array, k: int = 10, allowed: Array | None = None) -> tuple[Array, Array]:
        """For queries (q, K): (q, k) positions and scores, best first; -1 where there are no more.

        Raises:
            VbprError: queries of another K, or not finite; k is not positive; `allowed` is no mask.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.index.d:
            raise VbprError(f"queries are vectors of {self.index.d} numbers, (q, {self.index.d}); got {queries.shape}")
        if not np.isfinite(queries).all():
            raise VbprError("a query holds numbers that are not finite")
        at_least_one(k)
        k, rows = min(k, len(self.item_ids)), None
        if self.kind == "stored":
            listed, scores = self.index.search(queries, k, allowed)
            return listed, scores
        if allowed is not None:
            allowed = rows = mask_of(allowed, len(self.item_ids))
            candidates = np.flatnonzero(allowed)
            if len(candidates) <= SUBSET:
                return among(queries, self.rows(candidates), candidates, k)
            if self.row_of is not None:
                rows = allowed_rows(self.row_of, allowed, self.index.ntotal)
        wide = max(k, 10)  # for fewer, approximate search would look at fewer candidates than it was tuned with
        large = rows is None and wide <= GPU_K and queries.size * len(self.item_ids) >= GPU_WORK
        listed, scores = (large and self.by_gpu(queries, wide)) or searched(
            self.index, self.kind, self.effort, queries, wide, rows
        )
        if self.row_of is not None:
            members = self._members if allowed is None else members_of(self.row_of, allowed)
            return expanded(listed, scores, k, members)
        return listed[:, :k], scores[:, :k]

    @functools.cached_property
    def _members(self) -> tuple[Array, Array]:
        assert self.row_of is not None
        return members_of(self.row_of)

    def search_items(
        self, item_ids: Sequence[str], k: int = 10, allowed: Array | None = None, block: int = 4096
    ) -> list[list[tuple[str, float]]]:
        """Of each of many items, the k nearest others: ids and scores, best first.

        None for an item of which the model knows nothing.
        """
        at, out = indices_of(self.item_ids, item_ids, "item"), []
        for a in range(0, len(at), block):
            vectors = self.rows(at[a : a + block])
            nearest, scores = self.search_many(vectors, k + 1, allowed)
            nearest[~vectors.any(1)] = -1
            for item, row, values in zip(at[a : a + block], nearest, scores, strict=True):
                pairs = zip(row.tolist(), values.tolist(), strict=True)
                out.append([(str(self.item_ids[i]), s) for i, s in pairs if i >= 0 and i != item][:k])
        return out

    def not_taken(self, model: Path | str, user_id: str, allowed: Array | None = None) -> Array:
        """(n,) bool: the items, of those allowed, that a user of the model has not.

        Raises:
            VbprError: a feature file, which knows no users; or an unknown user.
        """
        if kind_of(model) == "features":
            raise VbprError(f"{model} is a feature file and knows no users; give a model file with --unseen-by")
        factors = model_in(model)
        mask = np.ones(len(self.item_ids), bool) if allowed is None else mask_of(allowed, len(self.item_ids))
        taken = factors.item_ids[factors.seen_by(factors.user_index(user_id))]
        return mask & ~np.isin(self.item_ids, taken)  # by id: the model's catalogue may be another


def contents(path: Path | str, model: "Factors | None" = None) -> tuple[Strings, Array, dict[str, Any]]:
    """(n,) ids, (n, K) vectors, and what Nearest keeps of the file; see `Nearest.of`."""
    if kind_of(path) == "features":
        store = features_in(path)
        store.check(store.verify())
        rows, about = store.done, of_features(store)
        return store.item_ids[rows], about["encode"](np.asarray(store.features[rows], np.float32)), about
    from ..stores.model.factors import Factors

    factors = model or Factors.load(path)
    refuse_empty(path, factors)
    return factors.item_ids, factors.items, of_model(factors)


def refuse_empty(path: Path | str, model: "Factors | StoredModel") -> None:
    """
    Raises:
        VbprError: the model has no item vectors.
    """
    if not model.items.shape[1]:
        raise VbprError(
            f"{path} is a {model.record.model or 'nameless'} model: it has no item vectors to compare; use "
            "--model visual, or give the feature file"
        )


def features_in(path: Path | str) -> "FeatureStore":
    from ..stores.features.store import FeatureStore

    return FeatureStore(path)


def source_of(path: Path | str) -> str:
    """What tells whether a file is still the one that an index was made from: a model's own digests, which need no
    reading of its numbers; of any other file its digest."""
    model = StoredModel.open(path) if kind_of(path) == "model" else None
    if model is None:
        return digest(path)
    told = f"{model.digest} {json.dumps(model.about, sort_keys=True)}"
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def stale(source: str, path: Path | str) -> bool:
    """Whether an index was made from something else than this file; indexes of old have the file's digest."""
    return source != source_of(path) and source != digest(path)


def not_made_from(saved: Path | str, path: Path | str) -> str:
    return f"{saved} was not made from {path} as it is now; run vbpr index {path} again, or delete the index"


def of_model(factors: "Factors | StoredModel") -> dict[str, Any]:
    """What `Nearest` keeps of a model."""
    record, head = factors.record, factors.head
    return {
        "backbone": record.features,
        "encode": head and (lambda features: head(features)[0]),
        "data": record.data,
        "added": record.added,
    }


def of_features(store: "FeatureStore") -> dict[str, Any]:
    """What `Nearest` keeps of a feature file, whose vectors are features less their mean."""
    rows, total = store.done, np.zeros(store.dim)
    if not len(rows):
        raise VbprError(f"{store.path} has features of no item; run vbpr extract again")
    for a in range(0, len(rows), ROWS):
        total += store.features[rows[a : a + ROWS]].sum(0, dtype=np.float64)
    mean = (total / len(rows)).astype(np.float32)
    return {
        "backbone": [store.provenance | {"path": str(store.path)}],
        "encode": lambda features: np.subtract(features, mean, out=features),
        "data": store.provenance["data"],
    }


UNKNOWN = "no image of it was encoded, or nobody took it; ask by a photo, or for another item"

__all__ = [
    "METRICS",
    "UNKNOWN",
    "Nearest",
    "not_made_from",
    "of_features",
    "of_model",
    "refuse_empty",
    "source_of",
    "stale",
]
