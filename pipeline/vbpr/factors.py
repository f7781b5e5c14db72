"""Every fitted model is two matrices and a bias: scores(users) = U @ I.T + b.

    factors = Factors.load("artifacts/inc.model.h5"); ids, scores = factors.recommend(factors.user_index("A0"), 10)

Needs neither torch, nor images, nor the feature file.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp

from .errors import VbprError, near
from .files import Strings, open_h5, read_strings, replacing, write_strings

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """What turns an item's features into its vector, so that a new item needs its image alone.

    z = (f - mean) / scale, divided by its length if `unit`;  vector = weight @ z,  bias = bias_weight . z + bias_offset

    Attributes:
        mean, scale: (D,) float32, of the catalogue's features.
        weight: (K, D) float32; rows of zeros for columns that only past interactions can fill.
        bias_weight: (D,) float32.
        bias_offset: what an item without history has as bias.
        unit: whether standardised features are scaled to length one.
    """

    mean: Array
    scale: Array
    weight: Array
    bias_weight: Array
    bias_offset: float = 0.0
    unit: bool = False

    def __call__(self, features: Array, block: int = 4096) -> tuple[Array, Array]:
        """(n, D) features -> (n, K) item vectors and (n,) biases, float32, in blocks."""
        vectors = np.empty((len(features), len(self.weight)), np.float32)
        bias = np.empty(len(features), np.float32)
        for a in range(0, len(features), block):
            z = (np.asarray(features[a : a + block], np.float32) - self.mean) / self.scale
            vectors[a : a + block], bias[a : a + block] = self.apply(z)
        return vectors, bias

    def apply(self, standardised: Array) -> tuple[Array, Array]:
        """(n, D) standardised features -> (n, K) item vectors and (n,) biases."""
        z = unit_rows(standardised) if self.unit else standardised
        return z @ self.weight.T, z @ self.bias_weight + self.bias_offset


def unit_rows(rows: Array) -> Array:
    """Rows scaled to length one; a row of zeros stays."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.maximum(length, 1e-12), np.float32)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Factors:
    """A fitted model.

    Attributes:
        users: (U, K) float32. items: (I, K) float32. bias: (I,) float32.
        user_ids, item_ids: (U,), (I,) strings.
        train, validation, test: (U, I) CSR, the split that it was fitted under; together, what each user has seen.
        head: how a new item's features become its vector; None for models that cannot score an unseen item.
        about: JSON values: model, config, data, features (path, digest, backbone), split, learning curve.
    """

    users: Array
    items: Array
    bias: Array
    user_ids: Strings
    item_ids: Strings
    train: sp.csr_matrix
    validation: sp.csr_matrix
    test: sp.csr_matrix
    head: Head | None = None
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.user_ids), len(self.item_ids))
        if (
            self.users.ndim != 2
            or self.items.shape != (shape[1], self.users.shape[1])
            or len(self.users) != shape[0]
            or self.bias.shape != (shape[1],)
        ):
            raise VbprError(
                f"factors do not fit together: users {self.users.shape}, items {self.items.shape}, bias "
                f"{self.bias.shape} for {shape[0]:,} user and {shape[1]:,} item ids"
            )
        if not (np.isfinite(self.users).all() and np.isfinite(self.items).all() and np.isfinite(self.bias).all()):
            raise VbprError("factors hold values that are not finite; train again with a lower --lr")

    def __repr__(self) -> str:
        return (
            f"Factors({self.about.get('model', 'model')}, {len(self.user_ids):,} users, {len(self.item_ids):,} "
            f"items, K {self.users.shape[1]})"
        )

    def scores(self, users: Array) -> Array:
        """(n,) user positions -> (n, I) float32."""
        return np.asarray(self.users[users] @ self.items.T + self.bias)

    @property
    def seen(self) -> sp.csr_matrix:
        """(U, I) CSR: everything a user took."""
        matrix = (self.train + self.validation + self.test).tocsr()
        matrix.sort_indices()
        return matrix

    def seen_by(self, user: int) -> Array:
        """Positions of the items that a user took."""
        return np.concatenate(
            [
                part.indices[part.indptr[user] : part.indptr[user + 1]]
                for part in (self.train, self.validation, self.test)
            ]
        )

    def recommend(self, user: int, k: int = 10, seen: bool = False) -> tuple[Array, Array]:
        """The k items of highest score for a user (position): positions and scores, best first.

        Args:
            seen: whether items that the user took may come back.
        """
        scores = self.scores(np.array([user]))[0]
        if not seen:
            scores[self.seen_by(user)] = -np.inf
        top = best(scores, k)
        top = top[np.isfinite(scores[top])]
        return top, scores[top]

    def user_index(self, user_id: str) -> int:
        """The position of a user.

        Raises:
            VbprError: unknown; the message names near ids.
        """
        return index_of(self.user_ids, user_id, "user")

    def item_index(self, item_id: str) -> int:
        """The position of an item; see `user_index`."""
        return index_of(self.item_ids, item_id, "item")

    def save(self, path: Path | str) -> None:
        """Write the model file (HDF5), atomically."""
        with replacing(path) as temporary, h5py.File(temporary, "w") as handle:
            handle.attrs["vbpr"] = "model"
            handle.attrs["about"] = json.dumps(self.about)
            for name in ("users", "items", "bias"):
                handle.create_dataset(name, data=getattr(self, name).astype("<f4"))
            write_strings(handle, "user_ids", self.user_ids)
            write_strings(handle, "item_ids", self.item_ids)
            for name in ("train", "validation", "test"):
                part, group = getattr(self, name), handle.create_group(name)
                group.create_dataset("indptr", data=part.indptr.astype("<i8"))
                group.create_dataset("indices", data=part.indices.astype("<i4"))
            if self.head is not None:
                group = handle.create_group("head")
                for name in HEAD_ARRAYS:
                    group.create_dataset(name, data=getattr(self.head, name).astype("<f4"))
                group.attrs["bias_offset"] = self.head.bias_offset
                group.attrs["unit"] = self.head.unit

    @classmethod
    def load(cls, path: Path | str) -> "Factors":
        """Read a model file.

        Raises:
            VbprError: not a model file, damaged, or foreign.
        """
        try:
            with open_h5(path, "model") as handle:
                user_ids, item_ids = read_strings(handle, "user_ids"), read_strings(handle, "item_ids")
                shape = (len(user_ids), len(item_ids))
                parts = {}
                for name in ("train", "validation", "test"):
                    indptr, indices = handle[name]["indptr"][:], handle[name]["indices"][:]
                    if (
                        len(indptr) != shape[0] + 1
                        or indptr[0] != 0
                        or indptr[-1] != len(indices)
                        or (np.diff(indptr) < 0).any()
                        or (len(indices) and not 0 <= indices.min() <= indices.max() < shape[1])
                    ):
                        raise ValueError(f"{name} is not a matrix of {shape}")
                    parts[name] = sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=shape)
                head = None
                if "head" in handle:
                    group = handle["head"]
                    stored = {name: group[name][:].astype(np.float32) for name in HEAD_ARRAYS}
                    head = Head(**stored, bias_offset=float(group.attrs["bias_offset"]), unit=bool(group.attrs["unit"]))
                users, items, bias = (handle[name][:].astype(np.float32) for name in ("users", "items", "bias"))
                return cls(
                    users, items, bias, user_ids, item_ids, **parts, head=head, about=json.loads(handle.attrs["about"])
                )
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise VbprError(f"{path} is damaged ({error}); train again") from error


HEAD_ARRAYS = ("mean", "scale", "weight", "bias_weight")


def best(scores: Array, k: int) -> Array:
    """Positions of the k highest scores, best first; equal scores in the catalogue's order."""
    k = min(k, len(scores))
    if k <= 0:
        return np.array([], np.int64)
    floor = np.partition(scores, len(scores) - k)[len(scores) - k]
    at = np.flatnonzero(scores >= floor)
    return np.asarray(at[np.argsort(-scores[at], kind="stable")][:k])


def index_of(ids: Strings, wanted: str, what: str) -> int:
    found = np.flatnonzero(ids == wanted)
    if not len(found):
        raise VbprError(f"no {what} '{wanted}' in this model of {len(ids):,} {what}s{near(wanted, ids[:200_000])}")
    return int(found[0])


__all__ = ["Factors", "Head", "best", "unit_rows"]
