"""Exact ranking metrics over every item that a user has not seen (METHOD: AUC of Rendle et al. 2009, ties one half).

    ranks = held_out_ranks(users, items, bias, split.test, split.observed); ranks.auc.mean()

Scores are made in blocks that stay in cache and never as a whole (U, I) matrix; items that a user has seen are taken
off the counts through the CSR rather than masked.
"""

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]

BLOCK = 2**21  # scores of a block: 8 MB of float32


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Where each held-out item stands. One entry a held-out (user, item) pair, in the CSR's order.

    Attributes:
        users, items: (H,) positions.
        above, ties: (H,) int64: unseen items that score higher than it, or the same.
        candidates: (H,) int64: unseen items it competes with.
        rank: (H,) float64, 1 is best: its place among unseen and held-out items, ties counted one half.
    """

    users: Array
    items: Array
    above: Array
    ties: Array
    candidates: Array
    rank: Array

    @property
    def auc(self) -> Array:
        """(H,) share of candidates that score lower, ties one half."""
        return 1 - (self.above + 0.5 * self.ties) / np.maximum(1, self.candidates)

    @property
    def auc_strict(self) -> Array:
        """(H,) share of candidates that score lower, a tie counting for nothing."""
        return 1 - (self.above + self.ties) / np.maximum(1, self.candidates)


@torch.inference_mode()
def held_out_ranks(
    users: Tensor, items: Tensor, bias: Tensor, held: sp.csr_matrix, observed: sp.csr_matrix, block: int = BLOCK
) -> Ranks:
    """Rank every held-out item against all items outside `observed`.

    Args:
        users, items, bias: (U, K), (I, K), (I,) float tensors on one device.
        held: (U, I) CSR of held-out pairs; users without any are skipped.
        observed: (U, I) CSR of everything each user took, the held-out pairs included.
        block: scores computed at a time; memory is about 12 bytes each.
    """
    device, n_items = users.device, items.shape[0]
    counts = np.diff(held.indptr)
    who = np.flatnonzero(counts)
    above = np.zeros(held.nnz, np.int64)
    ties, inside = np.zeros_like(above), np.zeros_like(above)
    columns = items.T.contiguous()
    step = max(1, block // max(1, n_items))
    for a in range(0, len(who), step):
        rows = who[a : a + step]
        scores = torch.addmm(bias, users[torch.from_numpy(rows).to(device)], columns)
        seen_row, seen_item = entries(observed, rows, device)
        seen_score = scores[seen_row, seen_item]
        for nth in range(int(counts[rows].max())):  # mostly one held-out item a user
            some = np.flatnonzero(counts[rows] > nth)
            at = held.indptr[rows[some]] + nth
            mine = torch.from_numpy(some).to(device)
            item = torch.from_numpy(held.indices[at]).long().to(device)
            target = scores[mine, item]
            part = scores if len(some) == len(rows) else scores[mine]
            # sign(score - target) is 1, 0 or -1: its sum and its count of non-zeros give both numbers in two reads.
            sign = torch.sub(part, target[:, None]).sign_()
            balance, different = row_sums(sign)
            higher, same = (different + balance) // 2, n_items - different
            full = torch.full((len(rows),), torch.nan, dtype=scores.dtype, device=device)
            full[mine] = target
            against = full[seen_row]
            higher_seen = torch.zeros(len(rows), dtype=torch.long, device=device)
            same_seen = higher_seen.clone()
            higher_seen.index_add_(0, seen_row, (seen_score > against).long())
            same_seen.index_add_(0, seen_row, (seen_score == against).long())
            above[at] = (higher - higher_seen[mine]).cpu().numpy()
            ties[at] = (same - same_seen[mine]).cpu().numpy()
            if (counts[rows] > 1).any():
                inside[at] = competition(scores, held, rows[some], mine, target)
    row_of = np.repeat(np.arange(len(counts)), counts)
    candidates = (n_items - np.diff(observed.indptr))[row_of]
    return Ranks(row_of, held.indices.copy(), above, ties, candidates, 1 + above + 0.5 * ties + 0.5 * inside)


def row_sums(sign: Tensor) -> tuple[Tensor, Tensor]:
    """(n, I) of 1, 0, -1 -> (n,) int64 sums and (n,) int64 counts of what is not 0.

    Sums of up to 2**24 ones are exact in float32; longer rows are summed in pieces."""
    total, different = torch.zeros_like(sign[:, 0], dtype=torch.long), torch.zeros_like(sign[:, 0], dtype=torch.long)
    for a in range(0, sign.shape[1], 2**24):
        piece = sign[:, a : a + 2**24]
        total += piece.sum(1).long()
        different += torch.linalg.vector_norm(piece, ord=0, dim=1).long()
    return total, different


def competition(scores: Tensor, held: sp.csr_matrix, rows: Array, mine: Tensor, target: Tensor) -> Array:
    """(n,) twice the places that a user's other held-out items take above this one: 2 for higher, 1 for a tie."""
    row, item = entries(held, rows, scores.device)
    other = scores[mine[row], item]
    twice = 2 * (other > target[row]).long() + (other == target[row]).long()
    total = torch.zeros(len(rows), dtype=torch.long, device=scores.device).index_add_(0, row, twice)
    twice_above: Array = (total - 1).cpu().numpy()
    return twice_above  # it ties with itself


