"""Batches of positives and their negatives, as `bpr.gradients` takes them."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...config import TrainConfig
from .sampling import TripletSampler, spans


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


def sample_batches(sampler: TripletSampler, pairs: Tensor, c: TrainConfig, histories: bool) -> list[Batch]:
    """The batches of (count, B) pairs of an epoch's order, each with negatives, and with `taken` if `histories`.

    All together: few operations on large tensors, and a GPU is waited for a few times a call rather than a batch.
    """
    u, i = sampler.rows[pairs], sampler.columns[pairs]
    (count, size), shared = pairs.shape, c.shared_negatives > 0
    if not shared:
        j = sampler.negatives(u.view(-1)).view(count, size)
    elif c.negatives == "in-batch":  # what others of the batch took: as popular as the positives are
        j = i[:, :: max(1, size // c.shared_negatives)][:, : c.shared_negatives]  # of as many users as there are
    else:
        j = sampler.candidates(count * c.shared_negatives).view(count, -1)
    number, everyone = torch.arange(count, device=u.device), len(sampler.degree)
    keys, run, length = torch.unique_consecutive(
        (u + number[:, None] * everyone).view(-1), return_inverse=True, return_counts=True
    )
    batch, users = keys // everyone, keys % everyone
    runs = torch.bincount(batch, minlength=count)
    first, runs_of = runs.cumsum(0) - runs, runs.tolist()  # of each batch's runs, and how many
    parts: dict[str, Any] = {
        "u": users.split_with_sizes(runs_of),
        "length": length.split_with_sizes(runs_of),
        "run": run.view(count, size) - first[:, None],
        "i": i,
        "j": j.sort(1).values if shared else j,
    }
    if histories:
        row, item = sampler.histories(users)
        degree = sampler.degree[users]
        entries = torch.zeros_like(runs).index_add_(0, batch, degree)
        starts = degree.cumsum(0) - degree - (entries.cumsum(0) - entries)[batch]
        sizes = entries.tolist()
        taken = item.split_with_sizes(sizes), (row - first[batch[row]]).split_with_sizes(sizes)
        parts["taken"] = zip(*taken, starts.split_with_sizes(runs_of), strict=True)
    if shared:
        j, width = parts["j"], parts["j"].shape[1]
        place = torch.searchsorted(j, j) + number[:, None] * width  # all of an item's draws at its first place
        parts["weight"] = torch.bincount(place.view(-1), minlength=count * width).view(count, width).float()
        drawn = torch.zeros(sampler.items, dtype=torch.bool, device=u.device)
        drawn[j.view(-1)] = True
        row, item = sampler.among(users, drawn)  # few of what they took: no more need be looked for in each batch
        j = (j + number[:, None] * sampler.items).view(-1)
        key = item + batch[row] * sampler.items
        at = torch.searchsorted(j, key).clamp_(max=len(j) - 1)
        inside = j[at] == key
        row, at = row[inside], at[inside]
        entry, positive = spans((length.cumsum(0) - length)[row], length[row])  # such a pair, for all of the run
        pairs_of = torch.bincount(positive // size, minlength=count).tolist()
        parts["excluded"] = zip(
            (positive % size).split_with_sizes(pairs_of), (at[entry] % width).split_with_sizes(pairs_of), strict=True
        )
    return [Batch(**dict(zip(parts, each, strict=True))) for each in zip(*parts.values(), strict=True)]


__all__ = ["Batch", "sample_batches"]
