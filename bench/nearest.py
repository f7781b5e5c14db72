"""Recall@10 and queries a second of indexes against exact search, on one core, with made data.

python bench/nearest.py --items 1000000 --dim 50
python bench/nearest.py --items 200000 --dim 2048

python bench/nearest.py --like artifacts/inc.h5 artifacts/inc.model.h5

`auto` is the kind that `vbpr index` chooses. Rates are medians of runs that take turns with exact search; exact search
is given whole batches, its fastest way. The queries are new items of the same styles, not in the catalogue.
`--like` describes the vectors of feature and model files as the made ones are described, and leaves.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np
from common import PeakMemory, machine, resident, table

from vbpr.answers.index_kinds import among, build
from vbpr.answers.nearest import Nearest, contents
from vbpr.stores.model.head import unit_rows


def made(n, dim, seed=0, styles=1000, block=20_000):
    """(n, dim) unit vectors: 1,000 styles and items around them, whose variance falls along the axes as rank^-1.2.

    Within a style items vary by 0.6 of the deviation between styles. `character` compares that with real vectors.
    """
    rng = np.random.default_rng(seed)
    size = np.arange(1, dim + 1, dtype=np.float32) ** -0.6
    centres = rng.standard_normal((styles, dim), np.float32) * size
    out = np.empty((n, dim), np.float32)
    for a in range(0, n, block):
        count = min(block, n - a)
        own = rng.standard_normal((count, dim), np.float32) * (0.6 * size)
        out[a : a + count] = unit_rows(centres[rng.integers(styles, size=count)] + own)
    return out


def character(vectors):
    """What makes search easy or hard, in words, of (n, dim) unit vectors of which at most 9,000 are looked at."""
    some = vectors[np.random.default_rng(0).permutation(len(vectors))[:9000]]
    variance = np.linalg.eigvalsh(some.T @ some)[::-1]
    cosines = among(some[:2000], some, np.arange(len(some)), 101)[1][:, 1:]
    distance = np.sqrt(np.maximum(2 - 2 * cosines, 1e-6))
    distance = distance[distance[:, 0] > 1e-2]  # without copies of one photo
    dimension = np.median(-1 / np.log(distance[:, :-1] / distance[:, -1:]).mean(1))  # Levina & Bickel, 2004
    near = ", ".join(f"{np.median(cosines[:, n - 1]):.2f}" for n in (1, 10, 100))
    return (
        f"of {len(some):,}: cosine to neighbours 1, 10 and 100: {near}; local dimension {dimension:.0f}; "
        f"variance on 20 and 100 axes: {variance[:20].sum() / variance.sum():.0%}, "
        f"{variance[:100].sum() / variance.sum():.0%}"
    )


def seconds(work, queries):
    started = time.perf_counter()
    work(queries)
    return (time.perf_counter() - started) / len(queries)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["auto"], choices=["auto", "hnsw", "ivfpq"])
    parser.add_argument("--like", nargs="+", default=[], metavar="FILE")
    asked = parser.parse_args()
    for path in asked.like:
        print(f"{path}: {character(unit_rows(contents(path)[1]))}")
    if asked.like:
        return
    faiss.omp_set_num_threads(1)
    everything = made(asked.items + asked.queries, asked.dim)
    vectors, queries = everything[: asked.items], everything[asked.items :]
    print(f"{machine()}, faiss {faiss.__version__} on 1 thread; {asked.items:,} x {asked.dim}")
    print(f"made data, {character(vectors)}\n", flush=True)
    exact = among(queries, vectors, np.arange(asked.items), 10)[0]
    rows = []
    for kind in asked.kinds:
        before, started = resident(), time.perf_counter()
        with PeakMemory() as memory:
            index, chosen = build(vectors, kind)
        built, size = time.perf_counter() - started, resident() - before
        near = Nearest(np.arange(asked.items).astype(str), index, [], None, "", **chosen)
        found = near.search_many(queries, 10)[0]
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)])
        plain, quick = [], []
        for _ in range(asked.runs):
            plain.append(seconds(lambda q: among(q, vectors, np.arange(asked.items), 10), queries[:100]))
            quick.append(seconds(lambda q, near=near: near.search_many(q, 10), queries))
        floor, took = statistics.median(plain), statistics.median(quick)
        rows.append(
            {
                "kind": near.kind if kind != "auto" else f"auto: {near.kind}",
                "effort": near.effort,
                "recall@10": f"{recall:.4f}",
                "exact queries/s": f"{1 / floor:,.0f}",
                "queries/s": f"{1 / took:,.0f}",
                "times exact": f"{floor / took:.0f}",
                "build s": f"{built:.0f}",
                "index MB": f"{size:,.0f}",
                "peak MB": f"{memory.peak:,.0f}",
            }
        )
        print(rows[-1], flush=True)
        del index, near
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
