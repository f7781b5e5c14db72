"""A feature store under writes, kills, power cuts, full disks, growth, changed images and rot, against a dict."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from conftest import PROVENANCE
from vbpr import VbprError
from vbpr.stores.features import layout
from vbpr.stores.features.layout import DONE, FAILED, PENDING
from vbpr.stores.features.store import FeatureStore

DIM = 3
REASONS = PROVENANCE["reasons"]
BLOCK = 4  # rows under one digest, so that small stores have several


class Killed(BaseException):
    """What no code of the store may catch."""


class Disk:
    """pwrite and fdatasync of a disk that writes in pieces, dies when told, and forgets what was not synced."""

    def __init__(self):
        self.calls = {name: getattr(os, name) for name in ("pwrite", "fdatasync", "fsync")}
        self.unsynced = []  # (offset, bytes before) of each write since the last sync
        self.left, self.end = None, None  # how many calls it still takes, and how it ends then
        os.pwrite, os.fdatasync, os.fsync = self.pwrite, self.fdatasync, self.fsync

    def restore(self):
        for name, call in self.calls.items():
            setattr(os, name, call)

    def count(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise self.end

    def pwrite(self, descriptor, data, offset):
        self.count()
        piece = bytes(data[:16])
        self.unsynced.append((offset, os.pread(descriptor, len(piece), offset)))
        return self.calls["pwrite"](descriptor, piece, offset)

    def fdatasync(self, descriptor):
        self.count()
        self.calls["fdatasync"](descriptor)
        self.unsynced = []

    def fsync(self, descriptor):  # of a new file before it is renamed
        self.calls["fsync"](descriptor)
        self.unsynced = []

    def power_cut(self, path, lost):
        """The writes at these places of `unsynced` never came to the disk."""
        with path.open("r+b") as handle:
            for at in sorted(lost, reverse=True):
                handle.seek(self.unsynced[at][0])
                handle.write(self.unsynced[at][1])


class StoreMachine(RuleBasedStateMachine):
    """`self.truth` says what each item must be: (signature, None), (signature, row) or (signature, reason)."""

    @initialize(count=st.integers(1, 14))
    def begin(self, count):
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "f.h5"
        self.disk = Disk()
        self.block, layout.BLOCK = layout.BLOCK, BLOCK
        self.rng = np.random.default_rng(count)
        self.truth = {f"i{k:03}": (np.uint64(k + 1), None) for k in range(count)}
        self.session = self.store = None
        self.open()

    def open(self, away=()):
        """`away`: items whose images cannot be looked at, so that their signature is 0."""
        ids = np.array(sorted(self.truth))
        signatures = np.array([0 if i in away else self.truth[i][0] for i in ids], np.uint64)
        self.session = FeatureStore.create(self.path, ids, signatures, DIM, PROVENANCE)
        self.store = self.session.__enter__()

    def close(self, failed=False):
        if self.session is not None:
            if failed:  # as a kill leaves it: nothing is tidied up in the file
                self.session.gen.close()
            else:
                self.session.__exit__(None, None, None)
        self.session = None

    def pending(self):
        return [i for i in sorted(self.truth) if self.truth[i][1] is None]

    def positions(self, items):
        return np.array([np.flatnonzero(self.store.item_ids == i)[0] for i in items], np.int64)

    @precondition(lambda self: self.pending())
    @rule(data=st.data())
    def write(self, data):
        items = data.draw(st.lists(st.sampled_from(self.pending()), min_size=1, unique=True))
        rows = self.rng.standard_normal((len(items), DIM)).astype(np.float16)
        self.store.write(self.positions(items), rows.astype(np.float32))
        for item, row in zip(items, rows, strict=True):
            self.truth[item] = (self.truth[item][0], row)

    @precondition(lambda self: self.pending())
    @rule(data=st.data(), reason=st.sampled_from([*REASONS, "something new"]))
    def fail(self, data, reason):
        item = data.draw(st.sampled_from(self.pending()))
        self.store.fail(self.positions([item]), [reason])
        self.truth[item] = (self.truth[item][0], reason if reason in REASONS else "other")

    @rule(
        data=st.data(),
        work=st.sampled_from(["write", "fail", "retry", "open"]),
        calls=st.integers(0, 9),
        end=st.sampled_from(["killed", "power cut", "full"]),
    )
    def cut_short(self, data, work, calls, end):
        """The process or the disk gives up in the middle: every row is as before or as it was to be, and sound."""
        pending = self.pending()
        items = data.draw(st.lists(st.sampled_from(pending), min_size=1, unique=True)) if pending else []
        rows = dict(zip(items, self.rng.standard_normal((len(items), DIM)).astype(np.float16), strict=True))
        changed = data.draw(st.sampled_from(sorted(self.truth)))
        if work == "open":  # with a changed image, so that there is something to do
            self.close()
            self.truth[changed] = (self.truth[changed][0] + np.uint64(1000), None)
        self.disk.end = OSError(errno.ENOSPC, "No space left on device") if end == "full" else Killed()
        self.disk.left, self.disk.unsynced = calls, []
        try:
            if work == "open":
                self.open()
            elif work == "retry":
                self.store.retry(["unreadable"])
            elif items and work == "write":
                self.store.write(self.positions(items), np.stack(list(rows.values())).astype(np.float32))
            elif items:
                self.store.fail(self.positions(items), ["truncated"] * len(items))
        except (Killed, VbprError):
            if work == "open":
                self.disk.unsynced = []  # of the new file, which is gone
        self.disk.left = None
        self.close(failed=True)
        if end == "power cut" and self.disk.unsynced:
            places = st.integers(0, len(self.disk.unsynced) - 1)
            self.disk.power_cut(self.path, data.draw(st.sets(places, min_size=1)))
        assert FeatureStore(self.path).verify() == []
        self.open()
        found = dict(zip(self.store.item_ids.tolist(), self.store.state, strict=True))
        failures = dict(self.store.failures())
        for item, (signature, value) in self.truth.items():
            if work == "write" and item in rows and found[item] != PENDING:
                self.truth[item] = (signature, rows[item])
            elif work == "fail" and item in rows and found[item] != PENDING:
                self.truth[item] = (signature, "truncated")
            elif work == "retry" and isinstance(value, str) and value == "unreadable" and item not in failures:
                self.truth[item] = (signature, None)

    @rule(failed=st.booleans())
    def resume(self, failed):
        self.close(failed)
        self.open()

    @rule()
    def retry(self):
        self.store.retry(["unreadable"])
        for item, (signature, value) in self.truth.items():
            if isinstance(value, str) and value == "unreadable":
                self.truth[item] = (signature, None)

    @rule(new=st.lists(st.integers(0, 40), max_size=5), changed=st.data(), gone=st.booleans())
    def grow(self, new, changed, gone):
        self.close()
        for k in new:
            self.truth.setdefault(f"i{k:03}", (np.uint64(k + 1), None))
        item = changed.draw(st.sampled_from(sorted(self.truth)))
        self.truth[item] = (self.truth[item][0] + np.uint64(1000), None)
        if gone and len(self.truth) > 2:
            kept = set(self.truth) & set(self.store.item_ids.tolist())
            item = changed.draw(st.sampled_from(sorted(self.truth)))
            if kept - {item}:
                del self.truth[item]
        self.open()

    @rule(data=st.data())
    def away(self, data):
        """Images cannot be looked at for a while: features that there are stay, all else is to be looked at again."""
        self.close()
        items = data.draw(st.lists(st.sampled_from(sorted(self.truth)), min_size=1, unique=True))
        self.open(items)
        for item, row in zip(items, self.positions(items), strict=True):
            signature, value = self.truth[item]
            kept = isinstance(value, np.ndarray)
            assert (self.store.state[row], self.store.signature[row]) == ((DONE, signature) if kept else (PENDING, 0))
            self.truth[item] = (signature, value if kept else None)
        self.close()
        self.open()

    @rule(data=st.data(), name=st.sampled_from(["features", "signature", "reason"]), grown=st.booleans())
    def rot(self, data, name, grown):
        """A flipped bit in a finished block is found, and only there; its rows are not carried into a grown file."""
        self.close()
        store = FeatureStore(self.path)
        width = {"features": 2 * DIM, "signature": 8, "reason": 1}[name]
        sealed = [p for p in store.done if p // BLOCK in store._sealed()]
        if sealed:
            row = int(data.draw(st.sampled_from(sealed)))
            at = store.offsets[name] + width * row + data.draw(st.integers(0, width - 1))
            block = (row // BLOCK * BLOCK, min(len(store), (row // BLOCK + 1) * BLOCK))
            flip(self.path, at)
            assert FeatureStore(self.path).verify() == [block]
            if grown:
                for item in store.item_ids[slice(*block)].tolist():
                    self.truth[item] = (self.truth[item][0], None)
                name = next(name for n in range(10**6) if (name := f"k{n}") not in self.truth)
                self.truth[name] = (np.uint64(1), None)  # a name that is taken would leave the catalogue as it is
            else:
                flip(self.path, at)
        self.open()

    @invariant()
    def holds_the_truth(self):
        if self.session is None:
            return
        for store in (self.store, FeatureStore(self.path)):
            assert store.item_ids.tolist() == sorted(self.truth)
            assert store.verify() == []
            for position, item in enumerate(store.item_ids.tolist()):
                signature, value = self.truth[item]
                assert store.signature[position] == signature
                if value is None:
                    assert store.state[position] == PENDING
                elif isinstance(value, str):
                    assert store.state[position] == FAILED
                    assert (item, value) in store.failures()
                else:
                    assert store.state[position] == DONE
                    assert np.array_equal(store.features[position], value)
            whole = [
                b for b in range(-(-len(store) // BLOCK)) if (store.state[b * BLOCK : (b + 1) * BLOCK] != PENDING).all()
            ]
            assert store._sealed() == whole  # every finished block has its digest

    def teardown(self):
        if getattr(self, "session", None) is not None:
            self.close()
        if hasattr(self, "folder"):
            layout.BLOCK = self.block
            self.disk.restore()
            shutil.rmtree(self.folder)


def flip(path, at):
    with path.open("r+b") as handle:
        handle.seek(at)
        byte = handle.read(1)[0]
        handle.seek(at)
        handle.write(bytes([byte ^ 1]))


StoreMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
test_store_machine = StoreMachine.TestCase


def work(path, other=1):
    """A run that meets a file with rows that are done, failed and pending in whole and open blocks."""
    ids = np.array([f"i{k}" for k in range(11)])
    with FeatureStore.create(path, ids, np.arange(11, dtype=np.uint64), DIM, PROVENANCE) as store:
        store.retry(["unreadable"])
        for rows in ([1, 2, 6], [5, 8, 9, 10]):  # three in a row: more bytes than the disk takes at once
            left = np.intersect1d(rows, store.pending)
            store.write(left, np.repeat(left[:, None], DIM, 1).astype(np.float32) + other)
        if 7 in store.pending:
            store.fail(np.array([7]), ["truncated"])


@pytest.mark.parametrize("end", ["killed", pytest.param("power cut", marks=pytest.mark.slow), "full"])
def test_every_call_may_be_the_last(tmp_path, monkeypatch, end):
    """Each system call of a run in turn is the last; what was not synced is lost in part; the next run mends it."""
    monkeypatch.setattr(layout, "BLOCK", BLOCK)
    begun, whole, path, again = (tmp_path / name for name in ("begun.h5", "whole.h5", "f.h5", "again.h5"))
    ids = np.array([f"i{k}" for k in range(11)])
    with FeatureStore.create(begun, ids, np.arange(11, dtype=np.uint64), DIM, PROVENANCE) as store:
        store.write(np.array([0, 3, 4]), np.array([[1.0] * DIM, [4] * DIM, [5] * DIM]))
        store.fail(np.array([1, 2]), ["unreadable", "unreadable"])  # its block is whole, and has a digest
    shutil.copy(begun, whole)
    work(whole)
    expected = FeatureStore(whole)
    assert expected.verify() == [] and expected.sealed_rows() == 11
    disk = Disk()
    try:
        for calls in range(1000):
            for keep in range(4 if end == "power cut" else 1):  # none of the unsynced writes, or each third
                shutil.copy(begun, path)
                disk.unsynced, disk.left = [], calls
                disk.end = OSError(errno.ENOSPC, "No space left on device") if end == "full" else Killed()
                died = False
                try:
                    work(path)
                except (Killed, VbprError):
                    died = True
                disk.left = None
                if end == "power cut":
                    disk.power_cut(path, [n for n in range(len(disk.unsynced)) if n % 3 != keep - 1])
                store = FeatureStore(path)
                assert store.verify() == []
                done = store.done
                assert np.array_equal(store.features[done][:, 0], done + 1)
                assert set(store.failures()) <= {("i1", "unreadable"), ("i2", "unreadable"), ("i7", "truncated")}
                shutil.copy(path, again)
                work(again, other=5)  # what is pending may come out otherwise than it did before
                assert FeatureStore(again).verify() == [] and FeatureStore(again).sealed_rows() == 11
                work(path)
                assert path.read_bytes() == whole.read_bytes()
            if not died:
                break
        assert 10 < calls < 999
    finally:
        disk.restore()


@pytest.mark.parametrize("end", ["killed", pytest.param("power cut", marks=pytest.mark.slow), "full"])
def test_rot_that_was_found_is_not_forgotten(tmp_path, monkeypatch, end):
    """`verify=True` cut short at each system call: what it found is found again, or is pending."""
    monkeypatch.setattr(layout, "BLOCK", BLOCK)
    whole, path, ids = tmp_path / "whole.h5", tmp_path / "f.h5", np.array([f"i{k}" for k in range(4)])
    with FeatureStore.create(whole, ids, np.arange(1, 5, dtype=np.uint64), DIM, PROVENANCE) as store:
        store.write(np.arange(4), np.ones((4, DIM)))
    flip(whole, store.offsets["features"] + 3)
    disk = Disk()
    try:
        for calls in range(20):
            shutil.copy(whole, path)
            disk.unsynced, disk.left = [], calls
            disk.end = OSError(errno.ENOSPC, "No space left on device") if end == "full" else Killed()
            died = False
            try:
                with FeatureStore.create(path, ids, np.arange(1, 5, dtype=np.uint64), DIM, PROVENANCE, verify=True):
                    pass
            except (Killed, VbprError):
                died = True
            disk.left = None
            if end == "power cut":
                disk.power_cut(path, range(0, len(disk.unsynced), 2))
            store = FeatureStore(path)
            assert store.verify() == [(0, 4)] or len(store.pending) == 4
            if not died:
                break
        assert 2 < calls < 19
    finally:
        disk.restore()


@pytest.mark.parametrize("name", ["features", "signature", "reason"])
def test_every_flipped_bit_of_a_finished_block_is_found_and_not_carried_over(tmp_path, monkeypatch, name):
    monkeypatch.setattr(layout, "BLOCK", BLOCK)
    path, grown = tmp_path / "f.h5", tmp_path / "grown.h5"
    ids = np.array([f"i{k}" for k in range(7)])
    with FeatureStore.create(path, ids[:6], np.arange(6, dtype=np.uint64), DIM, PROVENANCE) as store:
        store.write(np.arange(5), np.ones((5, DIM), np.float32))
        store.fail(np.array([5]), ["truncated"])
    width = {"features": 2 * DIM, "signature": 8, "reason": 1}[name]
    for at in range(0, 6 * width, max(1, width // 4)):
        block = at // width // BLOCK
        flip(path, store.offsets[name] + at)
        assert FeatureStore(path).verify() == [(4 * block, min(6, 4 * block + 4))]
        shutil.copy(path, grown)
        with FeatureStore.create(grown, ids, np.arange(7, dtype=np.uint64), DIM, PROVENANCE) as bigger:
            assert bigger.pending.tolist() == ([0, 1, 2, 3, 6] if block == 0 else [4, 5, 6])
        flip(path, store.offsets[name] + at)
    assert FeatureStore(path).verify() == []
