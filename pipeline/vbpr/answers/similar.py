"""The items nearest to items or photos, from a model or feature file and the options of a command.

similar("artifacts/inc.model.h5", ["B00A1"], k=10).item_ids
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..base.arrays import Array
from ..base.targets import check_table
from ..data.dataset import Dataset
from ..extraction.photos import encode_photos
from ..stores.model.topk import one_per_group
from .answer import Answer, Written, write_answers
from .filters import allowed as allow
from .filters import read_known
from .nearest import Nearest

WIDEST = 4096  # nearest items that are gone through for some of different groups


def similar(
    file: Path | str,
    items: Sequence[str] = (),
    k: int = 10,
    *,
    images: Sequence[Path] = (),
    weights: Path | None = None,
    category: str | None = None,
    allowed: Path | None = None,
    unseen_by: str | None = None,
    index: Path | None = None,
    data: str | None = None,
) -> Answer:
    """The items nearest to what several items share, or several photos.

    Args:
        weights: see `encode_photos`.
        category, allowed, unseen_by, index, data: see `opened`.

    Raises:
        VbprError: what is asked for is not in the file or the data set.
    """
    near, dataset, mask = opened(file, category, allowed, unseen_by, index, data)
    given = list(items) or [str(path) for path in images]
    query = near.query_item(*items) if items else near.query_photos(encode_photos(images, near.backbone, weights))
    pairs = near.search(query, k, leave_out=items, allowed=mask)
    return Answer(
        {"query": given[0] if len(given) == 1 else given},
        f"like {', '.join(given)}",
        given,
        "query",
        "nearest",
        [item_id for item_id, _ in pairs],
        [score for _, score in pairs],
        near.metric,
        dataset,
        near.added,
    )


def similar_to_many(
    file: Path | str,
    out: Path,
    items: Path,
    k: int = 10,
    *,
    category: str | None = None,
    allowed: Path | None = None,
    unseen_by: str | None = None,
    index: Path | None = None,
    data: str | None = None,
) -> Written:
    """The same for each of the items that a file names, as a table; see `write_answers`."""
    check_table(out)
    near, _, mask = opened(file, category, allowed, unseen_by, index, data)
    started, asked = time.monotonic(), read_known(items, near.item_ids)
    rows = write_answers(out, asked, near.search_items(asked, k, mask), near.metric)
    return Written(rows, len(asked), time.monotonic() - started)


def opened(
    file: Path | str,
    category: str | None,
    allowed: Path | None,
    unseen_by: str | None,
    index: Path | None,
    data: str | None,
) -> tuple[Nearest, Dataset, Array | None]:
    """The index, its data set, and which items may be answers.

    Args:
        category: only items of it. allowed: a file of ids; only these items.
        unseen_by: a user of the model; only items that this user has not taken.
        index: see `Nearest.open`.
        data: the data set, where it is not the one on record.
    """
    near = Nearest.open(file, index)
    dataset = Dataset.behind(near.data, data)
    mask = allow(near.item_ids, dataset.items(), category, read_known(allowed, near.item_ids) if allowed else None)
    return near, dataset, mask if unseen_by is None else near.not_taken(file, unseen_by, mask)


def nearest_but(
    near: Nearest, query: Array, k: int, left_out: Array, allowed: Array | None, groups: Array | None
) -> tuple[Array, Array]:
    """At most k items nearest to a query (1, K), best first: positions and scores.

    Args:
        left_out: positions of items that must not come back.
        allowed: (n,) bool, the items that may; None for all.
        groups: (n,) int64 from 0; of a group only the nearest item comes, and none of a group of those left out.
    """
    wide = k + len(left_out)
    if groups is None:
        items, scores = near.search_many(query, wide, allowed)
        good = (items[0] >= 0) & ~np.isin(items[0], left_out)
        return items[0][good][:k], scores[0][good][:k]

    def search(_: Array, width: int) -> tuple[Array, Array]:
        return near.search_many(query, width, allowed)

    most = max(wide, min(len(near.item_ids), WIDEST))
    pairs = np.zeros(len(left_out), np.int64), left_out
    items, scores = one_per_group(search, 1, k, groups, pairs, wide, most, allowed)
    return items[0][items[0] >= 0], scores[0][items[0] >= 0]


__all__ = ["nearest_but", "similar", "similar_to_many"]
