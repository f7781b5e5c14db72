"""Every fitted model is two matrices and a bias: scores(users) = U @ I.T + b.

    factors = Factors.load("artifacts/inc.model.h5"); ids, scores = factors.recommend(factors.user_index("A0"), 10)

Needs neither torch, nor images, nor the feature file.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ...base.arrays import Array, Strings
from ...base.errors import VbprError
from ...data.parts import MATRICES, Parts, digest_of
from .about import About
from .file import digest_of_model, read_model, write_model, write_safetensors
from .head import BLIND, Head
from .lists import write_lists
from .lookup import (
    at_least_one,
    check_held,
    index_of,
    indices_of,
    left_out,
    names_of,
    positions,
    positions_or_all,
)
from .topk import most_similar, top_for_many, top_of_scores


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Factors:
    """A fitted model.

    Attributes:
        users: (U, K) float32. items: (I, K) float32. bias: (I,) float32.
        user_ids, item_ids: (U,), (I,) strings.
        train, validation, test: (U, I) CSR, the split that it was fitted under; together, what each user has seen. See
            `Parts` for what they may be given as.
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
        parts = Parts(self.user_ids, self.item_ids, self.train, self.validation, self.test)
        for name, value in vars(parts).items():  # in the form in which they are kept
            object.__setattr__(self, name, value)
        shape = parts.train.shape
        for name in ("users", "items", "bias"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        check_numbers(self, shape)

    def __repr__(self) -> str:
        return self.record.described(len(self.user_ids), *self.items.shape)

    @property
    def record(self) -> About:
        """`about`, read: with types, and a value for what is not on record."""
        return About.of(self.about)

    def scores(self, users: Array) -> Array:
        """(n,) user positions -> (n, I) float32.

        Raises:
            VbprError: there is no such user.
        """
        return np.asarray(self.users[positions(users, len(self.user_ids), "user")] @ self.items.T + self.bias)

    @property
    def interactions(self) -> dict[str, int]:
        """How many there are in each part of the split."""
        return {name: getattr(self, name).nnz for name in MATRICES}

    @property
    def seen(self) -> sp.csr_matrix:
        """(U, I) CSR: everything a user took."""
        return self.train + self.validation + self.test

    def seen_by(self, user: int) -> Array:
        """Positions of the items that a user (by position) took.

        Raises:
            VbprError: there is no such user.
        """
        user = int(positions(user, len(self.user_ids), "user"))
        parts = (getattr(self, name) for name in MATRICES)
        return np.concatenate([part.indices[part.indptr[user] : part.indptr[user + 1]] for part in parts])

    def before_holding_out(self, held: str = "all") -> "Factors":
        """The same factors as if held-out items were not known: lists made with them can be measured elsewhere.

        Args:
            held: test, validation, or all. As in `evaluate`, the other part is known then, and does not compete.

        Raises:
            VbprError: another word.
        """
        check_held(held)
        nothing = sp.csr_matrix(self.train.shape, dtype=np.float32)
        return dataclasses.replace(self, **{name: nothing for name in MATRICES[1:] if held in (name, "all")})

    def recommend(
        self,
        user: int | str,
        k: int = 10,
        seen: bool = False,
        *,
        allowed: Array | None = None,
        diversity: float = 0.0,
        groups: Array | None = None,
    ) -> tuple[Array, Array]:
        """The k items of highest score for a user (position or id): positions and scores, best first.

        Args:
            seen: whether items that the user took may come back.
            allowed, diversity, groups: see `choose`.
        """
        at = self.user_index(user) if isinstance(user, str) else int(positions(user, len(self.user_ids), "user"))
        out = None if seen else self.seen_by(at)
        return self.choose(self.users[at], k, exclude=out, allowed=allowed, diversity=diversity, groups=groups)

    def choose(
        self,
        taste: Array,
        k: int = 10,
        *,
        exclude: Array | None = None,
        allowed: Array | None = None,
        diversity: float = 0.0,
        groups: Array | None = None,
    ) -> tuple[Array, Array]:
        """The k items of highest score for a taste (K,), of whoever it is: positions and scores, best first.

        Args:
            exclude: positions, or a mask, of what must not come back.
            allowed: (I,) bool, the items that may; None for all.
            diversity: 0 ranks by score alone; towards 1, items like those already chosen step back (`diversified`).
            groups: (I,) int64 from 0, such as the product that an item is a colour of: of a group only the best item
                comes, and none of a group that holds an excluded item.

        Raises:
            VbprError: `allowed` is no such mask, there is no such item to exclude, k is not positive, diversity not
                from 0 to 1, or the taste not of K finite numbers.
        """
        if np.shape(taste) != self.items.shape[1:] or not np.isfinite(taste).all():
            raise VbprError(f"a taste is {self.items.shape[1]} finite numbers; this one is of shape {np.shape(taste)}")
        scores = self.items @ taste + self.bias
        return top_of_scores(scores, self.items.__getitem__, k, exclude, allowed, diversity, groups)

    def recommend_all(
        self,
        users: Array | None = None,
        k: int = 10,
        seen: bool = False,
        *,
        allowed: Array | None = None,
        groups: Array | None = None,
        block: int = 2**21,
        advance: Callable[[int], None] = lambda users: None,
    ) -> tuple[Array, Array]:
        """The same for many users at once: (n, k) positions and scores; -1 and -inf where there is nothing left.

        A product of matrices sums in an order that depends on where an item stands: last bits, and with them the order
        of items that look alike to the model, may be others than those of `recommend`.

        Args:
            users: positions, or a mask; None for everyone.
            groups: see `choose`.
            block: scores held at a time (4 bytes each, twice).
            advance: is told how many users have been done since it was told last.

        Raises:
            VbprError: there is no such user, `allowed` is no mask, or k is not positive.
        """
        users = positions_or_all(users, len(self.user_ids), "user")
        at_least_one(k)
        taken = None if seen else self.train[users] + self.validation[users] + self.test[users]
        return top_for_many(self.users, users, self.items, self.bias, k, taken, allowed, groups, block, advance)

    def fold_in(self, *liked: Array) -> Array:
        """(K,) the taste of someone unknown, from the vectors (n, K) of what they like: items of the catalogue and
        photos through the head (`encoded`).

        The known users teach the map, in closed form: a ridge regression of their tastes on what they took.

        Raises:
            VbprError: these are no vectors of K numbers.
        """
        vectors = np.concatenate([np.atleast_2d(each) for each in liked]).astype(np.float32)
        if vectors.shape[1:] != self.items.shape[1:]:
            raise VbprError(f"what is liked are vectors of {self.items.shape[1]} numbers; got {vectors.shape}")
        total = vectors.sum(0) / np.float32(max(1, len(vectors)) ** 0.5)
        return np.asarray(np.append(total, np.float32(1)) @ self._folding)

    def encoded(self, features: Array) -> Array:
        """(n, K) vectors of photos, from their features (n, D).

        Raises:
            VbprError: this model cannot read photos, or has other features.
        """
        if self.head is None:
            raise VbprError(BLIND)
        return self.head(features)[0]

    @functools.cached_property
    def _folding(self) -> Array:
        return folding_of(self.train, self.items, self.users)

    def similar_items(self, item: int | str, k: int = 10) -> tuple[Array, Array]:
        """The k items of highest cosine to an item (position or id), exactly: positions and cosines, best first; none
        to an item of which the model knows nothing. For large catalogues, photos and filters there is `Nearest`."""
        at = self.item_index(item) if isinstance(item, str) else int(positions(item, len(self.item_ids), "item"))
        return most_similar(self.items, at, k)

    def extended(self, item_ids: Strings, vectors: Array, bias: Array) -> "Factors":
        """The same model with items appended that nobody has taken yet: their ids (n,), vectors (n, K) and biases (n,).

        Raises:
            VbprError: it has one of them already, or one comes twice.
        """
        return extend(self, item_ids, vectors, bias)

    def names(self, items: Array) -> list[str]:
        """The ids of items by position."""
        return names_of(self.item_ids[items])

    def user_index(self, user_id: str) -> int:
        """The position of a user.

        Raises:
            VbprError: unknown; the message names near ids.
        """
        return index_of(self.user_ids, user_id, "user", left_out(self.record.dropped_users))

    def item_index(self, item_id: str) -> int:
        """The position of an item; see `user_index`."""
        return index_of(self.item_ids, item_id, "item")

    def user_indices(self, user_ids: Sequence[str]) -> Array:
        """(n,) positions of users; see `user_index`."""
        return indices_of(self.user_ids, user_ids, "user")

    def item_indices(self, item_ids: Sequence[str]) -> Array:
        """(n,) positions of items; see `item_index`."""
        return indices_of(self.item_ids, item_ids, "item")

    def digest(self) -> str:
        """Of every id and number (BLAKE2b, 32 hexadecimal digits): what a damaged file does not agree with."""
        return digest_of_model(self)

    def split_digest(self) -> str:
        """Of the ids and the three parts alone, alike: models with the same one are measured on the same."""
        return digest_of(self).hexdigest()

    def save(self, path: Path | str) -> None:
        """Write the model file (HDF5), atomically."""
        write_model(path, self)

    @classmethod
    def load(cls, path: Path | str) -> "Factors":
        """Read a model file.

        Raises:
            VbprError: not a model file, damaged, or foreign.
        """
        return read_model(path, cls)

    def write_recommendations(
        self,
        path: Path | str,
        k: int = 10,
        users: Array | None = None,
        seen: bool = False,
        allowed: Array | None = None,
        groups: Array | None = None,
        chunk: int = 16384,
    ) -> int:
        """Write the recommendations of many users (positions; None for everyone) as Parquet or CSV, by the name:
        user_id, rank, item_id, score. Atomic; returns the number of rows. For the rest see `recommend`."""
        return write_lists(path, self, k, users, seen, allowed, groups, chunk)

    def to_safetensors(self, path: Path | str) -> None:
        """Write users, items and bias as safetensors, with the ids and `about` as JSON in its metadata. Atomic.

        Raises:
            VbprError: more texts than the format holds.
        """
        write_safetensors(path, self)


def check_numbers(factors: Factors, shape: tuple[int, int]) -> None:
    """Refuse matrices that do not fit so many (users, items), or each other, or hold what is no number.

    Raises:
        VbprError: telling which.
    """
    users, items, bias, head = factors.users, factors.items, factors.bias, factors.head
    if (
        users.ndim != 2
        or items.shape != (shape[1], users.shape[1])
        or len(users) != shape[0]
        or bias.shape != (shape[1],)
        or (head is not None and not head.fits(users.shape[1]))
    ):
        of_head = "" if head is None else f", head {head.weight.shape}"
        raise VbprError(
            f"factors do not fit together: users {users.shape}, items {items.shape}, bias "
            f"{bias.shape}{of_head} for {shape[0]:,} user and {shape[1]:,} item ids; train again"
        )
    finite = all(np.isfinite(part).all() for part in (users, items, bias))
    if not finite or (head is not None and not head.finite()):
        raise VbprError("factors hold values that are not finite; train again with a lower --lr")


def extend(factors: Factors, item_ids: Strings, vectors: Array, bias: Array) -> Factors:
    """See `Factors.extended`."""
    if len(np.intersect1d(item_ids, factors.item_ids)) or len(np.unique(item_ids)) < len(item_ids):
        raise VbprError("items to add must be new and distinct; leave out those that the model has")
    shape = (len(factors.user_ids), len(factors.item_ids) + len(item_ids))
    parts = {}
    for name in MATRICES:
        part = getattr(factors, name)
        parts[name] = sp.csr_matrix((part.data, part.indices, part.indptr), shape=shape)
    return dataclasses.replace(
        factors,
        items=np.concatenate([factors.items, vectors.astype(np.float32)]),
        bias=np.concatenate([factors.bias, bias.astype(np.float32)]),
        item_ids=np.concatenate([factors.item_ids, item_ids]),
        **parts,
    )


def folding_of(train: sp.csr_matrix, items: Array, users: Array) -> Array:
    """(K + 1, K): the sum of the vectors a user took, over the root of their number, and a one -> their taste.

    A ridge regression, in closed form.
    """
    count = np.diff(train.indptr)
    taken = np.asarray(train @ items) / np.maximum(1, count)[:, None] ** 0.5
    x = np.append(taken, np.ones((len(taken), 1), np.float32), 1)[count > 0].astype(np.float64)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += 1e-3 * np.trace(gram) / len(gram)
    return np.linalg.solve(gram, x.T @ users[count > 0]).astype(np.float32)


__all__ = ["Factors"]
