"""Batches of positives and their negatives, as `bpr.gradients` takes them."""

import dataclasses

import torch
from torch import Tensor

from ..sampling import TripletSampler, spans
from .config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Batch:
    """B positives in R runs, each of one user, and negatives: one each (weight None), or N for all.

    B and N are the same in every batch: the first product of a new shape costs as much as ten.

    Attributes:
        u: (R,) users. length: (R,) positives of each run, and run: (B,) the run of each positive.
        i: (B,) items that were taken. j: (B,) or (N,) items that were not.
        weight: (N,) how often each shared negative was drawn; 0: it stands elsewhere already.
        excluded: (m,), (m,) positives, and columns of the shared negatives that their users took; None: there are none.
        taken: what each user took: (m,) items, (m,) the run of each, (R,) where each run's begin.
    """

    u: Tensor
    length: Tensor
    run: Tensor
    i: Tensor
    j: Tensor
    weight: Tensor | None = None
    excluded: tuple[Tensor, Tensor] | None = None
    taken: tuple[Tensor, Tensor, Tensor] | None = None


def draw(sampler: TripletSampler, pairs: Tensor, c: TrainConfig, histories: bool) -> list[Batch]:
    """The batches of (count, B) pairs of an epoch's order, each with negatives, and with `taken` if `histories`."""
    u, i = sampler.rows[pairs], sampler.columns[pairs]
    count, size = pairs.shape
    if not c.shared_negatives:
        j = sampler.negatives(u.view(-1)).view(count, size)
    elif c.negatives == "in-batch":  # what others of the batch took: as popular as the positives are
        j = i[:, :: max(1, size // c.shared_negatives)][:, : c.shared_negatives]  # of as many users as there are
    else:
        j = sampler.candidates(count * c.shared_negatives).view(count, -1)
    return [
        one_batch(sampler, *each, shared=c.shared_negatives > 0, histories=histories)
        for each in zip(u, i, j, strict=True)
    ]


def one_batch(sampler: TripletSampler, u: Tensor, i: Tensor, j: Tensor, *, shared: bool, histories: bool) -> Batch:
    """A batch of (B,) users and items, and (B,) own negatives or as many shared ones as were drawn."""
    users, run, length = torch.unique_consecutive(u, return_inverse=True, return_counts=True)
    taken = None
    if shared or histories:
        row, item = sampler.histories(users)
    if histories:
        taken = (item, row, torch.searchsorted(row, torch.arange(len(users), device=row.device)))
    if not shared:
        return Batch(users, length, run, i, j, taken=taken)
    j = j.sort().values
    drawn = torch.bincount(torch.searchsorted(j, j), minlength=len(j))  # all of an item's draws at its first place
    at = torch.searchsorted(j, item).clamp_(max=len(j) - 1)
    inside = j[at] == item
    row, at = row[inside], at[inside]
    begin = length.cumsum(0) - length
    entry, positive = spans(begin[row], length[row])  # each such pair, for every positive of the run
    return Batch(users, length, run, i, j, drawn.float(), (positive, at[entry]), taken)


__all__ = ["Batch", "draw"]
