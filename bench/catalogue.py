"""A made shop of any size as a data set and a feature file: planted tastes, popularity as in shops, no images.

made = make_catalogue(Path("artifacts/scale"), users=300_000, items=1_000_000, pairs=5_000_000, dim=512)

An item's weight is (100 + its place)^-.9: of a million items the first hundredth has two fifths of the purchases, and a
fifth is never bought. Each purchase is the one of eight such draws that suits the user's taste best, in looks, which
features show with noise, and in what no picture shows; users have five purchases, and as many more as a lognormal
has it.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vbpr.stores.features.writer import create

LOOKS, HIDDEN, CHOICES, NOISE = 24, 12, 8, 1.5
ROWS = 8192  # items or users at a time
PROVENANCE = {
    "backbone": "planted",
    "weights": "planted",
    "preprocessing": "none",
    "fingerprint": "planted",
    "reasons": ["other"],
}


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Where a made catalogue lies: the folder of its interactions, and its feature file."""

    data: Path
    features: Path


def make_catalogue(folder: Path, users: int, items: int, pairs: int, dim: int, seed: int = 0) -> Catalogue:
    """Make it, unless it is there already. About `pairs` purchases; (items, dim) float16 features."""
    made = Catalogue(folder / "data", folder / "features.h5")
    shape = {"users": users, "items": items, "pairs": pairs, "dim": dim, "seed": seed}
    stamp = folder / "made.json"
    if stamp.exists() and json.loads(stamp.read_text()) == shape:
        return made
    made.data.mkdir(parents=True, exist_ok=True)
    made.features.unlink(missing_ok=True)
    rng = np.random.default_rng(seed)
    traits = rng.standard_normal((items, LOOKS + HIDDEN), np.float32)
    write_features(made, traits[:, :LOOKS], dim, rng)
    write_interactions(made, traits, users, pairs, rng)
    stamp.write_text(json.dumps(shape))
    return made


def names(letter: str, count: int) -> np.ndarray:
    """Ids in their order."""
    return np.char.add(letter, np.char.zfill(np.arange(count).astype("U9"), 9))


def write_features(made: Catalogue, looks: np.ndarray, dim: int, rng: np.random.Generator) -> None:
    """Planted looks in `dim` columns, with noise."""
    basis = rng.standard_normal((LOOKS, dim), np.float32)
    ids = names("i", len(looks))
    about = PROVENANCE | {"data": str(made.data.resolve())}
    with create(made.features, ids, np.ones(len(ids), np.uint64), dim, about) as writer:
        for a in range(0, len(looks), ROWS):
            block = looks[a : a + ROWS] @ basis
            block += NOISE * rng.standard_normal(block.shape, np.float32)
            writer.write(np.arange(a, a + len(block)), block.astype(np.float16))


def write_interactions(made: Catalogue, traits: np.ndarray, users: int, pairs: int, rng: np.random.Generator) -> None:
    """Purchases as the module's docstring has them, a pair once."""
    weight = (100.0 + np.arange(len(traits))) ** -0.9
    cumulative = np.cumsum(rng.permutation(weight / weight.sum()))
    more = rng.lognormal(0, 0.8, users)
    counts = 5 + (more * max(0.0, pairs / users - 5) / more.mean()).round().astype(np.int64)
    taste = rng.standard_normal((users, LOOKS + HIDDEN), np.float32)
    keys = []
    for a in range(0, users, ROWS):
        who = np.repeat(np.arange(a, min(users, a + ROWS)), counts[a : a + ROWS])
        drawn = np.minimum(len(traits) - 1, np.searchsorted(cumulative, rng.random((CHOICES, len(who)))))
        suits = np.stack([np.einsum("nk,nk->n", traits[items], taste[who]) for items in drawn])
        chosen = np.take_along_axis(drawn, suits.argmax(0)[None], 0)[0]
        keys.append(np.unique(who * len(traits) + chosen))
    key = np.concatenate(keys)
    table = {
        "user_id": pa.array(names("u", users)[key // len(traits)]),
        "item_id": pa.array(names("i", len(traits))[key % len(traits)]),
    }
    pq.write_table(pa.table(table), made.data / "interactions.parquet")


__all__ = ["Catalogue", "make_catalogue", "names"]