def entries(matrix: sp.csr_matrix, rows: Array, device: torch.device) -> tuple[Tensor, Tensor]:
    """The entries of some rows: (n,) positions in `rows`, (n,) columns."""
    part = matrix[rows]
    row = np.repeat(np.arange(len(rows)), np.diff(part.indptr))
    return torch.from_numpy(row).to(device), torch.from_numpy(part.indices).long().to(device)


def ndcg(ranks: Ranks, k: int) -> Array:
    """(n,) of each user with held-out items: NDCG@k with binary gains."""
    gains = np.where(ranks.rank <= k, 1 / np.log2(1 + ranks.rank), 0)
    counts = by_user(ranks, np.ones(len(gains)))
    ideal = np.cumsum(1 / np.log2(2 + np.arange(k)))[np.minimum(counts.astype(int), k) - 1]
    return np.asarray(by_user(ranks, gains) / ideal)


def recall(ranks: Ranks, k: int) -> Array:
    """(n,) share of a user's held-out items in the first k."""
    return by_user(ranks, (ranks.rank <= k).astype(float)) / by_user(ranks, np.ones(len(ranks.rank)))


def hit_rate(ranks: Ranks, k: int) -> Array:
    """(n,) whether any of a user's held-out items is in the first k."""
    return (by_user(ranks, (ranks.rank <= k).astype(float)) > 0).astype(float)


def mrr(ranks: Ranks) -> Array:
    """(n,) one over the rank of a user's first held-out item."""
    return np.maximum.reduceat(1 / ranks.rank, starts(ranks))


def average_precision(ranks: Ranks) -> Array:
    """(n,) mean over a user's held-out items of the precision at each one's rank."""
    order = np.lexsort((ranks.rank, ranks.users))
    first = np.repeat(starts(ranks), by_user(ranks, np.ones(len(order))).astype(int))
    precision = (np.arange(len(order)) - first + 1) / ranks.rank[order]
    return np.add.reduceat(precision, starts(ranks)) / by_user(ranks, np.ones(len(order)))


def mean_auc(ranks: Ranks, strict: bool = False) -> Array:
    """(n,) AUC of each user: the mean over the held-out items."""
    return by_user(ranks, ranks.auc_strict if strict else ranks.auc) / by_user(ranks, np.ones(len(ranks.rank)))


def starts(ranks: Ranks) -> Array:
    """Where each user's entries begin."""
    return np.flatnonzero(np.r_[True, ranks.users[1:] != ranks.users[:-1]]) if len(ranks.users) else np.array([], int)


def by_user(ranks: Ranks, values: Array) -> Array:
    return np.add.reduceat(values, starts(ranks)) if len(values) else values


def subset(ranks: Ranks, keep: Array) -> Ranks:
    """The entries under a mask, their ranks unchanged."""
    return Ranks(*(getattr(ranks, field.name)[keep] for field in dataclasses.fields(Ranks)))


__all__ = ["Ranks", "average_precision", "held_out_ranks", "hit_rate", "mean_auc", "mrr", "ndcg", "recall", "subset"]
