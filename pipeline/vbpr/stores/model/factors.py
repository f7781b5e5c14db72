"""Every fitted model is two matrices and a bias: scores(users) = U @ I.T + b.

    factors = Factors.load("artifacts/inc.model.h5"); ids, scores = factors.recommend(factors.user_index("A0"), 10)

Needs neither torch, nor images, nor the feature file.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ...base.arrays import Array, Strings
from ...base.errors import VbprError
from ...base.files import replacing, replacing_h5, replacing_table
from ...base.hdf5 import damaged, open_h5, read_numbers, read_strings, read_text, write_strings, write_text
from ...base.progress import Progress
from ...data.parts import MATRICES, Parts, digest_of
from .about import check_about
from .head import HEAD_ARRAYS, Head
from .lookup import at_least_one, index_of, indices_of, mask_of, positions
from .topk import ACROSS, POOL, ROWS, best, best_of_rows, diversified, first_of_groups


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
        if (
            self.users.ndim != 2
            or self.items.shape != (shape[1], self.users.shape[1])
            or len(self.users) != shape[0]
            or self.bias.shape != (shape[1],)
            or (self.head is not None and not self.head.fits(self.users.shape[1]))
        ):
            head = "" if self.head is None else f", head {self.head.weight.shape}"
            raise VbprError(
                f"factors do not fit together: users {self.users.shape}, items {self.items.shape}, bias "
                f"{self.bias.shape}{head} for {shape[0]:,} user and {shape[1]:,} item ids; train again"
            )
        finite = all(np.isfinite(part).all() for part in (self.users, self.items, self.bias))
        if not finite or (self.head is not None and not self.head.finite()):
            raise VbprError("factors hold values that are not finite; train again with a lower --lr")

    def __repr__(self) -> str:
        return (
            f"Factors({self.about.get('model', 'model')}, {len(self.user_ids):,} users, {len(self.item_ids):,} "
            f"items, K {self.users.shape[1]})"
        )

    def scores(self, users: Array) -> Array:
        """(n,) user positions -> (n, I) float32.

        Raises:
            VbprError: there is no such user.
        """
        return np.asarray(self.users[positions(users, len(self.user_ids), "user")] @ self.items.T + self.bias)

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

    def before_holding_out(self) -> "Factors":
        """The same factors as if the held-out items were not known: lists made with them can be measured elsewhere."""
        nothing = sp.csr_matrix(self.train.shape, dtype=np.float32)
        return dataclasses.replace(self, validation=nothing, test=nothing)

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
        return self.choose(
            self.users[at],
            k,
            exclude=None if seen else self.seen_by(at),
            allowed=allowed,
            diversity=diversity,
            groups=groups,
        )

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
        at_least_one(k)
        if not 0 <= diversity <= 1:
            raise VbprError(f"diversity is {diversity}; it must be from 0 to 1")
        if np.shape(taste) != self.items.shape[1:] or not np.isfinite(taste).all():
            raise VbprError(f"a taste is {self.items.shape[1]} finite numbers; this one is of shape {np.shape(taste)}")
        scores = self.items @ taste + self.bias
        if allowed is not None:
            scores[~mask_of(allowed, len(scores))] = -np.inf
        if exclude is not None:
            out = positions(exclude, len(scores), "item")
            scores[out if groups is None else np.isin(groups, groups[out])] = -np.inf
        if groups is not None:
            highest = np.full(groups.max(initial=0) + 1, -np.inf, scores.dtype)
            np.maximum.at(highest, groups, scores)
            leading = np.flatnonzero(scores == highest[groups])
            others = np.ones(len(scores), bool)
            others[leading[np.unique(groups[leading], return_index=True)[1]]] = False
            scores[others] = -np.inf
        top = best(scores, k if not diversity else max(POOL, 10 * k))
        top = top[np.isfinite(scores[top])]
        if diversity:
            top = top[diversified(scores[top], self.items[top], k, diversity)]
        return top, scores[top]

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
        users = self._who(users)
        at_least_one(k)
        taken = None if seen else self.train[users] + self.validation[users] + self.test[users]
        if groups is None:
            return self._top(users, k, taken, allowed, block, advance)
        found, values = self._top(users, min(4 * k, len(groups)), taken, allowed, block, advance)
        first, gone = first_of_groups(found, groups), np.zeros(len(users), np.int64)
        if taken is not None:  # none of a group of which the user has one
            row = np.repeat(np.arange(len(users)), np.diff(taken.indptr))
            count = int(groups.max(initial=0)) + 1
            has = np.unique(row * count + groups[taken.indices])
            first &= ~np.isin(np.arange(len(users))[:, None] * count + groups[found], has)
            gone = np.bincount(has // count, minlength=len(users))
        place = np.cumsum(first, 1) - 1
        row, column = np.nonzero(first & (place < k))
        items, scores = np.full((len(users), k), -1, np.int64), np.full((len(users), k), -np.inf, np.float32)
        items[row, place[row, column]], scores[row, place[row, column]] = found[row, column], values[row, column]
        # Some lists hold so many of one group that the rest of the catalogue has to be looked at.
        there = len(np.unique(groups if allowed is None else groups[allowed]))
        short = (place[:, -1] + 1 < np.minimum(k, there - gone)) & (found[:, -1] >= 0)
        for n in np.flatnonzero(short):
            exclude = None if taken is None else taken[[n]].indices
            best_items, own = self.choose(self.users[users[n]], k, exclude=exclude, allowed=allowed, groups=groups)
            items[n], scores[n] = -1, -np.inf
            items[n, : len(own)], scores[n, : len(own)] = best_items, own
        return items, scores

    def _top(
        self,
        users: Array,
        k: int,
        taken: sp.csr_matrix | None,
        allowed: Array | None,
        block: int,
        advance: Callable[[int], None],
    ) -> tuple[Array, Array]:
        """`recommend_all` for positions of users, without what is `taken` (n, I)."""
        items, scores = np.full((len(users), k), -1, np.int64), np.full((len(users), k), -np.inf, np.float32)
        pool = np.arange(len(self.item_ids))
        vectors, bias = self.items, self.bias
        if allowed is not None:
            pool = np.flatnonzero(mask_of(allowed, len(self.item_ids)))
            vectors, bias, taken = vectors[pool], bias[pool], None if taken is None else taken[:, pool]
        width = min(k, len(pool))
        # Blocks of items, alike, and of as many users as make `block` scores.
        across = -(-len(pool) // max(1, len(pool) // max(ACROSS, 2 * width)))
        step = max(1, min(ROWS, block // max(1, across)))
        for a in range(0, len(users) if width else 0, step):
            rows = users[a : a + step]
            there = None if taken is None else taken[a : a + step].tocsc()
            top = np.full((len(rows), width), -1), np.full((len(rows), width), -np.inf, np.float32)
            for start in range(0, len(pool), across):
                first = min(start, len(pool) - across)  # of one shape, the last one reaching back
                s = self.users[rows] @ vectors[first : first + across].T
                s += bias[first : first + across]
                s[:, : start - first] = -np.inf
                if there is not None:
                    low, high = there.indptr[[start, first + across]]
                    column = np.repeat(
                        np.arange(start - first, across), np.diff(there.indptr[start : first + across + 1])
                    )
                    s[there.indices[low:high], column] = -np.inf
                best_of_rows(top, s, first)
            items[a : a + step, :width] = np.where(top[0] < 0, -1, pool[top[0]])
            scores[a : a + step, :width] = top[1]
            advance(len(rows))
        return items, scores

    def _who(self, users: Any) -> Array:
        """(n,) positions of users, from positions, one position, or a mask; None: of everyone."""
        count = len(self.user_ids)
        return np.arange(count) if users is None else np.atleast_1d(positions(users, count, "user"))

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
        """(K + 1, K): the sum of the vectors a user took, over the root of their number, and a one -> their taste."""
        count = np.diff(self.train.indptr)
        taken = np.asarray(self.train @ self.items) / np.maximum(1, count)[:, None] ** 0.5
        x = np.append(taken, np.ones((len(taken), 1), np.float32), 1)[count > 0].astype(np.float64)
        gram = x.T @ x
        gram[np.diag_indices_from(gram)] += 1e-3 * np.trace(gram) / len(gram)
        return np.linalg.solve(gram, x.T @ self.users[count > 0]).astype(np.float32)

    def similar_items(self, item: int | str, k: int = 10) -> tuple[Array, Array]:
        """The k items of highest cosine to an item (position or id), exactly: positions and cosines, best first.

        None to an item of which the model knows nothing.

        For large catalogues, photos and filters there is `Nearest`.
        """
        at = self.item_index(item) if isinstance(item, str) else int(positions(item, len(self.item_ids), "item"))
        length = np.maximum(np.linalg.norm(self.items, axis=1), 1e-12)
        cosine = (self.items @ self.items[at]) / (length * length[at])
        cosine[at] = -np.inf
        top = best(cosine, min(k, len(cosine) - 1) if length[at] > 1e-12 else 0)
        return top, cosine[top]

    def extended(self, item_ids: Strings, vectors: Array, bias: Array) -> "Factors":
        """The same model with items appended that nobody has taken yet."""
        if len(np.intersect1d(item_ids, self.item_ids)) or len(np.unique(item_ids)) < len(item_ids):
            raise VbprError("items to add must be new and distinct; leave out those that the model has")
        shape = (len(self.user_ids), len(self.item_ids) + len(item_ids))
        parts = {}
        for name in MATRICES:
            part = getattr(self, name)
            parts[name] = sp.csr_matrix((part.data, part.indices, part.indptr), shape=shape)
        return dataclasses.replace(
            self,
            items=np.concatenate([self.items, vectors.astype(np.float32)]),
            bias=np.concatenate([self.bias, bias.astype(np.float32)]),
            item_ids=np.concatenate([self.item_ids, item_ids]),
            **parts,
        )

    def user_index(self, user_id: str) -> int:
        """The position of a user.

        Raises:
            VbprError: unknown; the message names near ids.
        """
        try:
            return index_of(self.user_ids, user_id, "user")
        except VbprError as error:
            if not (left_out := self.about.get("dropped_users")):
                raise
            raise VbprError(
                f"{error}; its split left out users with too few items ({left_out:,}): train with --split none, no "
                "--k-core, to have them, or ask by what they --liked"
            ) from error

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
        total = digest_of(self)
        heads = [] if self.head is None else [getattr(self.head, name) for name in HEAD_ARRAYS]
        for array in (self.users, self.items, self.bias, *heads):
            total.update(np.ascontiguousarray(array, "<f4").data)
        return total.hexdigest()

    def split_digest(self) -> str:
        """Of the ids and the three parts alone, alike: models with the same one are measured on the same."""
        return digest_of(self).hexdigest()

    def save(self, path: Path | str) -> None:
        """Write the model file (HDF5), atomically."""
        about, parts = json.dumps(self.about), [getattr(self, name) for name in MATRICES]
        arrays = [self.users, self.items, self.bias, self.user_ids, self.item_ids]
        arrays += [] if self.head is None else [getattr(self.head, name) for name in HEAD_ARRAYS]
        size = sum(a.nbytes for a in arrays) + sum(4 * part.nnz + 8 * len(part.indptr) for part in parts) + len(about)
        with replacing_h5(path, "model", size) as handle:
            write_text(handle, "about", about)
            write_text(handle, "digest", self.digest())
            for name in ("users", "items", "bias"):
                handle.create_dataset(name, data=getattr(self, name).astype("<f4"))
            write_strings(handle, "user_ids", self.user_ids)
            write_strings(handle, "item_ids", self.item_ids)
            for name, part in zip(MATRICES, parts, strict=True):
                group = handle.create_group(name)
                group.create_dataset("indptr", data=part.indptr.astype("<i8"))
                group.create_dataset("indices", data=part.indices.astype("<i4"))
            if self.head is not None:
                group = handle.create_group("head")
                for name in HEAD_ARRAYS:
                    group.create_dataset(name, data=getattr(self.head, name).astype("<f4"))
                group.attrs["unit"] = self.head.unit

    def write_recommendations(
        self,
        path: Path | str,
        k: int = 10,
        users: Array | None = None,
        seen: bool = False,
        allowed: Array | None = None,
        groups: Array | None = None,
        chunk: int = 8192,
    ) -> int:
        """Write the recommendations of many users (positions; None for everyone) as Parquet or CSV, by the name:
        user_id, rank, item_id, score. Atomic; returns the number of rows. For the rest see `recommend`."""
        import pyarrow as pa

        users = self._who(users)
        k = min(k, len(self.item_ids))
        names, written = pa.array(self.item_ids.tolist(), pa.string()), 0
        schema = pa.schema(
            [("user_id", pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32())]
        )
        with (
            replacing_table(path, schema) as writer,
            Progress("recommend", len(users), "users") as bar,
        ):
            for a in range(0, len(users), chunk):
                some = users[a : a + chunk]
                items, scores = self.recommend_all(some, k, seen, allowed=allowed, groups=groups, advance=bar.advance)
                row, place = np.nonzero(items >= 0)
                who = pa.array(self.user_ids[some].tolist(), pa.string())
                columns = [
                    who.take(pa.array(row)),
                    pa.array((place + 1).astype(np.int32)),
                    names.take(pa.array(items[row, place])),
                    pa.array(scores[row, place]),
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                written += len(row)
        return written

    def to_safetensors(self, path: Path | str) -> None:
        """Write users, items and bias as safetensors, with the ids and `about` as JSON in its metadata. Atomic.

        Raises:
            VbprError: more texts than the format holds.
        """
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in ("users", "items", "bias")}
        texts = {name: json.dumps(getattr(self, name).tolist()) for name in ("user_ids", "item_ids")}
        texts["about"] = json.dumps(self.about)
        if len(json.dumps(texts)) > SAFE_TEXTS:
            raise VbprError(
                f"{path}: the ids of {len(self.user_ids):,} users and {len(self.item_ids):,} items are more text than "
                "safetensors holds (100 MB); use the model file as it is, or write_recommendations"
            )
        with replacing(path, "tensors") as temporary:
            save_file(arrays, temporary, texts)

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
                for name in MATRICES:
                    indptr = read_numbers(handle[name], "indptr", (shape[0] + 1,))
                    indices = read_numbers(handle[name], "indices", (None,))
                    if (
                        indptr[0] != 0
                        or indptr[-1] != len(indices)
                        or (np.diff(indptr) < 0).any()
                        or (len(indices) and not 0 <= indices.min() <= indices.max() < shape[1])
                    ):
                        raise ValueError(f"{name} is not a matrix of {shape}")
                    parts[name] = sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=shape)
                head = None
                if "head" in handle:
                    group = handle["head"]
                    stored = {
                        name: read_numbers(group, name, (None,) * (1 + (name == "weight"))).astype(np.float32)
                        for name in HEAD_ARRAYS
                    }
                    head = Head(**stored, unit=bool(group.attrs["unit"]))
                shapes = {"users": (shape[0], None), "items": (shape[1], None), "bias": (shape[1],)}
                users, items, bias = (
                    read_numbers(handle, name, of).astype(np.float32, copy=False) for name, of in shapes.items()
                )
                about = json.loads(read_text(handle, "about"))
                check_about(about)
                written = read_text(handle, "digest") if "digest" in handle.attrs else None
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            raise VbprError(damaged(Path(path), error, "train again")) from error
        try:
            factors = cls(users, items, bias, user_ids, item_ids, **parts, head=head, about=about)
        except VbprError as error:
            raise VbprError(f"{path}: {error}") from error
        if written not in (None, factors.digest()):
            raise VbprError(f"{path} is damaged (its numbers are not those that were written); train again")
        return factors


SAFE_TEXTS = 100_000_000 - 1000  # bytes of a safetensors header, less what names three arrays
BLIND = (  # why a model without a head cannot place what it has not seen
    "this model cannot read a photo: it was made without images, or with a network that its file does not keep "
    "(dvbpr); use --model visual or vbpr"
)

__all__ = ["BLIND", "Factors"]
