"""Kinds of FAISS index: which for how many items, how each is built, and how hard it must search."""

import contextlib
import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.progress import Progress, console
from .copies import distinct

KINDS = ("auto", "flat", "hnsw", "ivfpq")
FLAT_ITEMS, HNSW_ITEMS, HNSW_BYTES = 50_000, 4_000_000, 2**34
AXES, CANDIDATES = 128, 10  # wider vectors are searched over so many axes; candidates compared by all, times k
RECALL, SAMPLE = 0.99, 512  # approximate indexes search as hard as this recall@10 on so many items needs
PQ_ITEMS = 16  # the codes of IVF-PQ are learnt from at least so many, one for each value of 4 bits
BLOCK = 2**16  # vectors added at a time: to lists, as many as FAISS itself takes, so that the bits are the same


def choose(n: int, dim: int) -> tuple[str, str]:
    """The kind of index for n vectors, and why."""
    if n <= FLAT_ITEMS:
        return "flat", f"{n:,} items: up to {FLAT_ITEMS:,}, exact search takes milliseconds"
    size = n * (136 + (4 * dim if dim <= AXES else 4 * AXES + 2 * dim))
    if n <= HNSW_ITEMS and size <= HNSW_BYTES:
        return "hnsw", f"{n:,} items: more than {FLAT_ITEMS:,}, and the graph fits in {size / 2**30:.1f} GB"
    return "ivfpq", f"{n:,} items: a graph would take {size / 2**30:.0f} GB"


@functools.cache
def one_faiss() -> None:
    """Refuse two builds of FAISS in one environment: they lie in the same folder, each on half of the other.

    Raises:
        VbprError: telling how to get one of them back.
    """
    builds = []
    for name in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(name)
            builds.append(name)
    if len(builds) > 1:
        raise VbprError(
            f"{' and '.join(builds)} are both installed and overwrite each other; "
            f"pip uninstall {' '.join(builds)}, then pip install one of them"
        )


