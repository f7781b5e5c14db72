"""An answer to one question, and the answers to many as a table."""

import dataclasses
from pathlib import Path
from typing import Any

from ..base.files import replacing_table
from ..data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Answer:
    """Items, best first, and the question that they answer.

    Attributes:
        asked: the question, as JSON. title: in words.
        given: what was asked with, ids of items or names of photo files; given_as, listed_as: headings for that and for
            the answer, in a picture.
        item_ids, scores: (n,). metric: what the scores are: score, cosine or inner.
        data, added: where titles and photographs are: the data set, and folders of items added since.
    """

    asked: dict[str, Any]
    title: str
    given: list[str]
    given_as: str
    listed_as: str
    item_ids: list[str]
    scores: list[float]
    metric: str
    data: Dataset
    added: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The question, and a list of items with their scores."""
        pairs = zip(self.item_ids, self.scores, strict=True)
        return {**self.asked, "items": [{"item_id": item_id, self.metric: score} for item_id, score in pairs]}


@dataclasses.dataclass(frozen=True)
class Written:
    """What a table of answers holds: rows, for so many queries, answered in so many seconds.

    Attributes:
        fallback: queries that were answered with bestsellers.
        unseen: places in lists that went to items which nobody took in training; of: how many such items there are.
        listed: places in all lists.
    """

    rows: int
    queries: int
    seconds: float
    fallback: int = 0
    unseen: int = 0
    of: int = 0
    listed: int = 0


def write_answers(path: Path | str, queries: list[str], answers: list[list[tuple[str, float]]], metric: str) -> int:
    """Write the answers to many queries as Parquet or CSV: query, rank, item_id and `metric`. Returns the rows.

    Raises:
        VbprError: a name that ends otherwise, or a place that cannot be written.
    """
    import pyarrow as pa

    rows = [(q, n, i, s) for q, pairs in zip(queries, answers, strict=True) for n, (i, s) in enumerate(pairs, 1)]
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    types = {"query": pa.string(), "rank": pa.int32(), "item_id": pa.string(), metric: pa.float32()}
    table = pa.table({name: pa.array(values, types[name]) for name, values in zip(types, columns, strict=True)})
    with replacing_table(path, table.schema) as writer:
        writer.write_table(table)
    return len(rows)


__all__ = ["Answer", "Written", "write_answers"]
