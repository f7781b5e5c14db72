"""The lists of many users as a table: user_id, rank, item_id, score; or a row a user."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.arrays import Array, Strings
from ...base.files import replacing_table
from ...base.progress import Progress
from .lookup import positions_or_all

if TYPE_CHECKING:
    from .factors import Factors


@dataclasses.dataclass(frozen=True)
class Lists:
    """The lists of some users.

    Attributes:
        users: (n,) ids. items, scores: (n, k) positions and scores, best first; -1 and -inf where there are no more.
        fallback: (n,) bool, which of them are not a user's own; None where that is not told.
    """

    users: Strings
    items: Array
    scores: Array
    fallback: Array | None = None


def write_lists(
    path: Path | str,
    factors: "Factors",
    k: int,
    users: Array | None,
    seen: bool,
    allowed: Array | None,
    groups: Array | None,
    chunk: int,
) -> int:
    """Write the k best items of users (positions; None for everyone) as Parquet or CSV, by the name. Atomic.

    Args:
        seen, allowed, groups: see `Factors.recommend_all`. chunk: users at a time.

    Returns:
        The number of rows.
    """
    users = positions_or_all(users, len(factors.user_ids), "user")
    k = min(k, len(factors.item_ids))
    with Progress("recommend", len(users), "users") as bar:
        stretches = (users[a : a + chunk] for a in range(0, len(users), chunk))
        lists = (
            Lists(
                factors.user_ids[some],
                *factors.recommend_all(some, k, seen, allowed=allowed, groups=groups, advance=bar.advance),
            )
            for some in stretches
        )
        return write_tables(path, lists, factors.item_ids, k)


def write_tables(
    path: Path | str,
    lists: Iterable[Lists],
    item_ids: Strings,
    k: int,
    columns: Mapping[str, list[str]] | None = None,
    fallback: bool = False,
    wide: bool = False,
) -> int:
    """Write lists, some after others, as Parquet or CSV. Atomic. Returns the number of rows.

    Args:
        k: the longest that a list may be. columns: further ones, and a text for each item of the catalogue.
        fallback: whether a column tells which lists are not a user's own.
        wide: a row a user, with item_1, score_1, ... and so on to k, empty where there are no more.
    """
    import pyarrow as pa

    texts = {"item_id": item_ids.tolist(), **(columns or {})}
    names, written = {name: pa.array(values, pa.string()) for name, values in texts.items()}, 0
    own = [("fallback", pa.bool_())] if fallback else []
    if wide:
        each = [("item", pa.string()), ("score", pa.float32()), *((name, pa.string()) for name in columns or {})]
        fields = [("user_id", pa.string()), *own, *((f"{n}_{i}", kind) for i in range(1, k + 1) for n, kind in each)]
    else:
        fields = [("user_id", pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32())]
        fields += [*own, *((name, pa.string()) for name in columns or {})]
    schema = pa.schema(fields)
    with replacing_table(path, schema) as writer:
        for some in lists:
            arrays = in_rows(some, names, fallback) if not wide else in_one_row(some, names, fallback, k)
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            written += len(arrays[0])
    return written


def in_rows(lists: Lists, names: Mapping[str, Any], fallback: bool) -> list[Any]:
    """The columns of a table with a row an item of a list."""
    import pyarrow as pa

    row, place = np.nonzero(lists.items >= 0)
    items = pa.array(lists.items[row, place])
    ids, *others = (values.take(items) for values in names.values())
    columns = [pa.array(lists.users.tolist(), pa.string()).take(pa.array(row)), pa.array((place + 1).astype(np.int32))]
    columns += [ids, pa.array(lists.scores[row, place])]
    return columns + ([pa.array(told_of(lists)[row])] if fallback else []) + others


def in_one_row(lists: Lists, names: Mapping[str, Any], fallback: bool, k: int) -> list[Any]:
    """The columns of a table with a row a user."""
    import pyarrow as pa

    columns = [pa.array(lists.users.tolist(), pa.string())] + ([pa.array(told_of(lists))] if fallback else [])
    for place in range(k):
        at = lists.items[:, place] if place < lists.items.shape[1] else np.full(len(lists.items), -1)
        some = pa.array(at, mask=at < 0)
        ids, *others = (values.take(some) for values in names.values())
        scores = lists.scores[:, place] if place < lists.scores.shape[1] else np.zeros(len(at), np.float32)
        columns += [ids, pa.array(scores, mask=at < 0), *others]
    return columns


def told_of(lists: Lists) -> Array:
    return np.zeros(len(lists.users), bool) if lists.fallback is None else lists.fallback


__all__ = ["Lists", "write_lists", "write_tables"]
