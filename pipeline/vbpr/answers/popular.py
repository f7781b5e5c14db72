"""Bestsellers: what most people took, ever or of late; for anybody of whom nothing is known.

sold, when = bestsellers(factors, dataset, since="30d"); items, people = best_sold(sold, 10)
"""

import dataclasses
import re

import numpy as np

from ..base.arrays import Array, places
from ..base.errors import VbprError
from ..base.progress import console
from ..data.dataset import Dataset
from ..stores.model.factors import Factors

SECONDS = {"h": 3600, "d": 86_400, "w": 604_800}


def seconds_of(since: str) -> int:
    """The length of a window such as 12h, 30d or 4w.

    Raises:
        VbprError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6})([hdw])", since.strip().lower())
    if found is None or not int(found[1]):
        raise VbprError(f"--since {since} is no length of time; give hours, days or weeks, as 12h, 30d or 4w")
    return int(found[1]) * SECONDS[found[2]]


def bestsellers(factors: Factors, dataset: Dataset | None = None, since: str | None = None) -> tuple[Factors, str]:
    """A model as one of popularity: no tastes, and as bias how many people took each item; and of which time, in words.

    Args:
        dataset: whose interactions are read for a window. since: its length, back from the last event; None: all that
            the model knows, held-out items too. Of a person's purchases of one thing the first counts.

    Raises:
        VbprError: `since` is no length of time, or there are no interactions to read.
    """
    counts, when = np.bincount(factors.seen.indices, minlength=len(factors.item_ids)), "of all time"
    if since is not None and dataset is not None:
        length, events = seconds_of(since), dataset.interactions()
        if events.times is None:
            why = events.unread.get("timestamp", "they have no timestamps")
            console.print(f"note: --since {since} has no times to go by ({why}): bestsellers of all time")
        else:
            recent = np.bincount(
                events.items[events.times > events.times.max() - length], minlength=len(events.item_ids)
            )
            at = places(events.item_ids, factors.item_ids)
            counts, when = np.where(at < 0, 0, recent[at]), f"of the last {since.strip()} in the data set"
    none = (np.zeros((n, 0), np.float32) for n in factors.train.shape)
    return dataclasses.replace(factors, users=next(none), items=next(none), bias=counts, head=None), when


def best_sold(
    sold: Factors, k: int, allowed: Array | None = None, groups: Array | None = None, without: Array | None = None
) -> tuple[Array, Array]:
    """At most k bestsellers, none that nobody took: positions and how many people took each, best first.

    Args:
        sold: of `bestsellers`. allowed, groups: see `Factors.choose`. without: positions of items that must not come.
    """
    mask = sold.bias > 0 if allowed is None else allowed & (sold.bias > 0)
    return sold.choose(np.zeros(0, np.float32), k, exclude=without, allowed=mask, groups=groups)


__all__ = ["best_sold", "bestsellers", "seconds_of"]
