"""Vectors for databases that search them: pgvector's, as a script that psql loads, and Qdrant's, as points to upload.

A model's vectors have the bias as one number more, so that the largest inner product is the highest score.
"""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ...base.arrays import Array, Strings
from ...base.errors import VbprError
from .outgoing import Vectors, as_texts

MOST, MOST_INDEXED = 16_000, 2_000  # numbers of a `vector` of pgvector's, and of one that it indexes
ROWS = 4096  # users at a time

HEAD = r"""\set ON_ERROR_STOP on
-- {source}
-- In this folder: psql -d DATABASE -f load.sql -f index.sql; again after the next export, which replaces the tables.
CREATE EXTENSION IF NOT EXISTS vector;
BEGIN;
DROP TABLE IF EXISTS vbpr_items, vbpr_users, vbpr_seen CASCADE;
CREATE TABLE vbpr_items (item_id text PRIMARY KEY, n integer NOT NULL, vector vector({dim}) NOT NULL);
\copy vbpr_items FROM 'items.csv' WITH (FORMAT csv, HEADER)
"""
USERS = r"""CREATE TABLE vbpr_users (user_id text PRIMARY KEY, vector vector({dim}) NOT NULL);
\copy vbpr_users FROM 'users.csv' WITH (FORMAT csv, HEADER)
CREATE TABLE vbpr_seen (user_id text, item_id text, PRIMARY KEY (user_id, item_id));
\copy vbpr_seen FROM 'seen.csv' WITH (FORMAT csv, HEADER)
-- The k items of highest score that a user has not; n puts equal scores in the order of vbpr recommend.
CREATE OR REPLACE FUNCTION vbpr_recommend(who text, k integer DEFAULT 10)
RETURNS TABLE (item_id text, score double precision) LANGUAGE sql STABLE AS $$
  SELECT f.item_id, -f.distance FROM (
    SELECT i.item_id, i.n, i.vector <#> (SELECT u.vector FROM vbpr_users u WHERE u.user_id = who) AS distance
    FROM vbpr_items i
    WHERE EXISTS (SELECT FROM vbpr_users u WHERE u.user_id = who)
      AND i.item_id <> ALL (ARRAY(SELECT s.item_id FROM vbpr_seen s WHERE s.user_id = who))
    ORDER BY distance
    LIMIT k
  ) f ORDER BY f.distance, f.n
$$;
COMMIT;
ANALYZE vbpr_items;
"""
ITEMS_ALONE = r"""-- The k items nearest to an item, by cosine.
CREATE OR REPLACE FUNCTION vbpr_similar(item text, k integer DEFAULT 10)
RETURNS TABLE (item_id text, cosine double precision) LANGUAGE sql STABLE AS $$
  SELECT f.item_id, 1 - f.distance FROM (
    SELECT i.item_id, i.n, i.vector <=> (SELECT q.vector FROM vbpr_items q WHERE q.item_id = item) AS distance
    FROM vbpr_items i
    WHERE i.item_id <> item
    ORDER BY distance
    LIMIT k
  ) f ORDER BY f.distance, f.n
$$;
COMMIT;
ANALYZE vbpr_items;
"""
INDEX = """-- Without an index every item is compared: exact. HNSW is approximate: SET hnsw.ef_search above k and what a
-- user has, and with pgvector 0.8 or later SET hnsw.iterative_scan = strict_order.
CREATE INDEX ON vbpr_items USING hnsw (vector {operators});
"""


