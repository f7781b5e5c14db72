"""A feature file open for writing: allocated once, rows committed batch by batch, blocks sealed with their digests.

    with create("artifacts/inc.h5", source_ids, signatures, dim=2048, provenance=about) as writer:
        writer.write(rows, features)

A batch is committed in this order: features, fdatasync, states, then the digests of blocks that are now complete.
"""

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...base.arrays import Array, Strings, places
from ...base.errors import VbprError
from ...base.files import replacing, reserve
from ...base.hdf5 import encoded, write_text
from ...base.locks import locked
from .blocks import blocks_of, complete
from .layout import DIGEST, DONE, FAILED, LAYOUT, PENDING, PROVENANCE, SHARED, TOLD, describe, shapes_of
from .rows import pwrite, runs
from .store import FeatureStore


class Writer(FeatureStore):
    """A feature file, open for writing (from `create`) as well as for reading.

    Attributes:
        dropped: after `create`, how many finished rows went because their items are no longer in the catalogue.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._descriptor = -1
        self.dropped = 0

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
        codes = np.array(recode(reasons, self.provenance["reasons"]), np.uint8)
        with self._writing():
            for row, code in zip(rows, codes, strict=True):
                self._put("reason", int(row), code.reshape(1))
        self._commit(rows, np.zeros((len(rows), self.dim), "<f2"), FAILED)  # it may have had features before

    def failed_for(self, reasons: Collection[str]) -> Array:
        """(N,) bool: which rows failed for these reasons."""
        codes = [code for code, reason in enumerate(self.provenance["reasons"]) if reason in reasons]
        failed: Array = (self.state == FAILED) & np.isin(self.reason, codes)
        return failed

    def retry(self, reasons: Collection[str], rows: Array | None = None) -> None:
        """Make the rows (of these, a mask, alone) that failed for these reasons pending again."""
        failed = self.failed_for(reasons)
        rows = np.flatnonzero(failed if rows is None else failed & rows)
        if len(rows):
            self._make_pending(rows)

    def _mend(self, verify: bool) -> None:
        """Set right what a kill left between two steps; with `verify`, also rows of blocks that have changed since.

        A block with a pending row and a digest was stopped in the instant between the two, or has changed.
        """
        for a, b in self.verify(None if verify else np.flatnonzero(~complete(self.state))):
            self._make_pending(np.arange(a, b))
        with self._writing():  # a kill can come between the last row of a block and its digest
            self._unseal(np.flatnonzero(~complete(self.state)))
            self._seal(np.flatnonzero(complete(self.state)))

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

    def _checked(self, rows: Array) -> Array:
        """Rows to be written, given as positions or a mask, as int64 positions.

        Raises:
            VbprError: there are no such rows.
        """
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
        """Write float16 features (n, D), if any, at these rows, durably, then their state."""
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
            self._seal(blocks_of(rows))

    def _make_pending(self, rows: Array) -> None:
        """Mark rows as still to be written, then take the digests of their blocks away."""
        self._commit(rows, None, PENDING)
        with self._writing():
            os.fdatasync(self._descriptor)  # a complete block without a digest is taken for sound
            self._unseal(blocks_of(rows))

    def _unseal(self, blocks: Array) -> None:
        """Take away the digests of these blocks."""
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
            VbprError: the file that is being written is no longer at its path, or has been cut short.
        """
        status = os.fstat(self._descriptor)
        try:
            in_place = os.path.samestat(status, self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            in_place = False
        if not in_place or status.st_size < self.size:
            fate = "cut short" if in_place else "taken away or replaced"
            raise VbprError(
                f"{self.path} was {fate} while this run was writing it; "
                "put it back, or delete it, and run the same command again"
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a failing disk into an error that tells how much is safe, and how to go on."""
        try:
            yield
        except OSError as error:
            raise VbprError(
                f"{self.path} could not be written ({error.strerror or error}): {len(self.done):,} of {len(self):,} "
                "items are safe in it; mend the disk or free some space, then run the same command again to resume"
            ) from error


@contextlib.contextmanager
def create(
    path: Path | str,
    item_ids: Strings,
    signatures: Array,
    dim: int,
    provenance: Mapping[str, Any],
    verify: bool = False,
) -> Iterator[Writer]:
    """Open a feature file for writing: resume it if it is of this catalogue and provenance, carry over the rows of
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
    with locked(path):
        writer = resumed_or_allocated(path, item_ids, signatures, dim, provenance)
        with writer._opened():
            writer._mend(verify)
            yield writer


def resumed_or_allocated(
    path: Path, item_ids: Strings, signatures: Array, dim: int, provenance: Mapping[str, Any]
) -> Writer:
    """The file as it is, if it is of these very images, else a new one in its place with what can be carried over.

    Raises:
        VbprError: it is of another model or catalogue.
    """
    if not path.exists():
        allocate(path, item_ids, signatures, dim, provenance, None)
        return Writer(path)
    old = Writer(path)
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
    told = all(old.provenance.get(name) == provenance.get(name) for name in TOLD)
    if old.holds(item_ids, signatures) and told:
        return old
    allocate(path, item_ids, signatures, dim, provenance, old)
    writer = Writer(path)
    writer.dropped = int((old.state[gone] == DONE).sum())
    return writer


def allocate(
    path: Path,
    item_ids: Strings,
    signatures: Array,
    dim: int,
    provenance: Mapping[str, Any],
    old: FeatureStore | None,
) -> None:
    """Make the file with all its space reserved, carrying over the finished rows of `old`."""
    n = len(item_ids)
    shapes, ids = shapes_of(n, dim), encoded(item_ids)
    with replacing(path, "features") as temporary:
        reserve(temporary, n * (2 * dim + 10) + DIGEST * shapes["digest"][0] + item_ids.nbytes)
        offsets = lay_out(temporary, shapes, ids, provenance)
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            size = max(os.fstat(descriptor).st_size, offsets["features"] + 2 * n * dim)
            os.posix_fallocate(descriptor, 0, size)
            pwrite(descriptor, ids.view(np.uint8), offsets["item_ids"])  # HDF5 would hide that the disk failed
            pwrite(descriptor, np.ascontiguousarray(signatures, "<u8"), offsets["signature"])
            pwrite(descriptor, np.zeros(shapes["digest"], np.uint8), offsets["digest"])
            state, reason = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
            if old is not None:
                source, state, reason = kept_rows(old, item_ids, signatures, provenance["reasons"])
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


def lay_out(
    path: Path, shapes: Mapping[str, tuple[int, ...]], ids: Array, provenance: Mapping[str, Any]
) -> dict[str, int]:
    """Write an HDF5 file of these data sets, early allocated and empty; where each begins, in bytes.

    Args:
        ids: (N,) as HDF5 keeps them: see `encoded`.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_alignment(4096, 4096)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)  # the same rows are the same file, byte for byte
    created = h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access)
    with h5py.File(created) as handle:
        write_text(handle, "vbpr", "features")
        # in the root's header, of which HDF5 keeps a checksum
        write_text(handle, "provenance", json.dumps(dict(provenance), sort_keys=True))
        kinds = {name: (h5py.h5t.py_create(np.dtype(LAYOUT[name])), shape) for name, shape in shapes.items()}
        kinds["item_ids"] = (h5py.h5t.py_create(ids.dtype, logical=True), ids.shape)
        for name, (kind, shape) in kinds.items():
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            plist.set_obj_track_times(False)
            h5py.h5d.create(handle.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)
        return {name: handle[name].id.get_offset() for name in kinds}


def kept_rows(
    old: FeatureStore, item_ids: Strings, signatures: Array, reasons: list[str]
) -> tuple[Array, Array, Array]:
    """What another catalogue (N,) keeps of a file: the row there of each item, and the states and codes of `reasons`
    that unchanged images bring along. Rot is not carried over, let alone given a new digest."""
    source, sound = places(old.item_ids, item_ids), np.ones(len(old), bool)
    for a, b in old.verify():
        sound[a:b] = False
    same = (source >= 0) & (old.signature[source] == signatures) & sound[source]
    unknown = [code for code, reason in enumerate(old.provenance["reasons"]) if reason == SHARED not in reasons]
    same &= ~((old.state[source] == FAILED) & np.isin(old.reason[source], unknown))  # looked at again
    state = np.where(same, old.state[source], np.uint8(PENDING))
    codes = recode(old.provenance["reasons"], reasons)
    reason = np.zeros(len(source), np.uint8)
    failed = state == FAILED
    reason[failed] = np.array(codes, np.uint8)[old.reason[source[failed]]]
    return source, state, reason


def recode(reasons: list[str], listed: list[str]) -> list[int]:
    """The position of each reason in a list, whose last one stands for any other."""
    return [listed.index(reason) if reason in listed else len(listed) - 1 for reason in reasons]


__all__ = ["Writer", "create"]
