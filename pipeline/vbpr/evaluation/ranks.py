"""Exact ranking metrics over every item that a user has not seen (AUC of Rendle et al. 2009, ties one half).

    ranks = held_out_ranks(users, items, bias, split.test, split.observed); ranks.auc.mean()

Scores are made in blocks that stay in cache and never as a whole (U, I) matrix; items that a user has seen are taken
off the counts through the CSR rather than masked.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..base.arrays import Array
from ..base.errors import VbprError
from ..compute.device import full_float32, pick_device
from ..stores.model.factors import Factors

# Scores of a block, a megabyte: they and their comparison stay in the caches while they are counted, and what it costs
# to call for a product and four passes over it, which cores do in turn, is small beside it.
USER_BLOCK, ITEM_BLOCK, WIDTH = 768, 384, 64
COUNTED, NUMBERS = 64, 1 << 21  # so many blocks' counts, or numbers, are kept apart before they are added up


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Where each held-out item stands. One entry a held-out (user, item) pair, in the CSR's order.

    Attributes:
        users, items: (H,) positions.
        candidates: (H,) int64: items that the user has not taken: what it competes with.
        above, ties: (H,) int64: those among them that score higher than it, or the same.
        rank: (H,) float64, 1 is best: its place among them and held-out items, ties counted one half.
    """

    users: Array
    items: Array
    above: Array
    ties: Array
    candidates: Array
    rank: Array

    @property
    def auc(self) -> Array:
        """(H,) share of candidates that score lower, ties one half; .5 where there is none."""
        return np.where(self.candidates, 1 - (self.above + 0.5 * self.ties) / np.maximum(1, self.candidates), 0.5)

    @property
    def auc_strict(self) -> Array:
        """(H,) share of candidates that score lower, a tie counting for nothing; .5 where there is none."""
        return np.where(self.candidates, 1 - (self.above + self.ties) / np.maximum(1, self.candidates), 0.5)


