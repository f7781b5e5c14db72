"""Items of several pictures: each picture has a row in a feature file of its own, beside the items', whose rows are

    f_i = mean of f_p over the pictures p of item i that could be used

so that a further picture of an item costs one encoding, and another way to combine them none.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.progress import Progress
from ..base.stopping import Stopped, stop_signals
from ..data.images.source import ImageSource, Pictures
from ..stores.features.layout import DONE, FAILED
from ..stores.features.store import FeatureStore
from ..stores.features.writer import Writer, create

STEP = 4096  # pictures in memory at a time


def views_file(path: Path) -> Path:
    """Where the features of pictures lie: artifacts/inc.h5 -> artifacts/inc.views.h5."""
    return path.with_name(f"{path.name.removesuffix('.h5')}.views.h5")


def combined(path: Path, views: FeatureStore, source: ImageSource, verify: bool) -> tuple[FeatureStore, int]:
    """The feature file of items, made of that of their pictures; rows whose pictures are as they were stay.
    And how many finished rows went with their items.

    Raises:
        VbprError: see `create`.
        Stopped: Ctrl-C or SIGTERM; the same command goes on.
    """
    pictures = source.pictures
    assert pictures is not None
    provenance = {key: value for key, value in views.provenance.items() if key != "pictures"} | {"views": "mean"}
    usable = np.add.reduceat(views.state[pictures.places] == DONE, pictures.starts[:-1], dtype=np.int64)
    with create(path, source.item_ids, signatures_of(views, pictures), views.dim, provenance, verify) as store:
        mended = (store.state == FAILED) & (usable > 0)  # a picture that could not be read is there now
        todo = np.union1d(store.pending, np.flatnonzero(mended))
        bad = todo[usable[todo] == 0]
        reasons = views.provenance["reasons"]
        store.fail(bad, [reasons[views.reason[pictures.places[pictures.starts[item]]]] for item in bad])
        combine(store, views, pictures, todo[usable[todo] > 0])
    return FeatureStore(path), store.dropped


def combine(store: Writer, views: FeatureStore, pictures: Pictures, todo: Array) -> None:
    """Write the means of these items."""
    if not len(todo):
        return
    with Progress("combine pictures", len(todo), "items") as bar, stop_signals() as stopping:
        for items in in_steps(todo, np.diff(pictures.starts)):
            places = [pictures.places[pictures.starts[i] : pictures.starts[i + 1]] for i in items]
            good = [rows[views.state[rows] == DONE] for rows in places]
            distinct, at = np.unique(np.concatenate(good), return_inverse=True)
            rows = views.features[distinct].astype(np.float64)[at]
            counts = np.array([len(part) for part in good])
            store.write(items, np.add.reduceat(rows, np.append(0, np.cumsum(counts)[:-1]), axis=0) / counts[:, None])
            bar.advance(len(items))
            if stopping() and len(store.pending):
                raise Stopped(
                    f"stopped with {len(store.done):,} of {len(store):,} items in {store.path}; run the same command "
                    "again to resume"
                )


def in_steps(items: Array, counts: Array) -> Iterator[Array]:
    """Items in steps of at most `STEP` pictures; one with more is a step of its own."""
    total = np.cumsum(counts[items])
    first = 0
    while first < len(items):
        before = total[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(total, before + STEP, side="right")))
        yield items[first:last]
        first = last


def signatures_of(views: FeatureStore, pictures: Pictures) -> Array:
    """(I,) uint64: changes when a picture of the item does, comes, goes or could not be used; of an item with one
    picture it is that picture's."""
    signatures = views.signature[pictures.places[pictures.starts[:-1]]].copy()
    for item in np.flatnonzero(np.diff(pictures.starts) > 1).tolist():
        rows = pictures.places[pictures.starts[item] : pictures.starts[item + 1]]
        content = views.signature[rows].tobytes() + views.state[rows].tobytes()
        signatures[item] = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") | 1
    return signatures


def take_over(store: Writer, path: Path, source: ImageSource) -> None:
    """Give pictures the features that the items' file at `path` has of them, from when an item had one picture."""
    pictures = source.pictures
    if pictures is None or not path.is_file():
        return
    old = FeatureStore(path)
    if (old.provenance["fingerprint"], old.dim) != (store.provenance["fingerprint"], store.dim):
        raise VbprError(f"{path} was made by another network than this run's; delete it or choose another with --out")
    rotten = np.zeros(len(old), bool)
    for a, b in old.verify():
        rotten[a:b] = True
    at = old.find(source.item_ids)
    item = np.repeat(np.arange(len(source)), np.diff(pictures.starts))
    rows, places = at[item], pictures.places
    same = (
        (rows >= 0) & ~rotten[rows] & (old.signature[rows] == store.signature[places]) & (store.signature[places] > 0)
    )
    same &= np.isin(places, store.pending)
    places, first = np.unique(places[same], return_index=True)
    rows = rows[same][first]
    for a in range(0, len(places), STEP):
        store.write(places[a : a + STEP], old.features[rows[a : a + STEP]])


__all__ = ["combined", "take_over", "views_file"]