def write_pgvector(folder: Path, vectors: Vectors) -> list[str]:
    """load.sql, with items.csv and of a model users.csv and seen.csv; index.sql.

    Raises:
        VbprError: vectors of more numbers than pgvector takes.
    """
    model = vectors.users is not None
    if vectors.dim > MOST:
        raise VbprError(
            f"pgvector has vectors of up to {MOST:,} numbers, and these have {vectors.dim:,}; use --to parquet"
        )
    items = vectors.item_ids
    write_csv(
        folder / "items.csv",
        ["item_id", "n", "vector"],
        (
            [texts(items[a : a + len(block)]), pa.array(np.arange(a, a + len(block))), bracketed(block)]
            for a, block in vectors.blocks("items.csv")
        ),
    )
    if vectors.users is not None and vectors.user_ids is not None:
        users, names = vectors.users, vectors.user_ids
        starts = range(0, len(names), ROWS)
        write_csv(
            folder / "users.csv",
            ["user_id", "vector"],
            ([texts(names[a : a + ROWS]), bracketed(users[a : a + ROWS])] for a in starts),
        )
        write_csv(folder / "seen.csv", ["user_id", "item_id"], (pairs(vectors, a) for a in starts))
    script = (HEAD + (USERS if model else ITEMS_ALONE)).replace("{dim}", str(vectors.dim))
    (folder / "load.sql").write_text(script.replace("{source}", vectors.source.replace("\n", " ")), encoding="utf-8")
    asked = "SELECT * FROM vbpr_recommend('USER', 10)" if model else "SELECT * FROM vbpr_similar('ITEM', 10)"
    notes = [f"in that folder: psql -d DATABASE -f load.sql; then {asked}"]
    if vectors.dim <= MOST_INDEXED:
        operators = "vector_ip_ops" if model else "vector_cosine_ops"
        (folder / "index.sql").write_text(INDEX.replace("{operators}", operators), encoding="utf-8")
        return notes
    return [
        *notes,
        f"no index.sql: pgvector indexes vectors of up to {MOST_INDEXED:,} numbers, and compares all of these",
    ]


def texts(ids: Strings) -> pa.Array:
    return pa.array(ids.tolist(), pa.string())


def bracketed(block: Array) -> pa.Array:
    """(m, K) float32 as `[0.5,-2]`."""
    return pc.binary_join_element_wise("[", as_texts(block), "]", "")


def pairs(vectors: Vectors, a: int) -> list[pa.Array]:
    """What some users, from position `a` on, have: users and items."""
    assert vectors.user_ids is not None
    block = vectors.seen[a : a + ROWS]
    users = np.repeat(np.arange(a, a + block.shape[0]), np.diff(block.indptr))
    return [texts(vectors.user_ids[users]), texts(vectors.item_ids[block.indices])]


def write_csv(path: Path, names: list[str], blocks: Iterator[list[pa.Array]]) -> None:
    """A CSV of columns, block by block."""
    writer = None
    with path.open("wb") as handle:
        for block in blocks:
            table = pa.table(dict(zip(names, block, strict=True)))
            writer = writer or pyarrow.csv.CSVWriter(handle, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


SPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of names that are URLs (RFC 4122)


def point_id(item_id: str) -> str:
    """The UUID by which Qdrant knows an item: the same in every export, so that a point is replaced, not doubled."""
    return str(uuid.uuid5(SPACE, f"urn:vbpr:item:{item_id}"))


def write_qdrant(folder: Path, vectors: Vectors) -> list[str]:
    """collection.json, the body that creates the collection; points.jsonl, a point a line with the item's id as its
    payload; of a model users.jsonl: a user's vector, which is the query, and the points of what the user has."""
    distance = "Cosine" if vectors.users is None else "Dot"
    body = {"vectors": {"size": vectors.dim, "distance": distance}}
    (folder / "collection.json").write_text(json.dumps(body) + "\n", encoding="utf-8")
    points = [point_id(name) for name in vectors.item_ids.tolist()]
    with (folder / "points.jsonl").open("w", encoding="utf-8") as handle:
        for a, block in vectors.blocks("points.jsonl"):
            for n, text in enumerate(as_texts(block).to_pylist(), a):
                payload = json.dumps({"item_id": str(vectors.item_ids[n])})
                handle.write(f'{{"id": "{points[n]}", "vector": [{text}], "payload": {payload}}}\n')
    if vectors.users is None or vectors.user_ids is None:
        return []
    seen = vectors.seen
    with (folder / "users.jsonl").open("w", encoding="utf-8") as handle:
        for a in range(0, len(vectors.user_ids), ROWS):
            for n, text in enumerate(as_texts(vectors.users[a : a + ROWS]).to_pylist(), a):
                taken = [points[item] for item in seen.indices[seen.indptr[n] : seen.indptr[n + 1]]]
                user = json.dumps(str(vectors.user_ids[n]))
                handle.write(f'{{"user_id": {user}, "vector": [{text}], "seen": {json.dumps(taken)}}}\n')
    return ["ask with a user's vector, and must_not has_id of what the user has (seen)"]


__all__ = ["point_id", "write_pgvector", "write_qdrant"]
