"""The feature file: one row a catalogue item, written so that a kill loses at most the batch in flight.

    with FeatureStore.create("artifacts/inc.h5", source_ids, signatures, dim=2048, provenance=about) as store:
        store.write(rows, features)         # float16 rows, then their state: a row is done or it is not
    FeatureStore("artifacts/inc.h5").rows(item_ids)

One HDF5 file of contiguous, preallocated data sets (no chunks, no compression), so that a row's place in the file is
known before it is written and it is read at the speed of memory: features (N, D) float16, state (N,) uint8, reason
(N,) uint8, signature (N,) uint64, item_ids (N,), digest (ceil(N / 4096), 16) uint8. HDF5 itself writes only at
creation, under a temporary name; after that rows go in with pwrite, and their state follows once they are on the disk.
A block of 4,096 rows gets its digest when its last row is done or failed: `verify` finds any bit changed since.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ...base.arrays import Array, Strings, places, update_with_ids
from ...base.errors import VbprError
from ...base.hdf5 import open_h5, read_strings
from .blocks import block_digest, complete, map_blocks, span_of
from .layout import DIGEST, DONE, FAILED, LAYOUT, PENDING, maker, mend, read_provenance, shapes_of
from .rows import Rows

if TYPE_CHECKING:
    from .writer import Writer

RENAMES = 100  # of a file while it is being opened


class FeatureStore:
    """A feature file, open for reading; `create` opens it for writing, as a `Writer`.

    Attributes:
        path: where it lies.
        item_ids: (N,) strings, the catalogue's order.
        dim: D, numbers a row.
        features: (N, D) float16, read as they are asked for: see `Rows`.
        state: (N,) uint8: pending, done or failed. reason: (N,) uint8, of a failed row the position of its reason in
            `provenance["reasons"]`. signature: (N,) uint64, of the image that the row was made from.
        provenance: what made it (backbone, weights, preprocessing, versions, data), as written at creation.
        offsets: where each data set begins in the file, in bytes; size: the bytes that all of them need.
    """

    def __init__(self, path: Path | str) -> None:
        """Open for reading.

        Raises:
            VbprError: no such file, not a feature file, or one whose data sets are not as this module writes them.
        """
        self.path = Path(path)
        for _ in range(RENAMES):  # a run that adds images renames a new file into place: ids and rows must be of one
            before = self._place()
            try:
                self._open()
                if self._place() == before:
                    return
            except VbprError:
                if self._place() == before:
                    raise
        raise VbprError(f"{self.path} is being replaced all the time; wait for what does it")

    def _place(self) -> tuple[int, int] | None:
        """Which file lies at `path`; None where there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _open(self) -> None:
        with open_h5(self.path, "features") as handle:
            self.item_ids: Strings = read_strings(handle, "item_ids")
            self.provenance = read_provenance(handle, self.path)
            n, matrix = len(self.item_ids), handle.get("features")
            self.dim = int(matrix.shape[-1]) if isinstance(matrix, h5py.Dataset) and matrix.shape else 0
            shapes = shapes_of(n, self.dim)
            self.offsets, self.size = {}, 0
            for name, dtype in LAYOUT.items():
                data = handle.get(name)
                # The size on the disk is looked at before anything is allocated: a shape can be forged.
                if (
                    not isinstance(data, h5py.Dataset)
                    or data.dtype != np.dtype(dtype)
                    or data.shape != shapes[name]
                    or data.id.get_offset() is None
                    or data.id.get_offset() + data.nbytes > self.path.stat().st_size
                    or 0 in data.shape
                ):
                    raise VbprError(
                        f"{self.path} is damaged: its data set {name} is not as vbpr writes it; delete the "
                        "file and run vbpr extract again"
                    )
                self.offsets[name] = data.id.get_offset()
                self.size = max(self.size, self.offsets[name] + data.nbytes)
        self.features = Rows(self.path, self.offsets["features"], shapes["features"])
        self.state, self.reason = self._read("state"), self._read("reason")
        self.signature, self.digests = self._read("signature"), self._read("digest")
        if self.state.max() > FAILED or (self.reason[self.state == FAILED] >= len(self.provenance["reasons"])).any():
            raise VbprError(f"{self.path} is damaged: a row's state is unknown; delete it and run vbpr extract again")

    def _read(self, name: str) -> Array:
        """A small data set, as it is in the file now."""
        out = np.empty(shapes_of(len(self.item_ids), self.dim)[name], LAYOUT[name])
        self.features.fill(out, self.offsets[name])
        return out

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        return f"FeatureStore({self.path}, {len(self):,} x {self.dim}, {int((self.state == DONE).sum()):,} done)"

    @classmethod
    def create(
        cls,
        path: Path | str,
        item_ids: Strings,
        signatures: Array,
        dim: int,
        provenance: Mapping[str, Any],
        verify: bool = False,
    ) -> contextlib.AbstractContextManager["Writer"]:
        """Open for writing: see `writer.create`."""
        from .writer import create

        return create(path, item_ids, signatures, dim, provenance, verify)

    @property
    def pending(self) -> Array:
        """Positions of the rows still to be written."""
        return np.flatnonzero(self.state == PENDING)

    @property
    def done(self) -> Array:
        """Positions of the rows that hold features."""
        return np.flatnonzero(self.state == DONE)

    def failures(self) -> list[tuple[str, str]]:
        """(item id, reason) of each image that could not be used."""
        reasons = self.provenance["reasons"]
        return [(str(self.item_ids[i]), reasons[self.reason[i]]) for i in np.flatnonzero(self.state == FAILED)]

    def finished(self) -> "FeatureStore":
        """Itself, if no row is pending.

        Raises:
            VbprError: the extraction was not finished.
        """
        if len(self.pending):
            raise VbprError(
                f"{self.path} lacks {len(self.pending):,} of {len(self):,} items (first: "
                f"{self.item_ids[self.pending[0]]}); run {maker(self.provenance)} again to resume"
            )
        return self

    def find(self, item_ids: Strings) -> Array:
        """(n,) int64: the row of each item, -1 where the file has none (no image, or one that failed)."""
        at = places(self.item_ids, item_ids)
        return np.where(self.state[at] == DONE, at, -1)

    def rows(self, item_ids: Strings) -> Array:
        """(n, D) float16 features of these items, by id.

        Raises:
            VbprError: an item has no features; the message names it.
        """
        at = self.find(np.asarray(item_ids, np.str_))
        if (at < 0).any():
            missing = np.asarray(item_ids)[at < 0]
            raise VbprError(
                f"{self.path} lacks {len(missing):,} of {len(item_ids):,} items (first: {missing[0]}); "
                f"run {maker(self.provenance)} again to add them"
            )
        return self.features[at]

    def remembered(self, item_ids: Strings, signatures: Array) -> Array:
        """These signatures, but of images with nothing to look at now (0) those that they had when their features were
        made: an image that is away for a while does not take its features with it."""
        away = np.flatnonzero(signatures == 0)
        at = self.find(item_ids[away])
        signatures = signatures.copy()
        signatures[away[at >= 0]] = self.signature[at[at >= 0]]
        return signatures

    def holds(self, item_ids: Strings, signatures: Array) -> bool:
        """Whether this file is of exactly these images."""
        return np.array_equal(self.item_ids, item_ids) and np.array_equal(self.signature, signatures)

    def digest(self) -> str:
        """A digest of the catalogue, the provenance and every row: what a training is tied to. All cores read.

        Raises:
            VbprError: rows have changed since they were written.
        """
        sealed = set(self._sealed())

        def look(block: int) -> tuple[bool, bytes]:
            rows = self._rows(block)
            content = hashlib.blake2b(rows.data, digest_size=DIGEST)
            return block in sealed and self._changed(block, rows), content.digest()

        blocks = map_blocks(look, range(len(complete(self.state))))
        self.check([self._span(k) for k, (changed, _) in enumerate(blocks) if changed])
        total = hashlib.blake2b(json.dumps(self.provenance, sort_keys=True).encode(), digest_size=16)
        update_with_ids(total, self.item_ids)
        total.update(self.state.data)
        for _, content in blocks:
            total.update(content)
        return total.hexdigest()

    def verify(self, blocks: Array | None = None) -> list[tuple[int, int]]:
        """Compare every block (or these) that has a digest with it; (first row, last row + 1) of each that changed."""
        sealed = self._sealed() if blocks is None else np.intersect1d(self._sealed(), blocks).astype(int).tolist()
        changed = map_blocks(lambda block: self._changed(block, self._rows(block)), sealed)
        return [self._span(block) for block, bad in zip(sealed, changed, strict=True) if bad]

    def check(self, damaged: list[tuple[int, int]]) -> None:
        """
        Raises:
            VbprError: there are any such blocks; the message names the items of the first.
        """
        if damaged:
            first, last = self.item_ids[damaged[0][0]], self.item_ids[damaged[0][1] - 1]
            raise VbprError(
                f"{self.path} has changed since it was written, in {len(damaged):,} of its blocks (first: items "
                f"{first} to {last}); {mend(self.provenance, self.path)}"
            )

    def sealed_rows(self) -> int:
        """How many rows lie in finished blocks that `verify` can check."""
        finished = complete(self.state)
        return sum(b - a for a, b in (self._span(k) for k in self._sealed() if finished[k]))

    def _span(self, block: int) -> tuple[int, int]:
        """First row of a block, and the one after its last."""
        return span_of(block, len(self))

    def _sealed(self) -> list[int]:
        """Blocks that have a digest: those without a pending row, and for an instant one whose rows become pending."""
        return np.flatnonzero(self.digests.any(1)).tolist()

    def _rows(self, block: int) -> Array:
        """The features of a block."""
        return self.features[slice(*self._span(block))]

    def _digest_of(self, block: int, rows: Array) -> bytes:
        """The digest of a block with these features."""
        at = slice(*self._span(block))
        return block_digest(self.item_ids[at], self.state[at], self.reason[at], self.signature[at], rows)

    def _changed(self, block: int, rows: Array) -> bool:
        """Whether a block that has a digest holds anything else than when that was written."""
        if self._digest_of(block, rows) == self.digests[block].tobytes():
            return False
        a, b = self._span(block)
        if self.state[a:b].all():
            return True
        now = np.empty(DIGEST, np.uint8)  # a run beside this reader may be taking it away
        self.features.fill(now, self.offsets["digest"] + DIGEST * block)
        return bool(now.any())


def stores_of(features: Path | str | FeatureStore | Iterable[Path | str | FeatureStore]) -> list[FeatureStore]:
    """A feature file or several, or stores that are open already, as stores.

    Raises:
        VbprError: one that cannot be opened, or is there twice.
    """
    files = [features] if isinstance(features, Path | str | FeatureStore) else features
    stores = [file if isinstance(file, FeatureStore) else FeatureStore(file) for file in files]
    for n, store in enumerate(stores):
        if store.path.resolve() in [other.path.resolve() for other in stores[:n]]:
            raise VbprError(f"--features {store.path} is given twice; leave one out")
    return stores


__all__ = ["FeatureStore", "stores_of"]