@full_float32()
def held_out_ranks(
    users: Tensor,
    items: Tensor,
    bias: Tensor,
    held: sp.csr_matrix,
    observed: sp.csr_matrix,
    user_block: int = USER_BLOCK,
    item_block: int = ITEM_BLOCK,
    advance: Callable[[int], None] = lambda users: None,
) -> Ranks:
    """Rank every held-out item against all items outside `observed`.

    Args:
        users, items, bias: (U, K), (I, K), (I,) float tensors on one device.
        held: (U, I) CSR of held-out pairs; users without any are skipped.
        observed: (U, I) CSR of everything each user took, the held-out pairs included.
        user_block, item_block: scores computed at a time (items in 64s); they change nothing but speed and memory.
        advance: is told how many users have been ranked since it was told last.

    Raises:
        VbprError: a number is not finite, so that nothing is above anything.
    """
    lengths = [  # in float64, where the squares of all that float32 holds are finite
        torch.nn.functional.pad(torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64), (0, 1)).max()
        for rows in (users, items, bias[:, None])
    ]
    largest = lengths[0] * lengths[1] + lengths[2]  # of the scores
    if not torch.isfinite(largest.float()):
        raise VbprError("the model's numbers or its scores are not all finite; train it again with a lower --lr")
    who = np.flatnonzero(np.diff(held.indptr))
    if users.device.type == "cuda":
        user_block, parts = 3 * user_block, -(-len(bias) // (64 * item_block))
        item_block = -(-len(bias) // parts)  # as many blocks, alike, with little to pad
    # Every block of one shape, whole in the widths that a matrix product works in (its last few columns are summed in
    # another order): equal vectors score equally to the last bit wherever they stand.
    item_block = WIDTH * -(-min(item_block, len(bias)) // WIDTH)
    padding = -len(bias) % item_block
    padded = torch.nn.functional.pad(items, (0, 1, 0, padding))  # the bias is a column that users have a 1 for
    padded[:, -1] = torch.nn.functional.pad(bias, (0, padding), value=-torch.inf)
    columns = padded.view(len(padded) // item_block, item_block, -1).transpose(1, 2).contiguous()
    counted = [np.zeros(held.nnz, np.int64) for _ in range(3)]  # above, ties, and twice the places lost to other held

    @torch.inference_mode()
    def count(rows: Array) -> int:
        block = Block(users, padded, columns, held, observed, rows)
        for total, number in zip(counted, block.count(), strict=True):
            total[block.entry] = number
        return len(rows)

    with (
        single_threaded_ops(users.device) as workers,
        ThreadPoolExecutor(workers, "rank", torch.set_num_threads, (1,)) as pool,
    ):
        number = min(len(who), -(-len(who) // (user_block * workers)) * workers)  # as many, alike, for every core
        blocks = np.array_split(who, number) if number else []
        # On a GPU one after another, on the caller's own stream.
        for ranked in (pool.map if users.device.type == "cpu" else map)(count, blocks):
            advance(ranked)
    above, ties, lost = counted
    row_of = np.repeat(np.arange(held.shape[0]), np.diff(held.indptr))
    candidates = (len(bias) - np.diff(observed.indptr))[row_of]
    return Ranks(row_of, held.indices.copy(), above, ties, candidates, 1 + above + 0.5 * ties + 0.5 * lost)


def ranks_of_users(
    factors: Factors, held: sp.csr_matrix, device: str = "auto", advance: Callable[[int], None] = lambda users: None
) -> Ranks:
    """The ranks of a fitted model's held-out items (U, I); see `held_out_ranks`."""
    chosen = pick_device(device)
    theta, items, bias = (
        torch.from_numpy(np.ascontiguousarray(a)).to(chosen) for a in (factors.users, factors.items, factors.bias)
    )
    return held_out_ranks(theta, items, bias, held, factors.seen, advance=advance)


class Block:
    """Some users against the whole catalogue, item block by item block.

    Attributes:
        rows: (n,) users. columns: the items' vectors, block by block, as the right side of a product.
        pair_row, pair_item: (P,) of each held-out pair: which of `rows`, and the item. entry: its place in `held`.
        chunks: slices of the pairs that are compared at a time; the first holds one pair of each user, in order.
        seen_row, seen_column: (S,) what the users have seen, sorted by item; seen_item the same in NumPy.
        by_user: (S,) where each user's seen items lie among those, from `seen_start`, `seen_count` of them.
        pair_seen: (P,) where each held-out pair lies among them. seen_held: (S,) 1 where that is a held-out pair.
    """

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        columns: Tensor,
        held: sp.csr_matrix,
        observed: sp.csr_matrix,
        rows: Array,
    ) -> None:
        self.items, self.columns, self.rows, self.item_block = items, columns, rows, columns.shape[2]
        self.device = users.device
        self.users = torch.nn.functional.pad(users[torch.from_numpy(rows).to(self.device)], (0, 1), value=1.0)
        # The held-out pairs: first one of each user, then the rest, which are compared `len(rows)` at a time.
        counts = np.diff(held.indptr)[rows]
        nth = places(counts)
        order = np.argsort(nth, kind="stable")
        self.pair_row = np.repeat(np.arange(len(rows)), counts)[order]
        self.entry = (np.repeat(held.indptr[rows], counts) + nth)[order]
        self.pair_item = held.indices[self.entry].astype(np.int64)
        self.chunks = [slice(a, min(a + len(rows), len(order))) for a in range(0, len(order), len(rows))]
        part = observed[rows]
        part.sort_indices()
        row = np.repeat(np.arange(len(rows)), np.diff(part.indptr))
        order = np.argsort(part.indices, kind="stable")  # so that an item block's entries lie together
        self.seen_item = part.indices[order].astype(np.int64)
        self.seen_row = torch.from_numpy(row[order]).to(self.device)
        self.seen_column = torch.from_numpy(self.seen_item).to(self.device)
        # By user: what each has seen, among the entries that are sorted by item.
        self.by_user = np.empty_like(order)
        self.by_user[order] = np.arange(len(order))
        keys = row * len(items) + part.indices
        self.pair_seen = self.by_user[np.searchsorted(keys, self.pair_row * len(items) + self.pair_item)]
        is_held = np.zeros(len(keys), np.int64)
        is_held[self.pair_seen] = 1
        self.seen_held = torch.from_numpy(is_held).to(self.device)
        self.seen_count = np.diff(part.indptr)
        self.seen_start = part.indptr[:-1]

    def count(self) -> tuple[Array, Array, Array]:
        """Of each held-out pair: what is above it, what ties with it, and twice the places lost to other held ones."""
        width = min(len(self.rows), self.item_block)
        target = torch.cat([self.target(slice(a, a + width)) for a in range(0, len(self.pair_row), width)])
        computed, counts = self.compare(target)
        if not torch.equal(computed, target):  # another kernel, another last bit: take the scores of the pass itself
            _, counts = self.compare(computed)
        above, not_below, lost = (t.cpu().numpy() for t in counts)
        return above, not_below - above, lost - 1  # among the held-out items it ties with itself, once

    def target(self, pairs: slice) -> Tensor:
        """The scores of these held-out pairs, by a product of the shape that the pass has."""
        item, row = self.pair_item[pairs], self.pair_row[pairs]
        wanted = np.resize(item, self.item_block), np.resize(row, len(self.rows))
        at, of = (torch.from_numpy(a).to(self.device) for a in wanted)
        return torch.mm(self.users[of], self.items[at].T.contiguous()).diagonal()[: len(row)].clone()

    def compare(self, target: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Count what is above each pair's target, and not below it, among items not taken, and both among held ones.

        Returns:
            Each pair's score as this pass computed it, and the counts, all (pairs,).
        """
        total = torch.zeros(2, len(target), dtype=torch.long, device=self.device)
        lost = torch.zeros_like(total[0])
        apart = max(1, min(COUNTED, NUMBERS // len(target)))
        parts = torch.zeros(2, apart, len(target), dtype=target.dtype, device=self.device)
        s = torch.empty(len(self.rows), self.item_block, dtype=target.dtype, device=self.device)
        mask = torch.empty_like(s)
        place = self.seen_row * self.item_block + self.seen_column % self.item_block
        score = torch.empty(len(place), dtype=target.dtype, device=self.device)
        edges = np.arange(len(self.columns) + 1) * self.item_block
        spans = np.diff(np.searchsorted(self.seen_item, edges)).tolist()
        chunks = [
            (torch.from_numpy(self.pair_row[chunk]).to(self.device), target[chunk, None], *parts[:, :, chunk].unbind())
            for chunk in self.chunks
        ]
        blocks = zip(self.columns.unbind(), torch.split(place, spans), torch.split(score, spans), strict=True)
        for b, (columns, seen, seen_score) in enumerate(blocks):  # few calls a block: they cost as much as its numbers
            torch.mm(self.users, columns, out=s)
            for n, (rows, limit, above, not_below) in enumerate(chunks):
                scores, out = (s, mask) if n == 0 else (s[rows], mask[: len(rows)])
                torch.sum(torch.gt(scores, limit, out=out), 1, out=above[b % apart])
                torch.sum(torch.ge(scores, limit, out=out), 1, out=not_below[b % apart])
            if len(seen):
                torch.take(s, seen, out=seen_score)
            if b % apart == apart - 1 or b == len(spans) - 1:
                total += parts.sum(1, dtype=torch.float64).long()
                parts.zero_()
        above, not_below = total
        for chunk in self.chunks:  # each pair with all that its user has seen
            counts = self.seen_count[self.pair_row[chunk]]
            seen_at = self.by_user[np.repeat(self.seen_start[self.pair_row[chunk]], counts) + places(counts)]
            pair = np.repeat(np.arange(chunk.start, chunk.stop), counts)
            at, of = (torch.from_numpy(a).to(self.device) for a in (seen_at, pair))
            higher, as_high = (score[at] > target[of]).long(), (score[at] >= target[of]).long()
            above.index_add_(0, of, higher, alpha=-1)
            not_below.index_add_(0, of, as_high, alpha=-1)
            lost.index_add_(0, of, (higher + as_high) * self.seen_held[at])
        return score[torch.from_numpy(self.pair_seen).to(self.device)], [above, not_below, lost]


def places(counts: Array) -> Array:
    """0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, and so on."""
    return np.asarray(np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))


@contextlib.contextmanager
def single_threaded_ops(device: torch.device) -> Iterator[int]:
    """Blocks are many and small: one a core, each on one thread, waits for nobody. Yields how many to run at a time."""
    if device.type != "cpu":
        yield 1
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def subset(ranks: Ranks, keep: Array) -> Ranks:
    """The entries under a mask, their ranks unchanged."""
    return Ranks(*(getattr(ranks, field.name)[keep] for field in dataclasses.fields(Ranks)))


__all__ = ["Ranks", "held_out_ranks", "ranks_of_users", "subset"]
