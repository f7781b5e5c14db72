"""Answers for many at once, as a table."""

from pathlib import Path

from ..base.files import replacing_table


def write_answers(path: Path | str, queries: list[str], answers: list[list[tuple[str, float]]], what: str) -> int:
    """Write the answers to many queries as Parquet or CSV: query, rank, item_id and `what`. Returns the rows.

    Raises:
        VbprError: a name that ends otherwise, or a place that cannot be written.
    """
    import pyarrow as pa

    rows = [(q, n, i, s) for q, found in zip(queries, answers, strict=True) for n, (i, s) in enumerate(found, 1)]
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    types = {"query": pa.string(), "rank": pa.int32(), "item_id": pa.string(), what: pa.float32()}
    table = pa.table({name: pa.array(values, types[name]) for name, values in zip(types, columns, strict=True)})
    with replacing_table(path, table.schema) as writer:
        writer.write_table(table)
    return len(rows)


__all__ = ["write_answers"]
