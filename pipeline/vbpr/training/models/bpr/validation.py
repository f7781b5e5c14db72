"""The validation that a learning curve is made of: AUC of a fixed sample of users, cheaper than an epoch.

In a catalogue of up to CANDIDATES items a user's held-out items compete with all that the user has not taken, as in
`vbpr evaluate`. In a larger one they compete with as many, drawn at random once and for all: each user's AUC is then an
estimate without bias. The choice of candidates moves the mean over users by .5 / sqrt(CANDIDATES) = .002 at most, and
the choice of users by some .25 / sqrt(CURVE_USERS) = .004; both are the same in every epoch, so that they shift a curve
rather than bend it.
"""

from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ....base.arrays import Array
from ....data.split import Split
from ....evaluation.metrics import mean_auc
from ....evaluation.ranks import held_out_ranks

CURVE_USERS, CURVE_PAIRS = 5000, 300_000_000  # the learning curve's users, and scores: cheaper than an epoch
CANDIDATES = 1 << 16  # items, at most, that a held-out item competes with
BLOCK, WIDTH = 256, 1024  # users and candidates whose scores are made together: they stay in the cache


class Observed(Protocol):
    """What is asked of a split: matrices (U, I)."""

    @property
    def train(self) -> sp.csr_matrix: ...
    @property
    def validation(self) -> sp.csr_matrix: ...
    @property
    def observed(self) -> sp.csr_matrix: ...


class CurveSample:
    """Validation AUC of a fixed sample of users.

    Attributes:
        users: (n,) positions. items: (m,) positions, ascending, of the candidates and of what is held out; None: all.
        each: (n,) float64, the AUC of each of them by the last call; empty before.
    """

    def __init__(self, split: Split | Observed, seed: int = 0, shards: int = 1) -> None:
        """
        Args:
            split: of all users, or of those of a shard. shards: among which the users of the sample are shared.
        """
        users, rng = np.flatnonzero(np.diff(split.validation.indptr)), np.random.default_rng(seed)
        count = split.train.shape[1]
        most = -(-min(CURVE_USERS, max(500, CURVE_PAIRS // min(count, CANDIDATES))) // shards)
        self.users = np.sort(rng.permutation(users)[:most])
        self.everyone = len(self.users) == split.train.shape[0]
        self.held, self.observed = split.validation[self.users], split.observed[self.users]
        self.items: Array | None = None
        self.each = torch.zeros(0, dtype=torch.float64)
        if count > CANDIDATES:
            candidates = np.sort(rng.choice(count, CANDIDATES, replace=False))
            self.items = np.union1d(candidates, self.held.indices)
            self.candidates = np.searchsorted(self.items, candidates)
            self.pairs = np.searchsorted(self.items, self.held.indices)  # of each held-out pair: the item
            self.observed = self.observed[:, candidates].tocsr()
            self.observed.sort_indices()

    def wanted(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Positions of the users and of the items whose vectors `auc` takes; None: of all."""
        users = None if self.everyone else torch.from_numpy(self.users).to(device)
        return users, None if self.items is None else torch.from_numpy(self.items).to(device)

    def auc(self, users: Tensor, items: Tensor, bias: Tensor) -> float | None:
        """Mean over the sample; None when nobody has a validation item.

        Args:
            users, items, bias: (n, K), (m, K), (m,) of those that are `wanted`.
        """
        if not len(self.users):
            return None
        users, items, bias = users.float(), items.float(), bias.float()
        if self.items is None:
            each = mean_auc(held_out_ranks(users, items, bias, self.held, self.observed))
        else:
            each = self.estimate(users, items, bias)
        self.each = torch.from_numpy(each)
        return float(each.mean())

    @torch.inference_mode()
    def estimate(self, users: Tensor, items: Tensor, bias: Tensor) -> Array:
        """(n,) AUC of each user among the candidates that it has not taken; ties one half."""
        at = torch.from_numpy(self.candidates).to(items.device)
        rivals, of_rivals, out = items.index_select(0, at), bias.index_select(0, at), np.zeros(len(self.users))
        blocks = [(rivals[c : c + WIDTH].T.contiguous(), of_rivals[c : c + WIDTH]) for c in range(0, len(at), WIDTH)]
        for a in range(0, len(self.users), BLOCK):
            b = min(len(self.users), a + BLOCK)
            begin = self.held.indptr[a : b + 1]
            number = np.repeat(np.arange(b - a), np.diff(begin))
            pair = torch.from_numpy(self.pairs[begin[0] : begin[-1]]).to(items.device)
            of = torch.from_numpy(number).to(items.device)
            target = ((users[a:b][of] * items[pair]).sum(1) + bias[pair])[:, None]
            below = torch.zeros(len(of), dtype=torch.float64, device=items.device)
            for columns, of_columns in blocks:
                scores = torch.addmm(of_columns, users[a:b], columns)[of]
                mask = torch.empty_like(scores)  # of floats: bytes are slow to compare and to add up
                below += torch.lt(scores, target, out=mask).sum(1)
                below += 0.5 * torch.eq(scores, target, out=mask).sum(1)
            part = self.observed[a:b][number]  # what each pair's user has taken is no candidate
            row, column = (torch.from_numpy(x).long().to(items.device) for x in part.nonzero())
            taken = (users[a:b][of[row]] * rivals[column]).sum(1) + of_rivals[column]
            less = (taken < target[row, 0]).double() + 0.5 * (taken == target[row, 0]).double()
            below.index_add_(0, row, less, alpha=-1)
            left = len(at) - np.diff(part.indptr)
            auc = np.where(left, below.cpu().numpy() / np.maximum(1, left), 0.5)
            out[a:b] = np.bincount(number, auc, b - a) / np.bincount(number, minlength=b - a)
        return out


__all__ = ["CurveSample", "Observed"]
