"""Recall@10 and queries a second of each kind of index against exact search, on one core, with made data.

python bench/nearest.py --items 1000000 --dim 50 --kinds hnsw ivfpq
python bench/nearest.py --items 200000 --dim 2048 --kinds hnsw
"""

import argparse
import os
import platform
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np

from vbpr.nearest import Nearest, among, build, unit_rows


def made(n, dim, seed=0, block=20_000):
    """Unit vectors of n items around 1,000 styles in a space of 20 tastes, as fitted or extracted vectors are."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((20, dim)).astype(np.float32) / np.sqrt(dim)
    styles = rng.standard_normal((1000, 20)).astype(np.float32)
    out = np.empty((n, dim), np.float32)
    for a in range(0, n, block):
        count = min(block, n - a)
        tastes = styles[rng.integers(1000, size=count)] + 0.5 * rng.standard_normal((count, 20), np.float32)
        out[a : a + count] = unit_rows(
            tastes @ basis + 0.2 / np.sqrt(dim) * rng.standard_normal((count, dim), np.float32)
        )
    return out


def rate(work, queries, runs):
    """Median queries a second."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work(queries)
        times.append(time.perf_counter() - started)
    return len(queries) / statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["hnsw", "ivfpq"], choices=["hnsw", "ivfpq"])
    asked = parser.parse_args()
    cores = os.cpu_count() or 1
    vectors = made(asked.items, asked.dim)
    # Queries are items that moved a little: near the catalogue, but none of it.
    rng = np.random.default_rng(1)
    picked = vectors[rng.integers(asked.items, size=asked.queries)]
    queries = unit_rows(picked + 0.1 / np.sqrt(asked.dim) * rng.standard_normal(picked.shape, np.float32))
    print(f"{platform.machine()}, faiss {faiss.__version__}, 1 of {cores} cores; {asked.items:,} x {asked.dim}")
    faiss.omp_set_num_threads(1)
    ids = np.arange(asked.items).astype(str)
    flat = Nearest(ids, build(vectors, "flat")[0], [], None, False, "")
    exact = among(queries, vectors, np.arange(asked.items), 10)[0]
    floor = rate(flat.search_many, queries, asked.runs)
    print("| kind | build s | effort | recall@10 | queries/s | times exact |\n|---|---|---|---|---|---|")
    print(f"| flat | 0 | - | 1.0000 | {floor:,.0f} | 1.0 |")
    del flat
    for kind in asked.kinds:
        faiss.omp_set_num_threads(cores)
        started = time.perf_counter()
        index, chosen = build(vectors, kind)
        seconds = time.perf_counter() - started
        faiss.omp_set_num_threads(1)
        near = Nearest(ids, index, [], None, False, "", **chosen)
        found = near.search_many(queries, 10)[0]
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)])
        got = rate(near.search_many, queries, asked.runs)
        print(f"| {kind} | {seconds:.0f} | {near.effort} | {recall:.4f} | {got:,.0f} | {got / floor:.1f} |", flush=True)


if __name__ == "__main__":
    main()
