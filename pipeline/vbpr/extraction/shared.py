"""Pictures that are the same, byte by byte, for many items: as a rule a shop's "no photo" picture.

groups = shared_pictures(source)        # [Shared(rows=[0, 4, 8], items=3)], the largest first
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..base.arrays import Array
from ..data.images.source import BadImage, ImageSource, Pictures
from ..stores.features.layout import SHARED
from ..stores.features.writer import Writer

FEWEST = 1000  # of a catalogue a thousandth at least, or two: in a large one many files have one size by chance


class Shared(NamedTuple):
    """Rows of a source whose pictures are the same, and how many items these are of."""

    rows: Array
    items: int


def shared_pictures(source: ImageSource, pictures: Pictures | None = None) -> list[Shared]:
    """The pictures that several items share. Files of one size are compared by a digest of their content.

    Args:
        pictures: where the source is one of pictures, whose they are.
    """
    least = max(2, len(source) // FEWEST)
    sizes = np.fromiter((source.size(i) for i in range(len(source))), np.int64, len(source))
    groups = []
    for rows in alike(sizes, least):
        if sizes[rows[0]]:
            by_content = defaultdict(list)
            for row in rows.tolist():
                try:
                    by_content[source.content(row)].append(row)
                except BadImage:
                    continue
            groups += [np.array(same) for same in by_content.values()]
    if pictures is None:
        counted = [Shared(rows, len(rows)) for rows in groups]
    else:
        items = np.repeat(np.arange(len(pictures.starts) - 1), np.diff(pictures.starts))
        order = np.argsort(pictures.places, kind="stable")
        bounds = np.searchsorted(pictures.places[order], np.arange(len(source) + 1))
        used = np.diff(bounds)
        groups += [np.array([row]) for row in np.flatnonzero(used >= least).tolist()]
        seen: dict[int, Shared] = {}
        for rows in groups:
            of = np.concatenate([items[order[bounds[row] : bounds[row + 1]]] for row in rows.tolist()])
            group = Shared(rows, len(np.unique(of)))
            if group.items >= seen.get(int(rows[0]), Shared(rows, 0)).items:
                seen[int(rows[0])] = group
        counted = list(seen.values())
    return sorted((group for group in counted if group.items >= least), key=lambda group: -group.items)


def refuse(store: Writer, groups: Sequence[Array]) -> None:
    """Mark the rows of these groups as pictures that too many items share, and no other rows."""
    now = np.zeros(len(store), bool)
    for rows in groups:
        now[rows] = True
    store.retry((SHARED,), ~now)
    rows = np.flatnonzero(now & ~store.failed_for((SHARED,)))
    store.fail(rows, [SHARED] * len(rows))


def alike(values: Array, least: int) -> list[Array]:
    """The positions of each value that occurs so often, in order."""
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(values[order])) + 1
    return [rows for rows in np.split(order, edges) if len(rows) >= least]


__all__ = ["SHARED", "Shared", "refuse", "shared_pictures"]
