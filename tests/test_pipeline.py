"""The steps of an extraction side by side: memory stays bounded, every row is written, order does not matter."""

import importlib
import tracemalloc

import numpy as np
import pytest
import torch

from vbpr import backbones
from vbpr.backbones import Encoder, load_backbone
from vbpr.features import FeatureStore
from vbpr.images import BadImage, Preprocessing

module = importlib.import_module("vbpr.extract")
HALF = (0.5, 0.5, 0.5)
PROVENANCE = {"backbone": "b", "weights": "w", "preprocessing": "p", "data": "d", "fingerprint": "f"}


class Source:
    """A catalogue whose image i is the number i."""

    name = "numbers"

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

    batch, depth = 256, 2
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
    def prepare(i, how):
        if i % 1000 == 7:
            raise BadImage("truncated")
        return np.full((how.size, how.size, 3), i % 251, np.uint8)

    monkeypatch.setattr(module, "prepare", prepare)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_catalogue(tmp_path, number):
    count, how = 200_000, Preprocessing(32, 1.0, "bilinear", HALF, HALF)  # decoded at once: 614 MB
    source, encoder = Source(count), Adder()
    signatures = np.arange(count, dtype=np.uint64)
    provenance = PROVENANCE | {"reasons": ["truncated", "other"]}
    with FeatureStore.create(tmp_path / "f.h5", source.item_ids, signatures, 3, provenance) as store:
        tracemalloc.start()
        done = list(module.encoded(store, source, encoder, how, store.pending, 2))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(good for good, _ in done) == count - 200 and sum(bad for _, bad in done) == 200
        assert peak < 12e6 and encoder.most <= encoder.depth + 1
        good = store.done
        assert np.array_equal(store.features[good, 0], (good % 251).astype(np.float16))
        assert store.verify() == []


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_features_do_not_depend_on_the_batch_and_equal_eager(engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    backbone = load_backbone("test_efficientnet", random_weights=True)
    pixels = np.random.default_rng(0).integers(0, 256, (11, 160, 160, 3), dtype=np.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    with torch.inference_mode():
        expected = backbone.module((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    encode = Encoder(backbone, "cpu", "exact", engine, batch=4)
    assert np.linalg.norm(encode(pixels) - expected) <= 1e-3 * np.linalg.norm(expected)
    assert np.array_equal(encode(pixels)[5:], encode(pixels[5:]))  # however a resumed run cuts the catalogue up
    fast = Encoder(backbone, "cpu", "fast", engine, batch=4)(pixels)
    assert 0 < np.linalg.norm(fast - expected) <= 0.05 * np.linalg.norm(expected)
    alone = Encoder(backbone, "cpu", "exact", batch=1)(pixels[:2])
    assert np.linalg.norm(alone - expected[:2]) <= 1e-3 * np.linalg.norm(expected[:2])


def test_out_of_gpu_memory_halves_the_batch_and_loses_nothing(monkeypatch):
    """`CudaRunner.start` on a stand-in for the device, which holds three images."""
    runner = backbones.CudaRunner.__new__(backbones.CudaRunner)
    runner.batch, runner.device, runner.slots = 8, torch.device("cpu"), []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(runner, "_buffers", lambda: None)

    def start(pixels):
        if runner.batch > 3:
            raise torch.OutOfMemoryError("full")
        return lambda: pixels[:, 0, 0].astype(np.float32)

    monkeypatch.setattr(runner, "_start", start)
    pixels = np.arange(8 * 3, dtype=np.uint8).reshape(8, 1, 1, 3)
    assert np.array_equal(runner.start(pixels)(), pixels[:, 0, 0])
    assert runner.batch == 2


def test_the_encoder_has_work_while_rows_are_written(tmp_path, number):
    how, source, encoder = Preprocessing(4, 1.0, "bilinear", HALF, HALF), Source(2000), Adder()
    provenance = PROVENANCE | {"reasons": ["truncated", "other"]}
    signatures = np.arange(2000, dtype=np.uint64)
    with FeatureStore.create(tmp_path / "f.h5", source.item_ids, signatures, 3, provenance) as store:
        steps = module.encoded(store, source, encoder, how, store.pending, 2)
        next(steps)
        assert encoder.held == encoder.depth
        assert sum(good + bad for good, bad in steps) == 2000 - 256
