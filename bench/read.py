"""Seconds and peak memory of reading interactions, beside what Arrow takes to read the same three columns.

python bench/read.py --make transactions.csv --rows 32000000
python bench/read.py transactions.csv
python bench/read.py transactions.csv --against ../before/pipeline

The made file has the shape of H&M's transactions: a day, a customer of 64 hexadecimal digits, an article of ten digits,
a price and a channel, in the order of the days. `--against` is another build's `pipeline` folder; builds take turns,
each run in a process of its own. `.parquet` is made as well, by the ending of the name.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

COLUMNS = ("t_dat", "customer_id", "article_id", "price", "sales_channel_id")
DAYS, ARTICLES, BLOCK = 734, 104_500, 500_000

# What one run does: how long the call takes, how much memory the process needed for it, and what was read.
RUN = """
import json, resource, sys, time
path, how = sys.argv[1:]
if how == "arrow":
    import pyarrow, pyarrow.csv, pyarrow.parquet
    names = ["customer_id", "article_id", "t_dat"]
    pyarrow.set_cpu_count(1)
    def read():
        if path.endswith(".parquet"):
            return pyarrow.parquet.read_table(path, columns=names, use_threads=False)
        kinds = dict.fromkeys(names, pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))
        options = pyarrow.csv.ConvertOptions(include_columns=names, column_types=kinds)
        return pyarrow.csv.read_csv(path, pyarrow.csv.ReadOptions(use_threads=False), convert_options=options)
else:
    from vbpr import Interactions
    def read():
        return Interactions.read(path)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, cpu, wall = peak(), time.process_time(), time.perf_counter()
table = read()
told = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "mb": peak(), "own": peak() - before}
if how != "arrow":
    import hashlib
    digest = hashlib.blake2b(digest_size=8)
    for column in (table.users, table.items, table.times):
        digest.update(column.tobytes())
    told |= {"digest": digest.hexdigest(), "pairs": len(table)}
print(json.dumps(told))
"""


def made_block(rng: np.random.Generator, users: np.ndarray, items: np.ndarray, days: np.ndarray) -> list[np.ndarray]:
    """The fields of some rows, each as (n, width) bytes."""
    n = len(days)
    dates = (np.datetime64("2018-09-20") + days).astype("S10").view(np.uint8).reshape(n, 10)
    prices = np.char.ljust(np.round(rng.random(n) / 10 + 0.01, 16).astype("S20"), 20, b"1").view(np.uint8)
    who = users[(rng.beta(1, 2.5, n) * len(users)).astype(int)]
    what = items[(rng.beta(1, 4, n) * len(items)).astype(int)]
    return [dates, who, what, prices.reshape(n, 20), rng.integers(49, 51, (n, 1)).astype(np.uint8)]


def make(path: Path, rows: int) -> None:
    """Write a file of so many transactions."""
    rng, hexadecimal = np.random.default_rng(0), np.frombuffer(b"0123456789abcdef", np.uint8)
    drawn = np.frombuffer(rng.bytes(max(rows // 23, 10) * 32), np.uint8).reshape(-1, 32)
    users = np.stack([hexadecimal[drawn >> 4], hexadecimal[drawn & 15]], 2).reshape(-1, 64)
    names = [f"0{number}" for number in rng.choice(899_999_999, ARTICLES, replace=False) + 100_000_000]
    items = np.array(names, "S10").view(np.uint8).reshape(-1, 10)
    writer, schema = None, pa.schema([(name, pa.string()) for name in COLUMNS])
    with path.open("wb") as handle:
        if path.suffix == ".parquet":
            writer = pyarrow.parquet.ParquetWriter(handle, schema)
        else:
            handle.write(",".join(COLUMNS).encode() + b"\n")
        for start in range(0, rows, BLOCK):
            at = np.arange(start, min(start + BLOCK, rows))
            fields = made_block(rng, users, items, at * DAYS // rows)
            if writer is not None:
                columns = [np.ascontiguousarray(field).view(f"S{field.shape[1]}")[:, 0] for field in fields]
                writer.write_table(pa.table([pa.array(column).cast(pa.string()) for column in columns], schema=schema))
                continue
            signs = [np.full((len(at), 1), ord(sign), np.uint8) for sign in ",,,,\n"]
            handle.write(np.hstack([part for pair in zip(fields, signs, strict=True) for part in pair]).tobytes())
        if writer is not None:
            writer.close()


def measured(path: Path, how: str, pipeline: Path) -> dict[str, float]:
    """One run in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(pipeline), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, str(path), how]
    told = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--make", type=Path)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.make:
        make(args.make, args.rows)
        print(f"{args.make}: {args.rows:,} rows, {args.make.stat().st_size / 1e9:.2f} GB")
    if not args.path:
        return
    here = Path(__file__).resolve().parent.parent / "pipeline"
    builds = {"this build": ("vbpr", here)} | ({"the other build": ("vbpr", args.against)} if args.against else {})
    builds["Arrow, three columns"] = ("arrow", here)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in builds}
    for _ in range(args.repeats):
        for name, (how, pipeline) in builds.items():
            runs[name].append(measured(args.path, how, pipeline))
    digests = {run["digest"] for of in runs.values() for run in of if "digest" in run}
    assert len(digests) == 1, "the builds read different interactions"
    pairs = runs["this build"][0]["pairs"]
    print(f"{args.path.stat().st_size / 1e9:.2f} GB, {pairs:,.0f} pairs; medians of {args.repeats}\n")
    print("| | processor s | wall s | peak MB | MB above start | times Arrow's |\n|---|---|---|---|---|---|")
    medians = {
        n: {k: statistics.median(r[k] for r in of) for k in ("cpu", "wall", "mb", "own")} for n, of in runs.items()
    }
    floor = medians["Arrow, three columns"]["cpu"]
    for name, row in medians.items():
        shown = (
            f"{row['cpu']:.2f} | {row['wall']:.2f} | {row['mb']:,.0f} | {row['own']:,.0f} | {row['cpu'] / floor:.1f}"
        )
        print(f"| {name} | {shown} |")


if __name__ == "__main__":
    main()
