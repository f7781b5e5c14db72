"""The feature file: one row a catalogue item, written so that a kill loses at most the batch in flight.

    with FeatureStore.create("artifacts/inc.h5", source_ids, signatures, dim=2048, provenance=told) as store:
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
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from ...base.arrays import Array, Strings, places
from ...base.errors import VbprError
from ...base.files import replacing, reserve
from ...base.hdf5 import encoded, open_h5, read_strings, write_text
from ...base.locks import joined, locked
from ...base.progress import Progress
from .layout import BLOCK, DIGEST, DONE, FAILED, LAYOUT, PENDING, PROVENANCE, describe, read_provenance, shapes_of
from .rows import Rows, pwrite, runs

T = TypeVar("T")
RENAMES = 100  # of a file while it is being opened


class FeatureStore:
    """A feature file, open for reading or (from `create`) for writing.

    Attributes:
        path: where it lies.
        item_ids: (N,) strings, the catalogue's order.
        dim: D, numbers a row.
        features: (N, D) float16, read as they are asked for: see `Rows`.
        provenance: what made it (backbone, weights, preprocessing, versions, data), as written at creation.
        dropped: after `create`, how many finished rows went because their items are no longer in the catalogue.
        admit: after `create`, to be called for other processes to `join`.
    """

    admit: Callable[[], None]

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
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

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
        self.state = self._read("state", shapes)
        self.reason = self._read("reason", shapes)
        self.signature = self._read("signature", shapes)
        self.digests = self._read("digest", shapes)
        if self.state.max() > FAILED or (self.reason[self.state == FAILED] >= len(self.provenance["reasons"])).any():
            raise VbprError(f"{self.path} is damaged: a row's state is unknown; delete it and run vbpr extract again")
        self._descriptor = -1
        self.dropped = 0

    def _read(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Array:
        out = np.empty(shapes[name], LAYOUT[name])
        self.features.fill(out, self.offsets[name])
        return out

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        return f"FeatureStore({self.path}, {len(self):,} x {self.dim}, {int((self.state == DONE).sum()):,} done)"

    # ------------------------------------------------------------------------------------------ reading

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
                f"{self.item_ids[self.pending[0]]}); run vbpr extract again to resume"
            )
        return self

    def find(self, item_ids: Strings) -> Array:
        """(n,) int64: the row of each item, -1 where the file has none (no image, or one that failed)."""
        found = places(self.item_ids, item_ids)
        return np.where(self.state[found] == DONE, found, -1)

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
                "run vbpr extract again to add them"
            )
        return self.features[at]

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

        looked = self._each(look, range(len(self._whole())))
        self.check([self._span(k) for k, (changed, _) in enumerate(looked) if changed])
        total = hashlib.blake2b(json.dumps(self.provenance, sort_keys=True).encode(), digest_size=16)
        total.update("\0".join(self.item_ids).encode())
        total.update(self.state.data)
        for _, found in looked:
            total.update(found)
        return total.hexdigest()

    def verify(self, blocks: Array | None = None) -> list[tuple[int, int]]:
        """Compare every block (or these) that has a digest with it; (first row, last row + 1) of each that changed."""
        sealed = self._sealed() if blocks is None else np.intersect1d(self._sealed(), blocks).astype(int).tolist()
        changed = self._each(lambda block: self._changed(block, self._rows(block)), sealed)
        return [self._span(k) for k, found in zip(sealed, changed, strict=True) if found]

    def check(self, damaged: list[tuple[int, int]]) -> None:
        """
        Raises:
            VbprError: there are any such blocks; the message names the items of the first.
        """
        if damaged:
            first, last = self.item_ids[damaged[0][0]], self.item_ids[damaged[0][1] - 1]
            raise VbprError(
                f"{self.path} has changed since it was written, in {len(damaged):,} of its blocks (first: items "
                f"{first} to {last}); {self._command()} --verify encodes these anew"
            )

    def _command(self) -> str:
        """The command that made this file, as far as it is on record."""
        told = self.provenance
        weights = f" --weights {shlex.quote(told['weights_file'])}" if told.get("weights_file") else ""
        weights = " --random-weights" if told["weights"] == "random" else weights
        fast = f" --precision fast --engine {told['engine'].split()[0]}" if told.get("precision") == "fast" else ""
        data, out = (shlex.quote(str(path)) for path in (told["data"], self.path))
        return f"vbpr extract --backbone {told['backbone']}{weights}{fast} --data {data} --out {out}"

    def sealed_rows(self) -> int:
        """How many rows lie in finished blocks that `verify` can check."""
        whole = self._whole()
        return sum(b - a for a, b in (self._span(k) for k in self._sealed() if whole[k]))

    @staticmethod
    def _each(look: Callable[[int], T], blocks: Sequence[int]) -> list[T]:
        """What `look` finds in each block, several at a time: reading and hashing hold no lock of Python's."""
        found: list[T] = []
        with (
            ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0))), "digest") as pool,
            Progress("compare with digests", len(blocks), "blocks") as bar,
        ):
            for one in pool.map(look, blocks):
                found.append(one)
                bar.advance(1)
        return found

    def _span(self, block: int) -> tuple[int, int]:
        """First row of a block, and the one after its last."""
        return BLOCK * block, min(len(self), BLOCK * (block + 1))

    def _sealed(self) -> list[int]:
        """Blocks that have a digest: those without a pending row, and for an instant one whose rows become pending."""
        return np.flatnonzero(self.digests.any(1)).tolist()

    def _whole(self) -> Array:
        """(blocks,) bool: which blocks have no pending row."""
        return np.logical_and.reduceat(self.state != PENDING, np.arange(0, len(self), BLOCK))

    def _rows(self, block: int) -> Array:
        """Its features."""
        return self.features[slice(*self._span(block))]

    def _changed(self, block: int, rows: Array) -> bool:
        if self._digest_of(block, rows) == self.digests[block].tobytes():
            return False
        a, b = self._span(block)
        if self.state[a:b].all():
            return True
        now = np.empty(DIGEST, np.uint8)  # a run beside this reader may be taking it away
        self.features.fill(now, self.offsets["digest"] + DIGEST * block)
        return bool(now.any())

    def _digest_of(self, block: int, rows: Array) -> bytes:
        a, b = self._span(block)
        state = self.state[a:b].copy()
        again = np.flatnonzero(state == PENDING)  # since the digest was written: what they were, their features tell
        state[again] = np.where(rows[again].any(1), DONE, FAILED)
        total = hashlib.blake2b(state.tobytes(), digest_size=DIGEST)
        total.update(self.reason[a:b].tobytes())
        total.update(self.signature[a:b].tobytes())
        total.update("\0".join(self.item_ids[a:b]).encode())
        total.update(rows.data)
        return total.digest()

    # ------------------------------------------------------------------------------------------ writing

    @classmethod
    @contextlib.contextmanager
    def create(
        cls,
        path: Path | str,
        item_ids: Strings,
        signatures: Array,
        dim: int,
        provenance: Mapping[str, Any],
        verify: bool = False,
    ) -> Iterator["FeatureStore"]:
        """Open for writing: resume the file if it is of this catalogue and provenance, carry over the rows of
        unchanged images if the catalogue has changed, else make a new one with every row pending.

        Args:
            item_ids: (N,) distinct strings.
            signatures: (N,) uint64; a row whose image's signature has changed is pending again, but for 0: see
                `remembered`.
            provenance: JSON values; what `PROVENANCE` lists, and anything else. `fingerprint` in it must be the same
                for a file to be resumed; `reasons` are those that `fail` gives, the last one standing for any other.
            verify: check the digests of a file that is resumed; rows of a block that has changed are pending again.

        Raises:
            VbprError: in use by another process, made by another model, damaged, no space, or fewer than half of a
                finished catalogue are left; ids that are not distinct, or a provenance that lacks something.
        """
        path, item_ids, signatures = Path(path).resolve(), np.asarray(item_ids, np.str_), np.asarray(signatures)
        ordered = np.sort(item_ids, kind="stable")  # one pass where they are in order, as a source gives them
        distinct = len(ordered) and not (ordered[1:] == ordered[:-1]).any()
        if not distinct or signatures.shape != item_ids.shape or dim < 1:
            raise VbprError(f"{path}: a feature file is of distinct items, with a signature each, and rows of numbers")
        lacking = [name for name, kind in PROVENANCE.items() if not isinstance(provenance.get(name), kind)]
        if lacking or not provenance["reasons"]:
            raise VbprError(f"{path}: its provenance must tell {', '.join(lacking) or 'reasons'}")
        with locked(path) as admit:
            old = cls(path) if path.exists() else None
            gone = np.zeros(0, bool)
            if old is not None:
                signatures = old.remembered(item_ids, signatures)
                if (old.provenance["fingerprint"], old.dim) != (provenance["fingerprint"], dim):
                    raise VbprError(
                        f"{path} was made by {describe(old.provenance)}; this run would be "
                        f"{describe(provenance)}; delete the file or choose another with --out"
                    )
                gone = ~np.isin(old.item_ids, item_ids)
                if 2 * gone.sum() > len(old):
                    raise VbprError(
                        f"{path} holds the features of another catalogue: {gone.sum():,} of its {len(old):,} items "
                        f"(first: {old.item_ids[gone][0]}) are not in this one. Is a folder or a shard missing? If "
                        "not, delete the file or choose another with --out"
                    )
            if old is not None and old.holds(item_ids, signatures) and old.provenance["data"] == provenance["data"]:
                store = old
            else:
                cls._allocate(path, item_ids, signatures, dim, provenance, old)
                store = cls(path)
                store.dropped = 0 if old is None else int((old.state[gone] == DONE).sum())
            with store._opened():
                # A block with a pending row and a digest was stopped in the instant between the two, or has changed.
                for a, b in store.verify(None if verify else np.flatnonzero(~store._whole())):
                    store._make_pending(np.arange(a, b))
                with store._writing():  # a kill can come between the last row of a block and its digest
                    store._unseal(np.flatnonzero(~store._whole()))
                    store._seal(np.flatnonzero(store._whole()))
                store.admit = admit
                yield store

    @classmethod
    @contextlib.contextmanager
    def join(cls, path: Path | str) -> Iterator["FeatureStore"]:
        """Open for writing beside the process that did so by `create` and then called `admit`; no row may be written
        by two of them, and `gather` must follow.

        Raises:
            VbprError: there is no such process.
        """
        path = Path(path).resolve()
        with joined(path):
            store = cls(path)
            with store._opened():
                yield store

    def gather(self) -> None:
        """Take in what others have written, and give blocks that have so become whole their digests."""
        shapes = shapes_of(len(self), self.dim)
        self.state, self.reason, self.digests = (self._read(name, shapes) for name in ("state", "reason", "digest"))
        with self._writing():
            self._seal(np.flatnonzero(self._whole()))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        """The file open for writing, and all of it durable at the end."""
        try:
            self._descriptor = os.open(self.path, os.O_RDWR)
        except OSError as error:
            raise VbprError(f"{self.path} cannot be written ({error.strerror}); make it writable") from error
        try:
            yield
            with self._writing():
                os.fdatasync(self._descriptor)
                self._check_place()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    @staticmethod
    def _allocate(
        path: Path,
        item_ids: Strings,
        signatures: Array,
        dim: int,
        provenance: Mapping[str, Any],
        old: "FeatureStore | None",
    ) -> None:
        """Make the file with all its space reserved, carrying over the finished rows of `old`."""
        n = len(item_ids)
        shapes = shapes_of(n, dim)
        with replacing(path, "features") as temporary:
            reserve(temporary, n * (2 * dim + 10) + DIGEST * shapes["digest"][0] + item_ids.nbytes)
            access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
            access.set_alignment(4096, 4096)
            creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
            creation.set_obj_track_times(False)  # the same rows are the same file, byte for byte
            created = h5py.h5f.create(os.fsencode(temporary), h5py.h5f.ACC_TRUNC, creation, access)
            with h5py.File(created) as handle:
                write_text(handle, "vbpr", "features")
                # in the root's header, of which HDF5 keeps a checksum
                write_text(handle, "provenance", json.dumps(dict(provenance), sort_keys=True))
                ids = encoded(item_ids)
                kinds = {name: (h5py.h5t.py_create(np.dtype(LAYOUT[name])), shape) for name, shape in shapes.items()}
                kinds["item_ids"] = (h5py.h5t.py_create(ids.dtype, logical=True), ids.shape)
                for name, (kind, shape) in kinds.items():
                    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                    plist.set_obj_track_times(False)
                    h5py.h5d.create(handle.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)
                offsets = {name: handle[name].id.get_offset() for name in kinds}
            descriptor = os.open(temporary, os.O_RDWR)
            try:
                size = max(os.fstat(descriptor).st_size, offsets["features"] + 2 * n * dim)
                os.posix_fallocate(descriptor, 0, size)
                pwrite(descriptor, ids.view(np.uint8), offsets["item_ids"])  # HDF5 would hide that the disk failed
                pwrite(descriptor, np.ascontiguousarray(signatures, "<u8"), offsets["signature"])
                pwrite(descriptor, np.zeros(shapes["digest"], np.uint8), offsets["digest"])
                state, reason = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
                if old is not None:
                    source, state, reason = old._kept(item_ids, signatures, provenance["reasons"])
                    kept = np.flatnonzero(state == DONE)
                    for a in range(0, len(kept), 4096):
                        block = kept[a : a + 4096]
                        for run in runs(block):
                            rows = block[run]
                            pwrite(descriptor, old.features[source[rows]], offsets["features"] + 2 * dim * int(rows[0]))
                pwrite(descriptor, state, offsets["state"])
                pwrite(descriptor, reason, offsets["reason"])
            finally:
                os.close(descriptor)

    def _kept(self, item_ids: Strings, signatures: Array, reasons: list[str]) -> tuple[Array, Array, Array]:
        """Of another catalogue (N,): the row here of each item, and the states and codes of `reasons` that unchanged
        images bring along. Rot is not carried over, let alone given a new digest."""
        source, sound = places(self.item_ids, item_ids), np.ones(len(self), bool)
        for a, b in self.verify():
            sound[a:b] = False
        same = (source >= 0) & (self.signature[source] == signatures) & sound[source]
        state = np.where(same, self.state[source], np.uint8(PENDING))
        codes = [reasons.index(r) if r in reasons else len(reasons) - 1 for r in self.provenance["reasons"]]
        reason = np.zeros(len(source), np.uint8)
        failed = state == FAILED
        reason[failed] = np.array(codes, np.uint8)[self.reason[source[failed]]]
        return source, state, reason

    def write(self, rows: Array, features: Array) -> None:
        """Write features (n, D) at these rows, durably, then mark the rows done.

        Raises:
            VbprError: they are of another shape; a value is not finite, or overflows float16; or the disk is full or
                fails, in which case nothing already done is lost.
        """
        rows = self._checked(rows)
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(features, "<f2")
        if half.shape != (len(rows), self.dim):
            raise VbprError(f"{self.path} takes ({len(rows)}, {self.dim}) features at so many rows; got {half.shape}")
        if not np.isfinite(half).all():
            bad = rows[~np.isfinite(half).all(1)][0]
            raise VbprError(
                f"the backbone gave item {self.item_ids[bad]} features that are not finite in float16; use "
                "--precision exact, or another backbone"
            )
        self._reopen(rows)
        failed = rows[self.reason[rows] != 0]  # in an earlier run: equal rows are equal files
        with self._writing():
            if len(failed):
                os.fdatasync(self._descriptor)  # else they might be failed still, and for no reason
            for row in failed:
                self._put("reason", int(row), np.zeros(1, np.uint8))
        self._commit(rows, half, DONE)

    def fail(self, rows: Array, reasons: list[str]) -> None:
        """Mark rows whose image cannot be used, with the reason of each (one of `provenance["reasons"]`).

        Raises:
            VbprError: there are no such rows, or not as many reasons.
        """
        rows = self._checked(rows)
        if len(reasons) != len(rows):
            raise VbprError(f"{self.path}: {len(rows):,} rows failed for {len(reasons):,} reasons; give each its own")
        self._reopen(rows)
        known = self.provenance["reasons"]
        codes = np.array([known.index(r) if r in known else len(known) - 1 for r in reasons], np.uint8)
        with self._writing():
            for row, code in zip(rows, codes, strict=True):
                self._put("reason", int(row), code.reshape(1))
        self._commit(rows, np.zeros((len(rows), self.dim), "<f2"), FAILED)  # it may have had features before

    def retry(self, reasons: Collection[str]) -> None:
        """Make the rows that failed for these reasons pending again."""
        codes = [code for code, reason in enumerate(self.provenance["reasons"]) if reason in reasons]
        rows = np.flatnonzero((self.state == FAILED) & np.isin(self.reason, codes))
        if len(rows):
            self._make_pending(rows)

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

    def _checked(self, rows: Array) -> Array:
        rows = np.asarray(rows)
        if rows.dtype == bool and rows.shape == (len(self),):
            rows = np.flatnonzero(rows)
        sound = not len(rows) or (rows.dtype.kind in "iu" and 0 <= rows.min() <= rows.max() < len(self))
        if rows.ndim != 1 or not sound:
            raise VbprError(f"{self.path} has rows 0 to {len(self) - 1:,}; others were to be written")
        return rows.astype(np.int64)

    def _reopen(self, rows: Array) -> None:
        """Those of these rows that are finished become pending: the digest of their block is of what they hold now."""
        finished = rows[self.state[rows] != PENDING]
        if len(finished):
            self._make_pending(finished)

    def _commit(self, rows: Array, half: Array | None, state: int) -> None:
        if not len(rows):
            return
        with self._writing():
            self._check_place()
            if half is not None:
                for run in runs(rows):
                    pwrite(self._descriptor, half[run], self.offsets["features"] + 2 * self.dim * int(rows[run.start]))
            os.fdatasync(self._descriptor)  # features before the state that vouches for them
            for run in runs(rows):
                self._put("state", int(rows[run.start]), np.full(run.stop - run.start, state, np.uint8))
            self._seal(np.unique(rows // BLOCK))

    def _make_pending(self, rows: Array) -> None:
        self._commit(rows, None, PENDING)
        with self._writing():
            os.fdatasync(self._descriptor)  # a block that is whole and has no digest is taken for sound
            self._unseal(np.unique(rows // BLOCK))

    def _unseal(self, blocks: Array) -> None:
        for block in blocks:
            if self.digests[block].any():
                self._put("digest", int(block), np.zeros((1, DIGEST), np.uint8))

    def _seal(self, blocks: Array) -> None:
        """Write the digest of those of these blocks that are complete and have none."""
        for block in map(int, blocks):
            a, b = self._span(block)
            if (self.state[a:b] != PENDING).all() and not self.digests[block].any():
                self._put("digest", block, np.frombuffer(self._digest_of(block, self._rows(block)), np.uint8)[None])

    def _put(self, name: str, at: int, values: Array) -> None:
        """Write values of a small data set from row `at` on: to the file, then to its copy in memory."""
        copy = {"state": self.state, "reason": self.reason, "digest": self.digests}[name]
        pwrite(self._descriptor, values, self.offsets[name] + values[0].nbytes * at)
        copy[at : at + len(values)] = values

    def _check_place(self) -> None:
        """
        Raises:
            VbprError: the file that is being written is no longer there, or no longer whole.
        """
        here = os.fstat(self._descriptor)
        try:
            there = os.path.samestat(here, self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            there = False
        if not there or here.st_size < self.size:
            raise VbprError(
                f"{self.path} was {'cut short' if there else 'taken away or replaced'} while this run was writing it; "
                "put it back, or delete it, and run the same command again"
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise VbprError(
                f"{self.path} could not be written ({error.strerror or error}): {len(self.done):,} of {len(self):,} "
                "items are safe in it; mend the disk or free some space, then run the same command again to resume"
            ) from error


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
