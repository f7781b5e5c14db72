"""Vectors as arrays, tables, tensors and a plain index: what any program of the field opens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ...base.arrays import Array, Strings
from .outgoing import Vectors, write_ids, write_npy


def write_arrays(folder: Path, vectors: Vectors) -> list[str]:
    """items.npy (n, K) float32 and item_ids.txt; of a model bias.npy, users.npy and user_ids.txt."""
    n = len(vectors.item_ids)
    write_npy(folder / "items.npy", n, vectors.dim, (block for _, block in vectors.blocks("items.npy")))
    write_ids(folder / "item_ids.txt", vectors.item_ids)
    if vectors.users is not None and vectors.user_ids is not None and vectors.bias is not None:
        np.save(folder / "bias.npy", vectors.bias)
        np.save(folder / "users.npy", vectors.users)
        write_ids(folder / "user_ids.txt", vectors.user_ids)
        return ["scores = users @ items.T + bias"]
    return []


def kind_of(dim: int) -> Any:
    """The type of vectors of so many numbers."""
    return pa.list_(pa.float32(), dim) if dim else pa.list_(pa.float32())


def lists_of(block: Array) -> pa.Array:
    """(m, K) float32 as lists of fixed size, which Arrow has none of 0."""
    if not block.shape[1]:
        return pa.array([[]] * len(block), kind_of(0))
    return pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1), pa.float32()), block.shape[1])


def texts_of(ids: Strings) -> pa.Array:
    return pa.array(ids.tolist(), pa.string())


def write_parquet(folder: Path, vectors: Vectors) -> list[str]:
    """items.parquet: item_id, vector (a list of K float32), and of a model bias; users.parquet: user_id, vector."""
    fields = [("item_id", pa.string()), ("vector", kind_of(vectors.dim))] + (
        [("bias", pa.float32())] if vectors.users is not None else []
    )
    with pyarrow.parquet.ParquetWriter(folder / "items.parquet", pa.schema(fields)) as writer:
        for a, block in vectors.blocks("items.parquet"):
            columns = [texts_of(vectors.item_ids[a : a + len(block)]), lists_of(block)]
            columns += [] if vectors.bias is None else [pa.array(vectors.bias[a : a + len(block)], pa.float32())]
            writer.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)))
    if vectors.users is not None and vectors.user_ids is not None:
        users = pa.table({"user_id": texts_of(vectors.user_ids), "vector": lists_of(vectors.users)})
        pyarrow.parquet.write_table(users, folder / "users.parquet")
        return ["score = inner product of the vectors of user and item, and the item's bias"]
    return []


def write_tensors(folder: Path, vectors: Vectors) -> list[str]:
    """vectors.safetensors: items (n, K), of a model users (U, K) and bias (n,), float32; ids as lines beside it."""
    n = len(vectors.item_ids)
    shapes: dict[str, tuple[int, ...]] = {"items": (n, vectors.dim)}
    rest: dict[str, Array] = {}
    write_ids(folder / "item_ids.txt", vectors.item_ids)
    if vectors.users is not None and vectors.user_ids is not None and vectors.bias is not None:
        rest = {"users": vectors.users, "bias": vectors.bias}
        write_ids(folder / "user_ids.txt", vectors.user_ids)
    shapes |= {name: array.shape for name, array in rest.items()}
    head: dict[str, Any] = {"__metadata__": {"source": vectors.source, "ids": "item_ids.txt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        head[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight
    with (folder / "vectors.safetensors").open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for _, block in vectors.blocks("vectors.safetensors"):
            handle.write(block.data)
        for array in rest.values():
            handle.write(np.ascontiguousarray(array, "<f4").data)
    return ["scores = users @ items.T + bias"] if rest else []


def write_faiss(folder: Path, vectors: Vectors) -> list[str]:
    """items.faiss, an exact index (IndexFlatIP), whose numbers of rows are the lines of item_ids.txt; of a model
    users.npy, the queries, and user_ids.txt."""
    from ..index_kinds import one_faiss

    one_faiss()
    import faiss

    index = faiss.IndexFlatIP(vectors.dim)
    for _, block in vectors.blocks("items.faiss"):
        index.add(block)
    faiss.write_index(index, str(folder / "items.faiss"))
    write_ids(folder / "item_ids.txt", vectors.item_ids)
    if vectors.users is not None and vectors.user_ids is not None:
        np.save(folder / "users.npy", vectors.users)
        write_ids(folder / "user_ids.txt", vectors.user_ids)
        return ["index.search(users, k) gives scores; items that a user has are among them"]
    return []


__all__ = ["lists_of", "write_arrays", "write_faiss", "write_parquet", "write_tensors"]
