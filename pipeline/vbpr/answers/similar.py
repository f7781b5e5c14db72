"""The items nearest to items or photos, from a model or feature file and the options of a command.

similar("artifacts/inc.model.h5", ["B00A1"], k=10).item_ids
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..base.arrays import Array
from ..base.progress import Progress
from ..base.targets import check_table
from ..data.dataset import Dataset
from ..stores.model.lookup import indices_of
from ..stores.model.topk import one_per_group
from .answer import Answer, Written, write_answers
from .filters import allowed as allow
from .filters import groups_of, read_known
from .nearest import Nearest
from .streamed import nearest_for_one

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
    one_per: str | None = None,
    unseen_by: str | None = None,
    index: Path | None = None,
    data: str | None = None,
) -> Answer:
    """The items nearest to what several items share, or several photos.

    Args:
        weights: see `encode_photos`.
        one_per: a column of the data set's items, of each value of which one item comes, and none of those asked for.
        index: see `Nearest.open`; without one, see `nearest_for_one`.
        category, allowed, unseen_by, data: see `filtered`.

    Raises:
        VbprError: what is asked for is not in the file or the data set.
    """
    near = nearest_for_one(file) if index is None else Nearest.open(file, index)
    dataset, mask = filtered(near, file, category, allowed, unseen_by, data)
    given = list(items) or [str(path) for path in images]
    if items:
        query = near.query_item(*items)
    else:
        from ..extraction.photos import encode_photos

        query = near.query_photos(encode_photos(images, near.backbone, weights))
    if one_per is None:
        pairs = near.search(query, k, leave_out=items, allowed=mask)
    else:
        groups, asked = groups_of(near.item_ids, dataset.items(), one_per), indices_of(near.item_ids, items, "item")
        found = nearest_but(near, query, k, asked, mask, groups)
        pairs = list(zip(near.item_ids[found[0]].tolist(), found[1].tolist(), strict=True))
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
    one_per: str | None = None,
    unseen_by: str | None = None,
    index: Path | None = None,
    data: str | None = None,
) -> Written:
    """The same for each of the items that a file names, as a table; see `write_answers`."""
    check_table(out)
    near = Nearest.open(file, index)
    dataset, mask = filtered(near, file, category, allowed, unseen_by, data)
    groups = None if one_per is None else groups_of(near.item_ids, dataset.items(), one_per)
    started, asked = time.monotonic(), read_known(items, near.item_ids)
    pairs = near.search_items(asked, k, mask) if groups is None else one_by_one(near, asked, k, mask, groups)
    rows = write_answers(out, asked, pairs, near.metric)
    return Written(rows, len(asked), time.monotonic() - started)


def filtered(
    near: Nearest, file: Path | str, category: str | None, allowed: Path | None, unseen_by: str | None, data: str | None
) -> tuple[Dataset, Array | None]:
    """The data set, and which items may be answers.

    Args:
        category: only items of it. allowed: a file of ids; only these items.
        unseen_by: a user of the model; only items that this user has not taken.
        data: the data set, where it is not the one on record.
    """
    dataset = Dataset.behind(near.data, data)
    columns = {} if category is None else dataset.items()
    mask = allow(near.item_ids, columns, category, read_known(allowed, near.item_ids) if allowed else None)
    return dataset, mask if unseen_by is None else near.not_taken(file, unseen_by, mask)


def one_by_one(
    near: Nearest, items: Sequence[str], k: int, allowed: Array | None, groups: Array
) -> list[list[tuple[str, float]]]:
    """What `Nearest.search_items` finds, one item of each group and none of the group that is asked for."""
    out = []
    with Progress("similar", len(items), "items") as bar:
        for at in indices_of(near.item_ids, items, "item"):
            vector = near.rows(np.array([at]))
            found, scores = nearest_but(near, vector, k if vector.any() else 0, np.array([at]), allowed, groups)
            out.append(list(zip(near.item_ids[found].tolist(), scores.tolist(), strict=True)))
            bar.advance(1)
    return out


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
