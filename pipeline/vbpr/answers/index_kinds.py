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
    """Build an index (by inner product) and find how hard it must search; what was chosen comes back by name."""
    one_faiss()
    if kind not in KINDS:
        raise VbprError(f"--kind {kind} is not known; choose from {', '.join(KINDS)}")
    n, dim = vectors.shape
    kind, reason = choose(n, dim) if kind == "auto" else (kind, "as asked for")
    if kind == "ivfpq" and n < PQ_ITEMS:
        kind, reason = "flat", f"{n:,} items: fewer than the {PQ_ITEMS} that the codes of ivfpq are learnt from"
    vectors = np.ascontiguousarray(vectors, np.float32)
    index, held = BUILDERS[kind](vectors), 0 if kind == "flat" else min(SAMPLE, n // 10)
    rest, queries = vectors[: n - held], vectors[n - held :]
    fill(index, rest, kind)
    if not held:
        return index, {"kind": kind, "effort": 0 if kind == "flat" else 64, "reason": reason, "recall": 1.0}
    # As queries, items that the index does not have yet: it finds those that it has with less effort than a new photo.
    exact = among(queries, rest, np.arange(len(rest)), 10)[0]
    for effort in EFFORTS[kind]:
        found = index.search(queries, 10, params=parameters(index, kind, effort, None))[1]
        recall = float(np.mean([np.isin(e[e >= 0], f).mean() for e, f in zip(exact, found, strict=True)]))
        if recall >= RECALL:
            break
    index.add(queries)
    return index, {"kind": kind, "effort": effort, "reason": reason, "recall": recall}


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
    import faiss

    whole = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexRefine(base, whole)


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

    found, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
    if len(positions):
        top = min(k, len(positions))
        scores[:, :top], at = faiss.knn(queries, np.ascontiguousarray(vectors), top, faiss.METRIC_INNER_PRODUCT)
        found[:, :top] = positions[at]
    return found, scores


__all__ = ["KINDS", "among", "build", "one_faiss", "parameters"]
