"""A model file that one question is asked of: what the answer needs is read, by blocks, and nothing else.

model = StoredModel.open("artifacts/inc.model.h5"); model.recommend(model.user_index("A0"), 10)
"""

import contextlib
import copy
import functools
import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from ...base.arrays import Array, Strings
from ...base.errors import VbprError
from ...base.hdf5 import damaged, decoded, open_h5, read_text
from ...data.parts import MATRICES
from .about import About, check_about
from .blocks import Blocks
from .file import CHECKS, read_head
from .head import Head
from .lookup import check_held, index_of, left_out, names_of
from .topk import top_of_scores

if TYPE_CHECKING:
    from .factors import Factors


class StoredModel:
    """A model of which each block is read when it is needed, and checked; see `Factors` for what is in it.

    Attributes:
        path: of the file. about: JSON values; record: the same, with types. digest: of all ids and numbers.
        users, items, bias, user_names, item_names, parts: `Blocks` of each array; ids are UTF-8.
        head: see `Factors`.
    """

    def __init__(self, path: Path, handle: h5py.File) -> None:
        self.path, self.about = path, json.loads(read_text(handle, "about"))
        check_about(self.about)
        self.record, self.digest = About.of(self.about), read_text(handle, "digest")
        file = os.dup(handle.id.get_vfd_handle())
        weakref.finalize(self, os.close, file)
        self.whole: StoredModel | None = None  # of a part of a model, what keeps the file open
        blocks = functools.partial(Blocks, file, handle, handle[CHECKS])
        self.user_names, self.item_names = blocks("user_ids", (None,)), blocks("item_ids", (None,))
        shape = len(self.user_names), len(self.item_names)
        self.users, self.items = blocks("users", (shape[0], None)), blocks("items", (shape[1], None))
        self.bias = blocks("bias", (shape[1],))
        self.parts = {
            name: (blocks(f"{name}/indptr", (shape[0] + 1,)), blocks(f"{name}/indices", (None,))) for name in MATRICES
        }
        if self.users.shape[1:] != self.items.shape[1:]:
            raise ValueError(f"users {self.users.shape} and items {self.items.shape} do not fit together")
        self.head: Head | None = read_head(handle["head"]) if "head" in handle else None

    @classmethod
    def open(cls, path: Path | str) -> "StoredModel | None":
        """The model in a file; None where it is one of old, whose blocks have no checks: load that as `Factors`.

        Raises:
            VbprError: not a model file, damaged, or foreign.
        """
        with reading(path), open_h5(path, "model") as handle:
            return cls(Path(path), handle) if CHECKS in handle else None

    def __repr__(self) -> str:
        return self.record.described(len(self.users), *self.items.shape)

    @property
    def interactions(self) -> dict[str, int]:
        """See `Factors.interactions`."""
        return {name: len(indices) for name, (_, indices) in self.parts.items()}

    def user_index(self, user_id: str) -> int:
        """See `Factors.user_index`."""
        with reading(self.path):
            return index_of(self.user_names[:], user_id, "user", left_out(self.record.dropped_users))

    @functools.cached_property
    def item_ids(self) -> Strings:
        """(I,) strings."""
        with reading(self.path):
            return decoded(self.item_names[:])

    def names(self, items: Array) -> list[str]:
        """The ids of items by position."""
        with reading(self.path):
            return names_of(self.item_names.take(items))

    def before_holding_out(self, held: str = "all") -> "StoredModel":
        """See `Factors.before_holding_out`."""
        check_held(held)
        known = copy.copy(self)
        parts = {name: part for name, part in self.parts.items() if name == MATRICES[0] or held not in (name, "all")}
        known.parts, known.whole = parts, self
        return known

    def seen_by(self, user: int) -> Array:
        """See `Factors.seen_by`."""
        parts = []
        with reading(self.path):
            for name, (indptr, indices) in self.parts.items():
                first, end = indptr.span(user, user + 2).tolist()
                if not 0 <= first <= end <= len(indices):
                    raise ValueError(f"{name} is no matrix")
                parts.append(indices.span(first, end))
        seen = np.concatenate(parts)
        if len(seen) and not 0 <= seen.min() <= seen.max() < len(self.items):
            raise VbprError(damaged(self.path, ValueError("a user took an item that is not there"), "train again"))
        return seen

    def recommend(
        self,
        user: int,
        k: int = 10,
        seen: bool = False,
        *,
        allowed: Array | None = None,
        diversity: float = 0.0,
        groups: Array | None = None,
    ) -> tuple[Array, Array]:
        """See `Factors.recommend`; `user` is a position."""
        taken = None if seen else self.seen_by(user)
        with reading(self.path):
            taste = self.users.take(np.array([user]))[0]
            scores = np.array(self.bias[:])
            for first, vectors in self.items:
                scores[first : first + len(vectors)] += vectors @ taste
            if not np.isfinite(scores).all():
                raise ValueError("scores are not finite")
            return top_of_scores(scores, self.items.take, k, taken, allowed, diversity, groups)


def model_in(path: Path | str) -> "Factors | StoredModel":
    """The model in a file, of which no more is read than is asked for; one of old is read whole.

    Raises:
        VbprError: not a model file, damaged, or foreign.
    """
    stored = StoredModel.open(path)
    if stored is not None:
        return stored
    from .factors import Factors

    return Factors.load(path)


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Tell of whatever reading a damaged file raises.

    Raises:
        VbprError: in words.
    """
    try:
        yield
    except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise VbprError(damaged(Path(path), error, "train again")) from error


__all__ = ["StoredModel", "model_in", "reading"]
