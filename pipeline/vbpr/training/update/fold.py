"""Users and items moved by what was bought since, in closed form.

    taste_u += M [sum of new history / root of its number - the same of old]
    item_i  += N [statistics of new buyers - the same of old]

Of whom or what the model knew nothing, M and N say all. They are ridge regressions over all users and all items of the
model as it was: how its tastes follow from what was taken, and its items from who took them. What training gave beyond
that, a user's or an item's own, stays.
"""

import dataclasses

import numpy as np
import scipy.sparse as sp

from ...base.arrays import Array
from ...stores.model.factors import Factors

USERS, ITEMS = 1e-3, 1e-2  # penalties, of the mean square of what is regressed on
WARM = 5.0  # purchases of an item that is half warm


@dataclasses.dataclass(frozen=True)
class Moved:
    """A model's numbers while they change: (U, K), (I, K) and (I,) float32."""

    users: Array
    items: Array
    bias: Array


def folded(factors: Factors, before: sp.csr_matrix, now: sp.csr_matrix, known_users: int) -> Moved:
    """All users and items with purchases that are new.

    Args:
        factors: with rows for users and items that are new: zeros, or what an item's features say.
        before, now: (U, I) CSR, what was taken. known_users: how many of the first users are the model's own.
    """
    if factors.record.model == "popularity":
        counts = np.bincount(now.indices, minlength=now.shape[1]).astype(np.float32)
        return Moved(factors.users, factors.items, counts)
    if factors.record.model == "knn":
        count = np.maximum(1, np.diff(now.indptr))[:, None]
        return Moved(np.asarray(now @ factors.items / count, np.float32), factors.items, factors.bias)
    users = moved_users(factors.users, factors.items, before, now, known_users)
    items, bias = moved_items(users, factors.items, factors.bias, before, now)
    return Moved(users, items, bias)


def moved_users(users: Array, items: Array, before: sp.csr_matrix, now: sp.csr_matrix, known_users: int) -> Array:
    """(U, K) tastes after their new purchases, item vectors being as they are."""
    changed = np.flatnonzero(np.diff(now.indptr) > np.diff(before.indptr))
    taught = np.flatnonzero(np.diff(before.indptr) > 0)
    turn = ridge(history(before[taught], items), users[taught], USERS)
    fresh = (changed >= known_users) | (np.diff(before.indptr)[changed] == 0)
    out, after = users.copy(), history(now[changed], items)
    out[changed] += (after - np.where(fresh[:, None], 0, history(before[changed], items))) @ turn
    out[changed[fresh]] = after[fresh] @ turn
    return out


def history(taken: sp.csr_matrix, items: Array) -> Array:
    """(n, K + 1): the sum of the vectors of what was taken, over the root of its number, and a one."""
    count = np.maximum(1, np.diff(taken.indptr))
    mean = np.asarray(taken @ items) / count[:, None] ** 0.5
    return np.asarray(np.append(mean, np.ones((len(count), 1)), 1), np.float32)


def moved_items(
    users: Array, items: Array, bias: Array, before: sp.csr_matrix, now: sp.csr_matrix
) -> tuple[Array, Array]:
    """(I, K) vectors and (I,) biases after their new buyers."""
    old, new = before.T.tocsr(), now.T.tocsr()
    changed = np.flatnonzero(np.diff(new.indptr) > np.diff(old.indptr))
    both = np.append(items, bias[:, None], 1)
    sold = np.flatnonzero(np.diff(old.indptr))
    turn = ridge(buyers(old[sold], users), both[sold], ITEMS)
    after = buyers(new[changed], users) @ turn
    nothing = ~both[changed].any(1)  # known of these, before: their buyers alone say what they are
    both[changed] += after - buyers(old[changed], users) @ turn
    both[changed[nothing]] = after[nothing]
    return both[:, :-1], both[:, -1] if bias.any() else bias


def buyers(taken: sp.csr_matrix, users: Array) -> Array:
    """(n, K + 3): the sum of the tastes of an item's buyers, over the root of their number, and what says how many."""
    count = np.diff(taken.indptr).astype(np.float32)
    total = np.asarray(taken @ users) / np.maximum(1, count)[:, None] ** 0.5
    return np.column_stack([total, np.log1p(count), count / (count + WARM), np.ones_like(count)]).astype(np.float32)


def ridge(x: Array, y: Array, penalty: float) -> Array:
    """(d, k) of (n, d) and (n, k)."""
    gram = (x.T @ x).astype(np.float64)
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram) + 1e-12
    return np.asarray(np.linalg.solve(gram, (x.T @ y).astype(np.float64)), np.float32)


__all__ = ["Moved", "folded"]