def build(vectors: Array, kind: str) -> tuple[Any, dict[str, Any]]:
    """Build an index (by inner product) and find how hard it must search; what was chosen comes back by name, as
    `Nearest` keeps it.

    Approximate kinds hold each distinct vector once; `row_of` (n,) int64 then tells which is whose.
    """
    one_faiss()
    if kind not in KINDS:
        raise VbprError(f"--kind {kind} is not known; choose from {', '.join(KINDS)}")
    n, dim = vectors.shape
    kind, reason = choose(n, dim) if kind == "auto" else (kind, "as asked for")
    vectors, row_of = np.ascontiguousarray(vectors, np.float32), None
    firsts, rows = (np.arange(n), np.arange(n)) if kind == "flat" else distinct(vectors)
    if kind == "ivfpq" and len(firsts) < PQ_ITEMS:
        reason = f"{len(firsts):,} items: fewer than the {PQ_ITEMS} that the codes of ivfpq are learnt from"
        kind, firsts = "flat", np.arange(n)
    if len(firsts) < n:
        reason = f"{reason}; {n - len(firsts):,} look exactly like others"
        vectors, row_of = vectors[firsts], rows
    held = 0 if kind == "flat" else min(SAMPLE, len(vectors) // 10)
    # As queries, items that the index does not have yet: it finds those that it has with less effort than a new photo.
    index, rest, queries = BUILDERS[kind](vectors), vectors[: len(vectors) - held], vectors[len(vectors) - held :]
    fill(index, rest, kind)
    effort, recall = 0 if kind == "flat" else 64, 1.0
    if held:
        effort, recall = tuned(index, kind, rest, queries)
        index.add(queries)
    return index, {"kind": kind, "effort": effort, "reason": reason, "recall": recall, "row_of": row_of}


def tuned(index: Any, kind: str, vectors: Array, queries: Array) -> tuple[int, float]:
    """The least effort at which an index of these vectors reaches `RECALL` for these queries, and its recall@10.

    Found is what scores as high as the tenth by exact search: of items that score alike, any will do.
    """
    exact = among(queries, vectors, np.arange(len(vectors)), 10)[1]
    wanted = np.isfinite(exact).sum(1)
    floor = np.take_along_axis(exact, wanted[:, None] - 1, 1)
    floor -= 1e-6 * np.maximum(1, np.abs(floor))  # sums of other orders
    for effort in EFFORTS[kind]:
        listed = index.search(queries, 10, params=parameters(index, kind, effort, None))[1]
        scores = np.where(listed < 0, -np.inf, np.einsum("qd,qkd->qk", queries, vectors[listed]))
        recall = float(np.mean((scores >= floor).sum(1) / wanted))
        if recall >= RECALL:
            break
    return effort, recall


def fill(index: Any, vectors: Array, kind: str) -> None:
    """Add vectors to an index, and show how far that is; exact search only copies them, too fast to speak of."""
    if kind == "flat":
        index.add(vectors)
        return
    with Progress("index", len(vectors), "vectors") as bar:
        for a in range(0, len(vectors), BLOCK):
            index.add(vectors[a : a + BLOCK])
            bar.advance(len(vectors[a : a + BLOCK]))


def sampled(n: int, count: int) -> Array:
    """Positions of at most `count` of n rows, in order; always the same ones."""
    return np.sort(np.random.default_rng(0).permutation(n)[:count])


def flat(vectors: Array) -> Any:
    import faiss

    return faiss.IndexFlatIP(vectors.shape[1])


def hnsw(vectors: Array) -> Any:
    """A graph; of wide vectors over their main axes alone, where float16 vectors decide among what it finds."""
    import faiss

    dim = vectors.shape[1]
    graph = faiss.IndexHNSWFlat(min(dim, AXES), 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 100
    return graph if dim <= AXES else refined(over_axes(graph, vectors), dim)


def ivfpq(vectors: Array) -> Any:
    """Lists and codes find candidates; float16 vectors decide among them."""
    import faiss

    n, dim = vectors.shape
    axes, lists = min(dim, AXES), int(max(1, min(2 * n**0.5, n / 39)))
    codes = next(m for m in range(max(1, min(64, axes // 2)), 0, -1) if axes % m == 0)
    bits = 8 if n >= 10_000 else 4
    base = faiss.index_factory(axes, f"IVF{lists},PQ{codes}x{bits}", faiss.METRIC_INNER_PRODUCT)
    base.do_polysemous_training = False  # minutes spent on the order of codes, for a search by Hamming distance alone
    base.pq.cp.niter = 10  # as for the lists; 25, the default, find no more
    index = refined(base if dim == axes else over_axes(base, vectors), dim)
    sample = vectors[sampled(n, max(20_000, 40 * lists))]
    console.print(f"index: learning {lists:,} lists and their codes from {len(sample):,} vectors")
    index.train(sample)
    return index


def over_axes(base: Any, vectors: Array) -> Any:
    """An index of vectors (n, dim) turned onto the axes that hold most of their inner products."""
    import faiss

    sample = vectors[sampled(len(vectors), 20_000)]
    axes = np.linalg.eigh(sample.T @ sample)[1][:, : -AXES - 1 : -1].T
    turn = faiss.LinearTransform(vectors.shape[1], AXES, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(axes, np.float32).ravel(), turn.A)
    turn.is_trained = True
    return faiss.IndexPreTransform(turn, base)


def refined(base: Any, dim: int) -> Any:
    """An index whose candidates are compared again, by float16 vectors (n, dim)."""
    import faiss

    vectors = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexRefine(base, vectors)


BUILDERS: dict[str, Callable[[Array], Any]] = {"flat": flat, "hnsw": hnsw, "ivfpq": ivfpq}
EFFORTS = {
    "hnsw": (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 1024),
    "ivfpq": (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512),
}


def parameters(index: Any, kind: str, effort: int, chosen: Any) -> Any:
    """FAISS's search parameters: how hard to search, and a selector of the items that may come back."""
    import faiss

    given = {} if chosen is None else {"sel": chosen}
    if kind == "flat":
        return faiss.SearchParameters(**given) if given else None
    if kind == "hnsw":
        base = faiss.SearchParametersHNSW(efSearch=effort, **given)
    else:
        base = faiss.SearchParametersIVF(nprobe=effort, **given)
    if not isinstance(index, faiss.IndexRefine):
        return base
    return faiss.IndexRefineSearchParameters(k_factor=CANDIDATES, base_index_params=base, **given)


def among(queries: Array, vectors: Array, positions: Array, k: int) -> tuple[Array, Array]:
    """Exact search over some vectors (n, K), whose positions come back; -1 where there are fewer than k."""
    import faiss

    nearest, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
    if len(positions):
        top = min(k, len(positions))
        scores[:, :top], at = faiss.knn(queries, np.ascontiguousarray(vectors), top, faiss.METRIC_INNER_PRODUCT)
        nearest[:, :top] = positions[at]
    return nearest, scores


def reconstructed(index: Any, rows: Array) -> Array:
    """(m, K) vectors of an index at these rows, as float16 keeps them where it decides among candidates."""
    import faiss

    store = faiss.downcast_index(index)
    if isinstance(store, faiss.IndexRefine):
        store = faiss.downcast_index(store.refine_index)
    return np.asarray(store.reconstruct_batch(np.asarray(rows, np.int64)))


def searched(index: Any, kind: str, effort: int, queries: Array, k: int, allowed: Array | None) -> tuple[Array, Array]:
    """For queries (q, K): (q, k) rows of an index and their scores, best first; -1 where there are no more.

    Args:
        effort: that it was tuned to. allowed: (rows,) bool, those that may come back; None for all.
    """
    import faiss

    effort, selector = max(effort, k), None
    if allowed is not None:
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
        # an approximate search meets only so many allowed items: look at more where fewer are allowed
        effort = min(4096, int(effort * len(allowed) / max(1, int(allowed.sum()))))
    scores, rows = index.search(queries, k, params=parameters(index, kind, effort, selector))
    return rows, scores


def appended(index: Any, kind: str, row_of: Array | None, n: int, vectors: Array) -> tuple[Any, Array | None]:
    """A copy of an index of n items with vectors appended, and its `row_of`; copies of what it has are not added."""
    import faiss

    index = faiss.clone_index(index)
    if kind == "flat":
        index.add(vectors)
        return index, row_of
    firsts, place = distinct(vectors)
    new = vectors[firsts]
    nearest = searched(index, kind, 64, new, 1, None)[0][:, 0]
    held = reconstructed(index, np.maximum(nearest, 0))
    exact = new.astype(np.float16) if isinstance(faiss.downcast_index(index), faiss.IndexRefine) else new
    same = np.abs(held - exact).max(1) <= 1e-5 * np.abs(exact).max(1)  # a product's last bits hang on the batch
    same &= nearest >= 0
    rows = np.where(same, nearest, index.ntotal + np.cumsum(~same) - 1)[place]
    plain = row_of is None and np.array_equal(rows, np.arange(n, n + len(vectors)))
    index.add(new[~same])
    return index, None if plain else np.concatenate([np.arange(n) if row_of is None else row_of, rows])


__all__ = ["KINDS", "among", "appended", "build", "one_faiss", "reconstructed", "searched"]
