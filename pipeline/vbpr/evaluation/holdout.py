"""Several models on one ground: the same held-out purchases, users and catalogue, whatever each was trained on.

ground = on_one_ground([Factors.load(a), Factors.load(b)], Interactions.read("week.csv"))
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from ..base.arrays import Strings, places
from ..base.errors import VbprError
from ..data.dataset import Dataset
from ..data.interactions import Interactions
from ..stores.model.factors import Factors

WEEK = 7 * 86_400  # seconds


@dataclasses.dataclass(frozen=True)
class Ground:
    """Models cut to what all of them know.

    Attributes:
        models: each with the common users and items; as `train` what any of them has, as `test` the held-out purchases.
        learned: held-out purchases that were left out because a model learned from them, or was chosen by them.
        unknown: left out because a model does not know the user or the item.
    """

    models: list[Factors]
    learned: int
    unknown: int


def last_week(data: Dataset) -> Interactions:
    """The purchases of a data set's last seven days.

    Raises:
        VbprError: its interactions have no times.
    """
    events = data.interactions()
    if events.times is None:
        why = events.unread.get("timestamp", "there is no such column")
        raise VbprError(f"--holdout last-week needs the timestamps of {data.name} ({why}); give a file of purchases")
    return events.select(events.times > events.times.max() - WEEK)


def on_one_ground(models: Sequence[Factors], held: Interactions, baselines: bool = False) -> Ground:
    """Cut models to the users and items that all of them know, with the same held-out purchases.

    Args:
        held: what shall be ranked; pairs in the train or validation part of any model do not count.
        baselines: whether popularity, by the purchases that the first model learned from, is a further model.

    Raises:
        VbprError: no purchase is left.
    """
    user_ids, item_ids = models[0].user_ids, models[0].item_ids
    for factors in models[1:]:
        user_ids, item_ids = np.intersect1d(user_ids, factors.user_ids), np.intersect1d(item_ids, factors.item_ids)
    if not len(user_ids) or not len(item_ids):
        raise VbprError("these models have no users or no items in common; they are of other shops")
    shape = (len(user_ids), len(item_ids))
    users, items = places(user_ids, held.user_ids)[held.users], places(item_ids, held.item_ids)[held.items]
    known = (users >= 0) & (items >= 0)
    wanted = sp.csr_matrix((np.ones(int(known.sum()), np.float32), (users[known], items[known])), shape=shape)
    learned = sum(cut(f, f.train + f.validation, user_ids, item_ids) for f in models)
    test = sp.csr_matrix(wanted - wanted.multiply(learned > 0))
    test.eliminate_zeros()
    if not test.nnz:
        raise VbprError(
            f"none of the {len(held):,} held-out purchases can be asked: {wanted.nnz:,} are of users and items that "
            "all models know, and of these every one was learned from; give purchases from after the trainings"
        )
    seen = sum(cut(f, f.seen, user_ids, item_ids) for f in models)
    train = sp.csr_matrix((seen > 0).astype(np.float32) - (seen > 0).multiply(test))
    train.eliminate_zeros()
    common = [grounded(f, user_ids, item_ids, train, test) for f in models]
    if baselines:
        counts = cut(models[0], models[0].train, user_ids, item_ids).getnnz(axis=0)
        none = [np.zeros((n, 0), np.float32) for n in shape]
        about = {"model": "popularity", "title": "popularity", "data": models[0].record.data, "scores_unseen": False}
        common.append(dataclasses.replace(common[0], users=none[0], items=none[1], bias=counts, head=None, about=about))
    return Ground(common, int(wanted.nnz - test.nnz), int((~known).sum()))


def cut(factors: Factors, matrix: sp.csr_matrix, user_ids: Strings, item_ids: Strings) -> sp.csr_matrix:
    """A matrix of a model for some of its users and items, by id."""
    rows = matrix[places(factors.user_ids, user_ids)]
    return sp.csr_matrix(rows[:, places(factors.item_ids, item_ids)])


def grounded(
    factors: Factors, user_ids: Strings, item_ids: Strings, train: sp.csr_matrix, test: sp.csr_matrix
) -> Factors:
    """A model of these users and items alone."""
    users, items = places(factors.user_ids, user_ids), places(factors.item_ids, item_ids)
    nothing = sp.csr_matrix(train.shape, dtype=np.float32)
    return Factors(
        factors.users[users],
        factors.items[items],
        factors.bias[items],
        user_ids,
        item_ids,
        train,
        nothing,
        test,
        factors.head,
        factors.about,
    )


__all__ = ["Ground", "last_week", "on_one_ground"]
