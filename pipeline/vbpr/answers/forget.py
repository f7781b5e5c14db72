"""A customer taken out of a model file: the taste, what they took, and their id.

forget("artifacts/inc.model.h5", ["A0"])
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.locks import locked
from ..data.parts import MATRICES
from ..stores.model.factors import Factors


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """What a run did: users, purchases and columns of the model that are gone, and how many users are left."""

    users: int
    purchases: int
    columns: int
    left: int


def forget(model: Path | str, users: Sequence[str]) -> Forgotten:
    """Delete users from a model file, which is replaced in one step by one without a byte of them.

    Where a column of the model is of nobody else, as in a `hybrid` that keeps its scores as they are, it goes as well.
    Items' vectors and biases stay as all the purchases together made them.

    Raises:
        VbprError: the model has no such user, or would have none left.
    """
    path = Path(model)
    with locked(path):
        factors = Factors.load(path)
        gone = np.zeros(len(factors.user_ids), bool)
        gone[factors.user_indices(list(users))] = True
        if gone.all():
            raise VbprError(f"{path} would have no user left; delete the file instead")
        made = without(factors, gone)
        made.save(path)
    purchases = factors.seen.nnz - made.seen.nnz
    columns = factors.users.shape[1] - made.users.shape[1]
    return Forgotten(int(gone.sum()), purchases, columns, len(made.user_ids))


def without(factors: Factors, gone: Array) -> Factors:
    """A model less users under a mask (U,), and less columns that are of none of the others."""
    stay = np.flatnonzero(~gone)
    users = factors.users[stay]
    theirs = np.asarray(~users.any(0) & factors.users.any(0))
    head = factors.head
    if head is not None:
        head = head.of_columns(~theirs)
    record = factors.record
    about = dict(factors.about)
    if theirs.any() and record.columns:  # how many columns each part has now
        ends = np.cumsum([0, *(part["columns"] for part in record.columns)])
        about["columns"] = [
            {**part, "columns": int((~theirs[a:b]).sum())}
            for part, a, b in zip(record.columns, ends, ends[1:], strict=False)
        ]
    parts = {name: getattr(factors, name)[stay] for name in MATRICES}
    return dataclasses.replace(
        factors,
        users=users[:, ~theirs],
        items=factors.items[:, ~theirs],
        user_ids=factors.user_ids[stay],
        head=head,
        about=about,
        **parts,
    )


__all__ = ["Forgotten", "forget"]
