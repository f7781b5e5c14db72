"""A short training on what is new: BPR (Rendle et al. 2009) of users' and items' vectors as they stand.

    loss = - mean over positives of sum over negatives of ln sigma(x_ui - x_uj),   by Adagrad on the rows of a batch

Positives are the new purchases and some old ones, so that nothing is forgotten; a batch shares its negatives.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from ...base.arrays import Array
from ...base.progress import Progress
from ...base.stopping import Stopped
from .fold import Moved

EPOCHS, BATCH, NEGATIVES = 4, 512, 64
REPLAY = 0.25  # old purchases for each new one
RATE = 0.2  # of a step, in units of the root mean square of users, or of items


def trained(
    start: Moved, old: sp.csr_matrix, new: sp.csr_matrix, seed: int, stopping: Callable[[], bool], words: str
) -> Moved:
    """The vectors after some epochs.

    Args:
        old, new: (U, I) CSR, disjoint. stopping: whether to stop. words: of the `Stopped` that is raised then.
    """
    rng = np.random.default_rng(seed)
    number, taken = new.shape[1], (old + new).tocsr()
    taken.sort_indices()
    keys = np.repeat(np.arange(taken.shape[0], dtype=np.int64), np.diff(taken.indptr)) * number + taken.indices
    users, items, bias = (torch.from_numpy(np.array(each)) for each in (start.users, start.items, start.bias))
    by_users, by_items = (RATE * float(each.square().mean().sqrt()) for each in (users, items))
    tables = [(users, by_users), (items, by_items)]
    if start.bias.any():
        tables.append((bias[:, None], by_users * by_items))
    moments = [torch.zeros_like(table) for table, _ in tables]
    fresh, past = new.tocoo(), old.tocoo()
    with Progress("update", EPOCHS * int((1 + REPLAY) * fresh.nnz), "positives") as bar:
        for _ in range(EPOCHS):
            again = rng.permutation(past.nnz)[: int(REPLAY * fresh.nnz)]
            u, i = np.r_[fresh.row, past.row[again]], np.r_[fresh.col, past.col[again]]
            order = rng.permutation(len(u))
            for a in range(0, len(u), BATCH):
                if stopping():
                    raise Stopped(words)
                rows = order[a : a + BATCH]
                j = rng.integers(0, number, NEGATIVES)
                step(tables, moments, bias, u[rows].astype(np.int64), i[rows].astype(np.int64), j, keys)
                bar.advance(len(rows))
    return Moved(users.numpy(), items.numpy(), bias.numpy())


def step(
    tables: list[tuple[torch.Tensor, float]],
    moments: list[torch.Tensor],
    bias: torch.Tensor,
    u: Array,
    i: Array,
    j: Array,
    keys: Array,
) -> None:
    """One batch: users (B,) and items (B,) of the positives, negatives (N,); keys: sorted, user * I + item, of all that
    was taken, which is no negative."""
    number = len(bias)
    pairs = u[:, None] * number + j
    at = np.minimum(np.searchsorted(keys, pairs), len(keys) - 1)
    free = torch.from_numpy(keys[at] != pairs)
    tu, ti, tj = (torch.from_numpy(each) for each in (u, i, j))
    (users, _), (items, _) = tables[:2]
    of_u, of_i, of_j = users[tu], items[ti], items[tj]
    gap = ((of_u * of_i).sum(1) + bias[ti])[:, None] - (of_u @ of_j.T + bias[tj])
    pull = torch.sigmoid(-gap) * free / len(u)  # the slope of the loss by x_uj; its sum, by -x_ui
    total = pull.sum(1, keepdim=True)
    both = torch.cat([ti, tj])
    slopes = [(tu, pull @ of_j - total * of_i), (both, torch.cat([-total * of_u, pull.T @ of_u]))]
    if len(tables) > 2:
        slopes.append((both, torch.cat([-total, pull.sum(0)[:, None]])))
    for (table, rate), moment, (rows, slope) in zip(tables, moments, slopes, strict=True):
        distinct, place = torch.unique(rows, return_inverse=True)
        gradient = slope.new_zeros(len(distinct), slope.shape[1]).index_add_(0, place, slope)
        sums = moment[distinct] + gradient.square()
        moment[distinct] = sums
        table[distinct] -= rate * gradient / (sums.sqrt() + 1e-10)


__all__ = ["trained"]
