"""Train, validation and test: three matrices over one catalogue, with the ids of its users and items."""

import dataclasses
import hashlib
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.arrays import Array, Strings, update_with_ids
from ..base.errors import VbprError

if TYPE_CHECKING:
    import scipy.sparse as sp


def csr(users: Array, items: Array, shape: tuple[int, int]) -> "sp.csr_matrix":
    """A (U, I) float32 matrix of ones, columns sorted in each row."""
    import scipy.sparse as sp

    return sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)


MATRICES = ("train", "validation", "test")


def ones(matrix: Any, name: str, shape: tuple[int, int]) -> "sp.csr_matrix":
    """A matrix as CSR with a float32 1 where it is not 0, columns sorted; the same object where it is so already.

    Raises:
        VbprError: it has another shape, or a number in it is not finite; the message has its `name`.
    """
    import scipy.sparse as sp

    if np.shape(matrix) != shape:
        raise VbprError(f"{name} is a matrix of {np.shape(matrix)} for {shape[0]:,} users and {shape[1]:,} items")
    if (
        isinstance(matrix, sp.csr_matrix)
        and matrix.dtype == np.float32
        and matrix.has_canonical_format
        and (matrix.data == 1).all()
    ):
        return matrix
    matrix = sp.csr_matrix(matrix, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if matrix.dtype.kind == "f" and not np.isfinite(matrix.data).all():
        raise VbprError(f"{name} holds numbers that are not finite; put 0 where nothing was taken")
    return sp.csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Parts:
    """Interactions in three parts over one catalogue.

    Attributes:
        user_ids, item_ids: (U,), (I,) strings; the catalogue may hold items that nobody took.
        train, validation, test: (U, I); what the model learns from, what chooses its epoch, what is asked once. Given
            as any matrix of SciPy's or NumPy's, they are CSR here: whatever is not 0 is a float32 1, columns sorted.

    Raises:
        VbprError: an id that occurs twice, a matrix of another shape or with numbers that are not finite, or a pair in
            two of them.
    """

    user_ids: Strings
    item_ids: Strings
    train: "sp.csr_matrix"
    validation: "sp.csr_matrix"
    test: "sp.csr_matrix"

    def __post_init__(self) -> None:
        for name in ("user_ids", "item_ids"):
            object.__setattr__(self, name, unique_ids(getattr(self, name), name))
        shape = len(self.user_ids), len(self.item_ids)
        for name in MATRICES:
            object.__setattr__(self, name, ones(getattr(self, name), name, shape))
        for one, other in itertools.combinations(MATRICES, 2):
            both = getattr(self, one).multiply(getattr(self, other)).tocoo()
            if both.nnz:
                user, item = self.user_ids[both.row[0]], self.item_ids[both.col[0]]
                raise VbprError(
                    f"{both.nnz:,} interactions are in {one} and in {other} (first: user {user}, item {item}); leave "
                    "each in one"
                )


def digest_of(parts: Any) -> hashlib.blake2b:
    """A digest of the ids and matrices of a `Parts`, or of anything else that has them: two models whose digests agree
    were measured on the same split."""
    total = hashlib.blake2b(digest_size=16)
    for ids in (parts.user_ids, parts.item_ids):
        update_with_ids(total, ids)
    for name in MATRICES:
        matrix = getattr(parts, name)
        total.update(np.ascontiguousarray(matrix.indptr, "<i8").data)
        total.update(np.ascontiguousarray(matrix.indices, "<i4").data)
    return total


def unique_ids(values: Any, name: str) -> Strings:
    """(n,) ids as strings; `name` is what the message calls them.

    Raises:
        VbprError: an id occurs twice.
    """
    ids = np.asarray(values, np.str_)
    if not (ids[1:] > ids[:-1]).all():  # most are sorted, and then no more is to be checked
        distinct, counts = np.unique(ids, return_counts=True)
        if len(distinct) < len(ids):
            raise VbprError(f"{name} has '{distinct[counts > 1][0]}' twice; each is there once")
    return ids


__all__ = ["MATRICES", "Parts", "csr", "digest_of"]
