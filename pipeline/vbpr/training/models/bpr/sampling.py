"""Triplets (u, i, j) for BPR (Rendle et al. 2009), drawn where the model trains: i from what u took, j from the rest.

    sampler = TripletSampler(split.train, device, torch.Generator(device).manual_seed(0)); u, i, j = sampler.draw(4096)

A negative needs no rejection. With the train items of u sorted, a_0 < a_1 < ..., the numbers a_k - k never fall, and
the r-th item outside them is r + #{k : a_k - k <= r}: one binary search over all users' keys, exactly uniform.
"""

import functools
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ....base.errors import VbprError
from ...config import TrainConfig

POSITIVES = ("interactions", "users")
EPOCHS = 0x5DEECE66D1B54A33  # far from the seeds of everything else
NEGATIVES = ("uniform", "popularity")


class TripletSampler:
    """Draws triplets; j is never in the train items of u, and may be one of u's validation or test items."""

    def __init__(
        self,
        train: sp.csr_matrix,
        device: torch.device,
        generator: torch.Generator,
        *,
        positives: str = "interactions",
        negatives: str = "uniform",
        popularity_share: float = 1.0,
    ) -> None:
        """
        Args:
            train: (U, I) CSR with sorted columns.
            positives: uniform over interactions, or over users and then over the items of each.
            negatives: uniform over the items that u did not take, or, for `popularity_share` of the draws, as often
                as others took them.

        Raises:
            VbprError: an unknown rule, or no user has both an item and one left to prefer it to.
        """
        if positives not in POSITIVES:
            raise VbprError(f"--positives {positives} is not known; choose from {', '.join(POSITIVES)}")
        if negatives not in NEGATIVES:
            raise VbprError(f"--negatives {negatives} is not known; choose from {', '.join(NEGATIVES)}")
        self.items = train.shape[1]
        degree = torch.from_numpy(np.diff(train.indptr)).long()
        useful = (degree > 0) & (degree < self.items)  # a user of every item has no negative
        if not useful.any():
            raise VbprError("no user has both an item that was taken and one that was not; BPR cannot learn from this")
        rows = torch.repeat_interleave(torch.arange(train.shape[0]), degree)
        columns = torch.from_numpy(train.indices).long()
        self.rows, self.columns = rows.to(device), columns.to(device)
        self.pairs = torch.nonzero(useful[rows]).squeeze(1).to(device)
        self.users = torch.nonzero(useful).squeeze(1).to(device)
        self.degree, self.start = degree.to(device), torch.from_numpy(train.indptr).long().to(device)
        self.device, self.generator = device, generator
        self.by_users, self.share = positives == "users", popularity_share if negatives == "popularity" else 0.0

    @functools.cached_property
    def keys(self) -> Tensor:
        """(n,) int64: user x items + item of all positives, ascending."""
        keys: Tensor = self.rows * self.items + self.columns
        return keys

    @functools.cached_property
    def gap_keys(self) -> Tensor:
        """(n,) int64: user x (items + 1) + a_k - k, see above."""
        place = torch.arange(len(self.columns), device=self.device) - self.start[self.rows]
        keys: Tensor = self.rows * (self.items + 1) + self.columns - place
        return keys

    def __len__(self) -> int:
        return len(self.pairs)

    def below(self, bound: Tensor | int, n: int) -> Tensor:
        """(n,) int64, uniform in [0, bound)."""
        if isinstance(bound, int):
            return torch.randint(bound, (n,), generator=self.generator, device=self.device)
        r = torch.rand(n, generator=self.generator, device=self.device, dtype=torch.float64)
        return torch.minimum((r * bound).long(), bound - 1)

    def positives(self, n: int) -> tuple[Tensor, Tensor]:
        """(n,), (n,) int64: users and items that they took."""
        if self.by_users:
            u = self.users[self.below(len(self.users), n)]
            return u, self.columns[self.start[u] + self.below(self.degree[u], n)]
        pair = self.pairs[self.below(len(self.pairs), n)]
        return self.rows[pair], self.columns[pair]

    def epoch(self, number: int, together: int = 1) -> Tensor:
        """(len(self),) int64 places in `rows` and `columns`: all positives of an epoch in random order.

        Uniform over interactions, each comes once, and those of a user in runs of up to `together`, chosen at random;
        uniform over users, each is drawn on its own. The order hangs on the seed and the number of the epoch alone, so
        that a run that goes on in the middle finds the same.
        """
        seed = (self.generator.initial_seed() * 1_000_003 + number + EPOCHS) % 2**63
        chance: dict[str, Any] = {"generator": torch.Generator(self.device).manual_seed(seed), "device": self.device}
        n = len(self.pairs)
        if self.by_users:
            u = self.users[torch.randint(len(self.users), (n,), **chance)]
            return self.start[u] + (torch.rand(n, dtype=torch.float64, **chance) * self.degree[u]).long()
        if together == 1:
            return self.pairs[torch.randperm(n, **chance)]
        rows = self.rows[self.pairs]
        mixed = self.pairs[(rows + torch.rand(n, dtype=torch.float64, **chance)).argsort()]  # within each user
        begin = torch.nonzero((self.pairs - self.start[rows]) % together == 0).squeeze(1)
        length = torch.diff(begin, append=begin.new_tensor([n]))
        order = torch.randperm(len(begin), **chance)
        return mixed[spans(begin[order], length[order])[1]]

    def draw(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """(n,), (n,), (n,) int64: users, items taken, items not taken."""
        u, i = self.positives(n)
        return u, i, self.negatives(u)

    def negatives(self, u: Tensor) -> Tensor:
        """(n,) users -> (n,) int64: an item that each did not take."""
        n, j = len(u), self.outside(u)
        if self.share:
            wanted = torch.rand(n, generator=self.generator, device=self.device) < self.share
            for _ in range(4):  # what is still inside u's items after four draws keeps its uniform negative
                at = torch.nonzero(wanted).squeeze(1)
                candidate = self.columns[self.below(len(self.columns), len(at))]
                fine = ~self.taken(u[at], candidate)
                j[at[fine]] = candidate[fine]
                wanted[at[fine]] = False
        return j

    def candidates(self, n: int) -> Tensor:
        """(n,) int64 items for users to share as negatives: uniform, or popular for `popularity_share` of them."""
        j = self.below(self.items, n)
        if self.share:
            popular = torch.rand(n, generator=self.generator, device=self.device) < self.share
            j = torch.where(popular, self.columns[self.below(len(self.columns), n)], j)
        return j

    def histories(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) users -> the train items of each, one after the other: (m,) places in u, (m,) items."""
        row, entry = spans(self.start[u], self.degree[u])
        return row, self.columns[entry]

    def among(self, u: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) users -> those of their train items that are wanted ((I,) bool): as `histories`, and few of many."""
        length = self.degree[u]
        ends = length.cumsum(0)
        begin = torch.repeat_interleave(self.start[u] - (ends - length), length)
        item = self.columns[begin.add_(torch.arange(len(begin), device=self.device))]
        at = torch.nonzero(wanted.index_select(0, item)).squeeze(1)
        return torch.searchsorted(ends, at, right=True), item.index_select(0, at)

    def allowed(self, u: Tensor, j: Tensor) -> Tensor:
        """(n,) users, (N,) distinct items -> (n, N) bool: whether j is outside the train items of u."""
        row, item = self.histories(u)
        slot = torch.full((self.items,), -1, dtype=torch.long, device=self.device)
        slot[j] = torch.arange(len(j), device=self.device)
        column = slot[item]
        inside = column >= 0
        mask = torch.ones(len(u), len(j), dtype=torch.bool, device=self.device)
        mask[row[inside], column[inside]] = False
        return mask

    def outside(self, u: Tensor) -> Tensor:
        """(n,) users -> (n,) items, uniform over those outside the train items of each."""
        r = self.below(self.items - self.degree[u], len(u))
        return r + torch.searchsorted(self.gap_keys, u * (self.items + 1) + r, right=True) - self.start[u]

    def taken(self, u: Tensor, i: Tensor) -> Tensor:
        """(n,) bool: whether i is among the train items of u."""
        key = u * self.items + i
        at = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        inside: Tensor = self.keys[at] == key
        return inside


def sampler_of(train: sp.csr_matrix, c: TrainConfig, generator: torch.Generator) -> TripletSampler:
    """The sampler of a configuration, on the device of the generator; see there for what it raises."""
    return TripletSampler(
        train,
        generator.device,
        generator,
        positives=c.positives,
        negatives="uniform" if c.negatives == "in-batch" else c.negatives,
        popularity_share=c.popularity_share,
    )


def spans(start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers start, start + 1, ... of (n,) spans, one after the other: (m,) the span of each, (m,) the numbers."""
    row = torch.repeat_interleave(torch.arange(len(start), device=start.device), length)
    first = torch.cumsum(length, 0) - length
    return row, (start - first)[row] + torch.arange(len(row), device=start.device)


__all__ = ["NEGATIVES", "POSITIVES", "TripletSampler", "sampler_of", "spans"]
