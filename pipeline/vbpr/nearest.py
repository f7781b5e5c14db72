"""The items nearest to an item or a photo, with FAISS, by a model's item vectors or by raw features.

near = Nearest.of("artifacts/inc.model.h5"); near.search(near.query_item("B00A1"), k=10)
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from .errors import VbprError
from .factors import Factors, Head, index_of, unit_rows
from .features import FeatureStore
from .files import Strings, kind_of

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Nearest:
    """An exact FAISS index over unit vectors: inner product is cosine.

    Attributes:
        item_ids: (n,) strings of the indexed items. vectors: (n, K) float32, length 1.
        backbone: what is needed to encode a photo: name, weights, preprocessing of each feature file; or empty.
        encode: how features of a photo become a query; None where photos cannot be asked for.
        data: the data set's name, for pictures and titles.
    """

    item_ids: Strings
    vectors: Array
    index: Any
    backbone: list[dict[str, Any]]
    encode: Head | None
    raw: bool
    data: str

    @classmethod
    def of(cls, path: Path | str) -> "Nearest":
        """Index a model's item vectors, or the rows of a feature file.

        Raises:
            VbprError: neither, or a model without item vectors.
        """
        if kind_of(path) == "features":
            store = FeatureStore(path)
            rows = store.done
            vectors = np.asarray(store.features[rows], np.float32)
            about = {"data": store.provenance["data"], "features": [store.provenance | {"path": str(path)}]}
            return cls._build(
                store.item_ids[rows],
                vectors - vectors.mean(0),
                about,
                Head(
                    vectors.mean(0),
                    np.ones(store.dim, np.float32),
                    np.zeros((0, store.dim), np.float32),
                    np.zeros(store.dim, np.float32),
                ),
                True,
            )
        factors = Factors.load(path)
        if not factors.items.shape[1]:
            raise VbprError(
                f"{path} is a {factors.about.get('model')} model: it has no item vectors to compare; use "
                "--model visual, or give the feature file"
            )
        return cls._build(factors.item_ids, factors.items, factors.about, factors.head, False)

    @classmethod
    def _build(cls, ids: Strings, vectors: Array, about: dict[str, Any], head: Head | None, raw: bool) -> "Nearest":
        import faiss

        unit = unit_rows(vectors)
        index = faiss.IndexFlatIP(unit.shape[1])
        index.add(unit)
        return cls(ids, unit, index, about.get("features", []), head, raw, about.get("data", ""))

    def query_item(self, item_id: str) -> Array:
        """(1, K) the vector of an item; unknown ids raise VbprError with near ones."""
        at = index_of(self.item_ids, item_id, "item")
        return self.vectors[at : at + 1]

    def query_features(self, features: Array) -> Array:
        """(n, D) features, as the backbone gives them -> (n, K) queries."""
        if self.encode is None:
            raise VbprError("this model knows items by their history alone and cannot read a photo; use --model visual")
        if self.raw:
            return unit_rows(np.asarray(features, np.float32) - self.encode.mean)
        return unit_rows(self.encode(features)[0])

    def search(self, queries: Array, k: int = 10, leave_out: str | None = None) -> list[tuple[str, float]]:
        """The k items of highest cosine to one query (1, K): ids and cosines, best first."""
        scores, found = self.index.search(np.ascontiguousarray(queries, np.float32), min(len(self.item_ids), k + 1))
        pairs = [(str(self.item_ids[i]), float(s)) for i, s in zip(found[0], scores[0], strict=True)]
        return [pair for pair in pairs if pair[0] != leave_out][:k]


def encode_photo(path: Path | str, backbones: list[dict[str, Any]], weights: Path | str | None = None) -> Array:
    """(1, D) features of a photo, through the very backbone (name, weights, preprocessing) that a file records.

    Raises:
        VbprError: no photo, or other weights than the recorded ones.
    """
    from .backbones import Encoder, load_backbone
    from .images import BadImage, prepare

    if len(backbones) != 1:
        raise VbprError("a photo can be asked for only of a model on one feature file")
    recorded = backbones[0]
    random = recorded["weights"] == "random"
    backbone = load_backbone(recorded["backbone"], weights or recorded.get("weights_file"), random)
    if backbone.digest != recorded["weights_digest"] or str(backbone.preprocessing) != recorded["preprocessing"]:
        raise VbprError(
            f"the photo would go through {backbone.name} ({backbone.weights}), but the features came from "
            f"{recorded['backbone']} ({recorded['weights']}); give those weights with --weights"
        )
    try:
        pixels = prepare(Path(path).read_bytes(), backbone.preprocessing)
    except OSError as error:
        raise VbprError(f"{path} cannot be read ({error.strerror}); give --image a photo") from error
    except BadImage as error:
        raise VbprError(f"{path} cannot be used: {error}; give --image a photo") from error
    return Encoder(backbone, "cpu", recorded["precision"], batch=1)(pixels[None])


__all__ = ["Nearest", "encode_photo"]
