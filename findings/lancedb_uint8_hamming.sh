#!/bin/sh
# LanceDB searches a column of uint8 vectors by Hamming distance of their bits, unasked.
#
# Guess:   the default metric is L2 (as documented) whatever the number type of the vector column.
# Truth:   for fixed-size lists of uint8 the default is the number of differing bits: 127 and 128 are 8 bits apart, 0
#          and 128 one. A float query is cast to uint8. Only naming the metric helps: "l2" is then refused.
# Matters: 8-bit quantised image features and pixel embeddings are uint8. The neighbours are near to random, the search
#          succeeds, `_distance` holds small whole numbers.
# Remedy:  always name distance_type(); keep quantised features as float16 or float32 there.
# Source:  https://docs.lancedb.com/search/vector-search (l2 is called the default, hamming is for binary vectors)
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check lancedb==0.40.0 pyarrow==26.0.1 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "lancedb pyarrow numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import lancedb
import numpy as np
import pyarrow as pa

rng = np.random.default_rng(0)
centres = rng.normal(size=(50, 32))
floats = centres[np.arange(2000) % 50] + 0.5 * rng.normal(size=(2000, 32))
codes = np.clip(np.round(128 + 30 * floats), 0, 255).astype(np.uint8)  # 8-bit features, fifty kinds of item
table = lancedb.connect("db").create_table("items", pa.table({
    "id": pa.array(np.arange(2000)),
    "vector": pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), 32),
}))
print(table.schema.field("vector").type)


def share(found, wanted):
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, wanted)]))


by_l2, by_bits, found = [], [], []
for query in codes[:100]:
    by_l2.append(np.argsort(((codes.astype(int) - query) ** 2).sum(1), kind="stable")[:10])
    bits = np.unpackbits(codes ^ query, axis=1).sum(1)
    answer = table.search(query).limit(10).to_arrow()
    found.append(answer["id"].to_numpy())
    by_bits.append(np.array_equal(np.sort(bits)[:10], answer["_distance"].to_numpy()))
print("neighbours of item 0:", found[0], "distances:", answer["_distance"].to_pylist()[:5], "...")
print(f"of the true ten by L2: {share(found, by_l2):.2f}; distances are counts of differing bits: {np.mean(by_bits):.0%}")
still(np.mean(by_bits) == 1, "the distances are Hamming distances of the bits")
still(share(found, by_l2) < 0.6, "most of the neighbours by L2 are missed")
refusal = "accepted"
try:
    table.search(codes[0]).distance_type("l2").limit(10).to_arrow()
except (ValueError, RuntimeError) as error:
    refusal = str(error).splitlines()[0][:100]
print("distance_type('l2'):", refusal)
still("l2" in refusal.lower() and refusal != "accepted", "L2, when named, is refused")
PYTHON
