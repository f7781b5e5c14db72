"""The lists of many users as a table: user_id, rank, item_id, score."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.arrays import Array
from ...base.files import replacing_table
from ...base.progress import Progress
from .lookup import positions_or_all

if TYPE_CHECKING:
    from .factors import Factors


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
    import pyarrow as pa

    users = positions_or_all(users, len(factors.user_ids), "user")
    k = min(k, len(factors.item_ids))
    names, written = pa.array(factors.item_ids.tolist(), pa.string()), 0
    schema = pa.schema(
        [("user_id", pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32())]
    )
    with (
        replacing_table(path, schema) as writer,
        Progress("recommend", len(users), "users") as bar,
    ):
        for a in range(0, len(users), chunk):
            some = users[a : a + chunk]
            items, scores = factors.recommend_all(some, k, seen, allowed=allowed, groups=groups, advance=bar.advance)
            row, place = np.nonzero(items >= 0)
            who = pa.array(factors.user_ids[some].tolist(), pa.string())
            columns = [
                who.take(pa.array(row)),
                pa.array((place + 1).astype(np.int32)),
                names.take(pa.array(items[row, place])),
                pa.array(scores[row, place]),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            written += len(row)
    return written


__all__ = ["write_lists"]
