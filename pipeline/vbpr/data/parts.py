"""Train, validation and test: three matrices over one catalogue, with the ids of its users and items."""

import hashlib
import itertools
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..base.arrays import Array, Strings, update_with_ids
from ..base.errors import VbprError


def csr(users: Array, items: Array, shape: tuple[int, int]) -> sp.csr_matrix:
    """A (U, I) float32 matrix of ones, columns sorted in each row."""
    return sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)


MATRICES = ("train", "validation", "test")


def ones(matrix: Any, name: str, shape: tuple[int, int]) -> sp.csr_matrix:
    """Any matrix as CSR of float32 ones where it is not 0, columns sorted; itself, if it is that.

    Raises:
        VbprError: it has another shape, or a number in it is not finite; the message has its `name`.
    """
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


def settle(frozen: Any) -> tuple[int, int]:
    """Put the ids and matrices of a new `Split` or `Factors` into the form in which they are kept; (users, items).

    Raises:
        VbprError: see `one_of_each` and `ones`; or a pair is in two parts.
    """
    for name in ("user_ids", "item_ids"):
        object.__setattr__(frozen, name, one_of_each(getattr(frozen, name), name))
    shape = len(frozen.user_ids), len(frozen.item_ids)
    for name in MATRICES:
        object.__setattr__(frozen, name, ones(getattr(frozen, name), name, shape))
    for one, other in itertools.combinations(MATRICES, 2):
        both = getattr(frozen, one).multiply(getattr(frozen, other)).tocoo()
        if both.nnz:
            user, item = frozen.user_ids[both.row[0]], frozen.item_ids[both.col[0]]
            raise VbprError(
                f"{both.nnz:,} interactions are in {one} and in {other} (first: user {user}, item {item}); leave "
                "each in one"
            )
    return shape


def digest_of(parted: Any) -> hashlib.blake2b:
    """Of the ids and the three parts of a `Split` or `Factors`: what is measured on the same has the same."""
    total = hashlib.blake2b(digest_size=16)
    for ids in (parted.user_ids, parted.item_ids):
        update_with_ids(total, ids)
    for name in MATRICES:
        part = getattr(parted, name)
        total.update(np.ascontiguousarray(part.indptr, "<i8").data)
        total.update(np.ascontiguousarray(part.indices, "<i4").data)
    return total


def one_of_each(values: Any, name: str) -> Strings:
    """(n,) ids as strings.

    Raises:
        VbprError: one of them occurs twice.
    """
    ids = np.asarray(values, np.str_)
    if not (ids[1:] > ids[:-1]).all():  # sorted, as they mostly are: nothing more to look at
        known, times = np.unique(ids, return_counts=True)
        if len(known) < len(ids):
            raise VbprError(f"{name} has '{known[times > 1][0]}' twice; each is there once")
    return ids


__all__ = ["MATRICES", "csr", "digest_of", "settle"]
