"""What was bought since a model was trained, taken into its file: new purchases, new users, new items.

update("artifacts/inc.model.h5", "new.csv")
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ...base.arrays import Array, Strings, places
from ...base.errors import VbprError
from ...base.locks import locked
from ...base.stopping import stop_signals
from ...base.targets import check_target
from ...data.interactions import Interactions
from ...stores.features.store import FeatureStore, stores_of
from ...stores.model.factors import Factors
from ..catalogue import align
from .fold import Moved, folded
from .steps import trained

MOST = 0.3  # new purchases of those that the model was trained on, all updates together
EXACT = ("knn", "popularity")  # in closed form
WITHOUT = ("random", "dvbpr")  # chance; and a network, which its file does not keep


@dataclasses.dataclass(frozen=True)
class Updated:
    """What a run took in.

    Attributes:
        factors, path: the model, and its file. pairs: purchases that are new; known: that it had already.
        users, items: ids that it did not know before. blind: new items whose features are not at hand.
        seconds: all of it.
    """

    factors: Factors
    path: Path
    pairs: int
    known: int
    users: list[str]
    items: list[str]
    blind: list[str]
    seconds: float


def update(
    model: Path | str,
    interactions: Path | str | Interactions,
    features: Sequence[Path | str | FeatureStore] = (),
    out: Path | str | None = None,
) -> Updated:
    """Take new purchases into a model; its file is replaced in one step, and a kill leaves the old one.

    Args:
        interactions: new ones; those that the model has already do no harm.
        features: of new items, as the model's own were made; none: the files on record, where they are there.
        out: where the new model goes; None: in place of the old one.

    Raises:
        VbprError: nothing is new, or too much is; a model that cannot be updated; features of another kind.
        Stopped: Ctrl-C or SIGTERM; nothing is changed.
    """
    started, path = time.monotonic(), Path(model)
    target = path if out is None else Path(out)
    check_target(target, "model")
    with locked(target), stop_signals() as stopping:
        factors = Factors.load(path)
        name = factors.record.model
        if name in WITHOUT:
            raise VbprError(f"a {name} model cannot be updated; train it again")
        read = interactions if isinstance(interactions, Interactions) else Interactions.read(interactions)
        grown, new, known, blind = grow(factors, read, features)
        refuse_too_much(factors, new)
        before, now = grown.train, (grown.train + new).tocsr()
        moved = folded(grown, before, now, len(factors.user_ids))
        if name not in EXACT:
            seed = int(factors.record.config.get("seed", 0))
            moved = trained(moved, before, new, seed, stopping, f"stopped; {target} is as it was")
        entry: dict[str, Any] = {
            "interactions": "given in memory" if isinstance(interactions, Interactions) else str(Path(interactions)),
            "pairs": int(new.nnz),
            "users": len(grown.user_ids) - len(factors.user_ids),
            "items": len(grown.item_ids) - len(factors.item_ids),
        }
        made = with_numbers(grown, moved, now, [*factors.record.updates, entry])
        made.save(target)
    users, items = grown.user_ids[len(factors.user_ids) :], grown.item_ids[len(factors.item_ids) :]
    seconds = time.monotonic() - started
    return Updated(made, target, int(new.nnz), known, users.tolist(), items.tolist(), blind, seconds)


def with_numbers(grown: Factors, moved: Moved, now: sp.csr_matrix, updates: list[dict[str, Any]]) -> Factors:
    about = grown.about | {"updates": updates}
    return dataclasses.replace(grown, users=moved.users, items=moved.items, bias=moved.bias, train=now, about=about)


def grow(
    factors: Factors, read: Interactions, features: Sequence[Path | str | FeatureStore]
) -> tuple[Factors, sp.csr_matrix, int, list[str]]:
    """The model with rows for users and items that it did not know, (U, I) CSR of the purchases that are new, how many
    were known, and the new items without features.

    Raises:
        VbprError: see `vectors_of`.
    """
    user_ids = np.concatenate([factors.user_ids, np.setdiff1d(read.user_ids, factors.user_ids)])
    fresh = np.setdiff1d(read.item_ids, factors.item_ids)
    vectors, bias, blind = vectors_of(factors, fresh, features)
    wide = factors.extended(fresh, vectors, bias) if len(fresh) else factors
    shape = (len(user_ids), len(wide.item_ids))
    parts = {name: taller(getattr(wide, name), shape) for name in ("train", "validation", "test")}
    users = np.zeros((shape[0], factors.users.shape[1]), np.float32)
    users[: len(factors.users)] = factors.users
    grown = dataclasses.replace(wide, user_ids=user_ids, users=users, **parts)
    at_users, at_items = places(user_ids, read.user_ids)[read.users], places(wide.item_ids, read.item_ids)[read.items]
    given = sp.csr_matrix((np.ones(len(at_users), np.float32), (at_users, at_items)), shape=shape)
    new = sp.csr_matrix(given - given.multiply(grown.seen))
    new.eliminate_zeros()
    return grown, new, len(read) - new.nnz, blind


def taller(matrix: sp.csr_matrix, shape: tuple[int, int]) -> sp.csr_matrix:
    """A matrix with empty rows added."""
    indptr = np.append(matrix.indptr, np.full(shape[0] - matrix.shape[0], matrix.indptr[-1], matrix.indptr.dtype))
    return sp.csr_matrix((matrix.data, matrix.indices, indptr), shape=shape)


def vectors_of(
    factors: Factors, item_ids: Strings, features: Sequence[Path | str | FeatureStore]
) -> tuple[Array, Array, list[str]]:
    """(n, K) vectors and (n,) biases of new items as their features have it, zeros where there are none; and the ids of
    those.

    Raises:
        VbprError: features of another kind than the model's.
    """
    vectors, bias = np.zeros((len(item_ids), factors.items.shape[1]), np.float32), np.zeros(len(item_ids), np.float32)
    if factors.head is None or not len(item_ids):
        return vectors, bias, []
    recorded = factors.record.features
    paths = features or [entry["path"] for entry in recorded if Path(entry["path"]).is_file()]
    if not features and len(paths) < len(recorded):
        return vectors, bias, item_ids.tolist()
    stores = stores_of(paths)
    for store, entry in zip(stores, recorded, strict=False):
        for key in ("backbone", "weights_digest", "preprocessing"):
            if entry.get(key) != store.provenance.get(key):
                raise VbprError(
                    f"{store.path} was made otherwise than the features of this model ({key}); give --features the "
                    "files that it was trained on, in their order"
                )
    if len(stores) != len(recorded):
        raise VbprError(f"this model was trained on {len(recorded)} feature files, and {len(stores)} are given")
    has = np.logical_and.reduce([store.find(item_ids) >= 0 for store in stores])
    if has.any():
        rows = align(stores, item_ids[has]).matrix
        vectors[has], bias[has] = factors.head(np.asarray(rows[np.arange(int(has.sum()))]))
    return vectors, bias, item_ids[~has].tolist()


def refuse_too_much(factors: Factors, new: sp.csr_matrix) -> None:
    """
    Raises:
        VbprError: nothing is new, or so much that the model's items, its features' head and its number of columns,
            which stay, are those of another shop.
    """
    if not new.nnz:
        raise VbprError("none of these interactions is new to the model; it has them all")
    earlier = sum(entry["pairs"] for entry in factors.record.updates)
    share = (new.nnz + earlier) / max(1, factors.train.nnz - earlier)
    if share > MOST:
        raise VbprError(
            f"{new.nnz:,} new purchases"
            + (f" and {earlier:,} of earlier updates" if earlier else "")
            + f" are {share:.0%} of the {factors.train.nnz - earlier:,} that this model was trained on; an "
            f"update is for at most {MOST:.0%} (docs/weekly.md has what it gives up): train again"
        )


__all__ = ["Updated", "update"]
