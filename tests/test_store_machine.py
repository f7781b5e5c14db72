"""A feature store under writes, failures, kills, resumes, growth, changed images and rot, against a dict."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vbpr import features as module
from vbpr.features import DONE, FAILED, PENDING, FeatureStore

DIM = 3
REASONS = ["truncated", "unreadable", "other"]
PROVENANCE = {
    "backbone": "b",
    "weights": "w",
    "preprocessing": "p",
    "data": "d",
    "fingerprint": "f",
    "reasons": REASONS,
}
BLOCK = 4  # rows under one digest, so that small stores have several


class StoreMachine(RuleBasedStateMachine):
    """`self.truth` says what each item must be: (signature, None), (signature, row) or (signature, reason)."""

    @initialize(count=st.integers(1, 14))
    def begin(self, count):
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "f.h5"
        self.block, module.BLOCK = module.BLOCK, BLOCK
        self.rng = np.random.default_rng(count)
        self.truth = {f"i{k:03}": (np.uint64(k), None) for k in range(count)}
        self.session = self.store = None
        self.rotten = False
        self.open()

    def open(self):
        ids = np.array(sorted(self.truth))
        signatures = np.array([self.truth[i][0] for i in ids], np.uint64)
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

    @precondition(lambda self: self.pending())
    @rule(data=st.data())
    def killed_between_features_and_state(self, data):
        """Rows on the disk whose state was never written are pending still."""
        item = data.draw(st.sampled_from(self.pending()))
        offset = self.store.offsets["features"] + 2 * DIM * int(self.positions([item])[0])
        module.pwrite(self.store._descriptor, np.full(DIM, 7, np.float16), offset)
        self.close(failed=True)
        self.open()

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
            self.truth.setdefault(f"i{k:03}", (np.uint64(k), None))
        item = changed.draw(st.sampled_from(sorted(self.truth)))
        self.truth[item] = (self.truth[item][0] + np.uint64(1000), None)
        if gone and len(self.truth) > 2:
            kept = set(self.truth) & set(self.store.item_ids.tolist())
            item = changed.draw(st.sampled_from(sorted(self.truth)))
            if kept - {item}:
                del self.truth[item]
        self.open()

    @rule(data=st.data())
    def rot(self, data):
        """One flipped bit in a finished row is found, and only there."""
        self.close()
        sealed = FeatureStore(self.path)._sealed()
        done = [p for p in FeatureStore(self.path).done if p // BLOCK in sealed]
        if done:
            row = data.draw(st.sampled_from(done))
            at = self.store.offsets["features"] + 2 * DIM * int(row) + data.draw(st.integers(0, 2 * DIM - 1))
            flip(self.path, at)
            assert FeatureStore(self.path).verify() == [
                (row // BLOCK * BLOCK, min(len(self.truth), (row // BLOCK + 1) * BLOCK))
            ]
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
            module.BLOCK = self.block
            shutil.rmtree(self.folder)


def flip(path, at):
    with path.open("r+b") as handle:
        handle.seek(at)
        byte = handle.read(1)[0]
        handle.seek(at)
        handle.write(bytes([byte ^ 1]))


StoreMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
test_store_machine = StoreMachine.TestCase
