"""The steps of an extraction side by side: memory stays bounded, every row is written, order does not matter."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conftest import PROVENANCE
from vbpr.data.images.source import BadImage
from vbpr.extraction import steps
from vbpr.networks.prepare import Preprocessing
from vbpr.stores.features.store import FeatureStore

HALF = (0.5, 0.5, 0.5)


class Source:
    """A catalogue whose image i is the number i."""

    name = "numbers"
    ahead = 0

    def __init__(self, count):
        self.item_ids = np.array([f"{i:06}" for i in range(count)])

    def __len__(self):
        return len(self.item_ids)

    def read(self, i):
        return i

    def signature(self, i):
        return i


class Adder:
    """An encoder whose features are the first pixels; it counts the batches that it holds."""

    batch, depth, dim = 256, 2, 3
    held = most = 0

    def start(self, pixels):
        self.held += 1
        self.most = max(self.most, self.held)

        def wait():
            self.held -= 1
            return pixels[:, 0, 0].astype(np.float32)

        return wait


@pytest.fixture
def number(monkeypatch):
    def prepare(i, how, odd):
        if i % 1000 == 7:
            raise BadImage("truncated")
        return np.full((how.size, how.size, 3), i % 251, np.uint8)

    monkeypatch.setattr(steps, "prepare", prepare)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_catalogue(tmp_path, number):
    count, how = 200_000, Preprocessing(32, 1.0, "bilinear", HALF, HALF)  # decoded at once: 614 MB
    source, encoder = Source(count), Adder()
    signatures = np.arange(count, dtype=np.uint64)
    with FeatureStore.create(tmp_path / "f.h5", source.item_ids, signatures, 3, PROVENANCE) as store:
        tracemalloc.start()
        good = bad = 0
        for done in steps.encoded(source, encoder, how, steps.in_steps(store.pending, encoder.batch), 2):
            store.write(done.rows, done.features)
            store.fail(done.failed, done.reasons)
            good, bad = good + len(done.rows), bad + len(done.failed)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (good, bad) == (count - 200, 200)
        assert peak < 12e6 and encoder.most <= encoder.depth + 1
        good = store.done
        assert np.array_equal(store.features[good][:, 0], (good % 251).astype(np.float16))
        assert store.verify() == []


def test_the_encoder_has_work_while_rows_are_written(number):
    how, source, encoder = Preprocessing(4, 1.0, "bilinear", HALF, HALF), Source(2000), Adder()
    under_way = steps.encoded(source, encoder, how, steps.in_steps(np.arange(2000), encoder.batch), 2)
    next(under_way)
    assert encoder.held == encoder.depth
    assert sum(len(done.rows) + len(done.failed) for done in under_way) == 2000 - 256


def test_a_server_s_images_are_asked_for_ahead_and_so_many_alone():
    """Steps come in their order with their own images, and no more wait than the queue takes."""
    source = Source(100)
    source.ahead = 3
    asked = []
    source.read = lambda i: asked.append(i) or i
    dealt = ((np.arange(a, a + 5), np.arange(5)) for a in range(0, 100, 5))
    with ThreadPoolExecutor(1) as pool:  # one, so that what is asked for is in order
        for nth, (rows, _, reads) in enumerate(steps.read_ahead(source, dealt, pool)):
            assert rows.tolist() == [read() for read in reads] == list(range(5 * nth, 5 * nth + 5))
            assert len(asked) <= 5 * nth + steps.QUEUE * source.ahead + 5
    assert asked == list(range(100))
