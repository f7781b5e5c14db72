"""The lists of many users, with what a shop asks of them: bestsellers for whom the model does not know, a share of new
items, nothing that is excluded for a customer, and columns of the data set's items."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from ..base.arrays import Array, Strings, places
from ..base.errors import VbprError, counted, some
from ..base.progress import Progress, console
from ..data.interactions import Interactions
from ..stores.model.factors import Factors
from ..stores.model.lists import Lists
from ..stores.model.lookup import at_least_one
from ..stores.model.topk import first_of_groups, top_for_many
from .popular import best_sold

CHUNK = 16384  # users at a time
BLOCK = 2**21  # scores held at a time


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What lists of many users shall be like.

    Attributes:
        k: the longest list. seen: whether items that the user took may come back.
        allowed, groups: see `Factors.choose`.
        new: how many items that nobody took in training each list has at least, as far as there are any.
        exclude: (U, I) CSR of what a user must not get, besides; None for nothing.
        sold: see `bestsellers`: what those get of whom the model knows nothing; None for nothing.
    """

    k: int = 10
    seen: bool = False
    allowed: Array | None = None
    groups: Array | None = None
    new: int = 0
    exclude: sp.csr_matrix | None = None
    sold: Factors | None = None


def lists_of(factors: Factors, users: Strings, wishes: Wishes) -> Iterator[Lists]:
    """The lists of users by id, some at a time; of those whom the model does not know, bestsellers or none."""
    k, at = min(wishes.k, len(factors.item_ids)), places(factors.user_ids, users)
    at_least_one(k)
    instead = None if wishes.sold is None else best_sold(wishes.sold, k, wishes.allowed, wishes.groups)
    with Progress("recommend", len(users), "users") as bar:
        for a in range(0, len(users), CHUNK):
            rows = at[a : a + CHUNK]
            items, scores = np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), -np.inf, np.float32)
            known = np.flatnonzero(rows >= 0)
            items[known], scores[known] = best_of(factors, rows[known], dataclasses.replace(wishes, k=k))
            if instead is not None:
                count = len(instead[0])
                items[rows < 0, :count], scores[rows < 0, :count] = instead
            bar.advance(len(rows))
            yield Lists(users[a : a + CHUNK], items, scores, rows < 0)


def best_of(factors: Factors, users: Array, wishes: Wishes) -> tuple[Array, Array]:
    """(n, k) positions and scores of the lists of users (positions); -1 and -inf where there are no more."""
    taken = None if wishes.seen else factors.train[users] + factors.validation[users] + factors.test[users]
    if wishes.exclude is not None:
        taken = wishes.exclude[users] if taken is None else taken + wishes.exclude[users]

    def top(k: int, allowed: Array | None) -> tuple[Array, Array]:
        # groups go by what was taken; what is excluded bars its group as well
        return top_for_many(
            factors.users, users, factors.items, factors.bias, k, taken, allowed, wishes.groups, BLOCK, lambda _: None
        )

    every = top(wishes.k, wishes.allowed)
    if not wishes.new:
        return every
    unseen = unseen_items(factors)
    new = top(min(wishes.new, wishes.k), unseen if wishes.allowed is None else unseen & wishes.allowed)
    return with_new(every, new, wishes.k, wishes.groups)


def with_new(every: tuple[Array, Array], new: tuple[Array, Array], k: int, groups: Array | None) -> tuple[Array, Array]:
    """Lists of at most k (positions and scores, best first) that hold all of `new`, and of `every` what comes first
    beside them."""
    items, scores = (np.concatenate(both, 1) for both in zip(new, every, strict=True))
    one = np.arange(int(items.max(initial=0)) + 1) if groups is None else groups
    chosen = first_of_groups(items, one)
    chosen &= np.cumsum(chosen, 1) <= k
    items, scores = np.where(chosen, items, -1), np.where(chosen, scores, -np.inf)
    order = np.lexsort((items, -scores))[:, :k]
    return np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1).astype(np.float32)


def unseen_items(factors: Factors) -> Array:
    """(I,) bool: items that nobody took in training."""
    return np.asarray(factors.train.getnnz(axis=0) == 0)


def check_new(factors: Factors, new: int) -> None:
    """
    Raises:
        VbprError: new items are asked for of a model that knows nothing of them.
    """
    if new and not factors.record.scores_unseen:
        raise VbprError(
            f"--new {new}: this model ({factors.record.title}) knows items by their purchases alone and cannot tell "
            "new ones apart; use --model hybrid, visual or vbpr"
        )


def exclusions(factors: Factors, path: Path | str) -> sp.csr_matrix:
    """(U, I) CSR of ones: what a file with the columns user_id and item_id says that a user must not get.

    Raises:
        VbprError: see `Interactions.read`; or the model has none of its pairs.
    """
    read = Interactions.read(path)
    users, items = (
        places(mine, theirs)[of]
        for mine, theirs, of in (
            (factors.user_ids, read.user_ids, read.users),
            (factors.item_ids, read.item_ids, read.items),
        )
    )
    known = (users >= 0) & (items >= 0)
    if not known.any():
        raise VbprError(
            f"--exclude {path}: none of its {counted(len(known), 'pair')} is of a user and an item of this model "
            f"(first: user {read.user_ids[read.users[0]]}, item {read.item_ids[read.items[0]]})"
        )
    if not known.all():
        strange = np.flatnonzero(~known)
        first = some(f"{read.user_ids[read.users[n]]}, {read.item_ids[read.items[n]]}" for n in strange[:3])
        console.print(f"note: {path} names users or items that are not in this model: {len(strange):,} pairs ({first})")
    ones = np.ones(int(known.sum()), np.float32)
    return sp.csr_matrix((ones, (users[known], items[known])), shape=factors.train.shape)


def texts_of(columns: Mapping[str, Mapping[str, str]], wanted: list[str], item_ids: Strings) -> dict[str, list[str]]:
    """Of each column of the data set's items that is wanted, a text for each item of the catalogue, else empty.

    Raises:
        VbprError: there is no such column.
    """
    texts = {}
    for name in wanted:
        column = columns.get(name.strip().lower())
        if column is None:
            has = f"it has {some(columns, 8)}" if columns else "there is none; if the data set has moved, give --data"
            raise VbprError(f"--column {name} needs that column in the data set's items.csv or items.parquet; {has}")
        texts[name.strip().lower()] = [column.get(item, "") for item in item_ids.tolist()]
    return texts


__all__ = ["CHUNK", "Wishes", "best_of", "check_new", "exclusions", "lists_of", "texts_of", "unseen_items"]
