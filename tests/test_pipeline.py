"""The steps of an extraction side by side: memory stays bounded, every row is written, order does not matter."""

import contextlib
import functools
import importlib
import tracemalloc
import weakref

import numpy as np
import pytest
import torch

from conftest import PROVENANCE, TINY
from vbpr import VbprError, backbones
from vbpr.backbones import Encoder, load_backbone
from vbpr.features import FeatureStore
from vbpr.images import BadImage, Preprocessing

module = importlib.import_module("vbpr.extract")
HALF = (0.5, 0.5, 0.5)


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
    def prepare(i, how, odd):
        if i % 1000 == 7:
            raise BadImage("truncated")
        return np.full((how.size, how.size, 3), i % 251, np.uint8)

    monkeypatch.setattr(module, "prepare", prepare)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_catalogue(tmp_path, number):
    count, how = 200_000, Preprocessing(32, 1.0, "bilinear", HALF, HALF)  # decoded at once: 614 MB
    source, encoder = Source(count), Adder()
    signatures = np.arange(count, dtype=np.uint64)
    with FeatureStore.create(tmp_path / "f.h5", source.item_ids, signatures, 3, PROVENANCE) as store:
        tracemalloc.start()
        done = list(module.encoded(store, source, encoder, how, store.pending, 2))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(good for good, _ in done) == count - 200 and sum(bad for _, bad in done) == 200
        assert peak < 12e6 and encoder.most <= encoder.depth + 1
        good = store.done
        assert np.array_equal(store.features[good][:, 0], (good % 251).astype(np.float16))
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


class Stream:
    """Of the GPU's, on a CPU: everything is done at once, and in order."""

    def __init__(self, *_, **__):
        pass

    def synchronize(self):
        pass

    def wait_event(self, event):
        assert event.recorded


class Event(Stream):
    recorded = False

    def record(self, stream):
        self.recorded = True


@pytest.fixture
def cuda_on_cpu(monkeypatch):
    """`CudaRunner` runs whole with these in place of the streams and events of a device."""
    for name, value in {"Stream": Stream, "Event": Event, "stream": contextlib.nullcontext}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(backbones.CudaRunner, "LARGEST", 32)
    return torch.device("cpu")


@pytest.mark.parametrize("fast", [False, True])
def test_the_gpu_runner_keeps_every_batch_that_is_not_yet_fetched(cuda_on_cpu, fast):
    backbone = load_backbone("test_efficientnet", random_weights=True)
    pixels = np.random.default_rng(0).integers(0, 256, (11, 160, 160, 3), dtype=np.uint8)
    expected = Encoder(backbone, "cpu", "exact", "torch", batch=4)(pixels)
    runner = backbones.CudaRunner(backbone, cuda_on_cpu, fast, 2, 0)
    waits = [runner.start(pixels[a : a + 2]) for a in range(0, 11, 2)]  # six batches through three pairs of buffers
    found = np.concatenate([wait() for wait in reversed(waits)][::-1])
    assert np.linalg.norm(found - expected) <= (0.05 if fast else 1e-3) * np.linalg.norm(expected)
    assert np.array_equal(runner.start(pixels)(), found)  # more than a batch goes in parts


def test_the_gpu_runner_steps_down_in_mid_run_and_keeps_what_was_under_way(cuda_on_cpu, monkeypatch):
    backbone = load_backbone("test_efficientnet", random_weights=True)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 160, 160, 3), dtype=np.uint8)
    runner = backbones.CudaRunner(backbone, cuda_on_cpu, False, None, 0)
    assert runner.batch in (16, 32)
    runner = backbones.CudaRunner(backbone, cuda_on_cpu, False, 8, 0)
    first = runner.start(pixels[:8])
    model = runner.model

    def full(images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("full")
        return model(images)

    monkeypatch.setattr(runner, "model", full)
    second = runner.start(pixels[8:])
    assert runner.batch == 2
    expected = Encoder(backbone, "cpu", "exact", "torch", batch=4)(pixels)
    found = np.concatenate([first(), second()])
    assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)

    def fuller(images):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(runner, "model", fuller)
    with pytest.raises(VbprError, match="one image does not fit"):
        runner.start(pixels)


def test_the_gpu_runner_frees_its_buffers_when_it_steps_down(cuda_on_cpu, monkeypatch):
    backbone = load_backbone(TINY, random_weights=True)
    runner = backbones.CudaRunner(backbone, cuda_on_cpu, False, 4, 0)
    pixels = np.zeros((4, runner.size, runner.size, 3), np.uint8)
    fetched, waiting = runner.start(pixels), runner.start(pixels)
    expected = fetched()
    buffers = [weakref.ref(slot) for slot in runner.slots]
    model, left = runner.model, []

    def full(images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("full")
        return model(images)

    monkeypatch.setattr(runner, "model", full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append(sum(slot() is not None for slot in buffers)))
    runner.start(pixels)
    assert (len(buffers), left) == (3, [0])
    assert np.array_equal(waiting(), expected)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "FIND was unable to find an engine to execute this computation",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    ],
)
def test_a_gpu_says_in_many_ways_that_its_memory_is_full(words):
    assert backbones.out_of_memory(RuntimeError(words))
    assert not backbones.out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_the_gpu_runner_stops_doubling_at_any_failure_of_more_images(cuda_on_cpu, monkeypatch):
    runner = backbones.CudaRunner(load_backbone(TINY, random_weights=True), cuda_on_cpu, False, 4, 0)

    def some(images):
        if len(images) > 16:
            raise RuntimeError("canUse32BitIndexMath")
        return torch.zeros(len(images), runner.dim)

    def none(images):
        raise RuntimeError("canUse32BitIndexMath")

    monkeypatch.setattr(runner, "model", some)
    assert runner.best_batch(1000) == 16
    monkeypatch.setattr(runner, "model", none)
    with pytest.raises(RuntimeError, match="canUse32"):
        runner.best_batch(1000)


def test_the_gpu_runner_leaves_images_to_decode_beside_a_batch_and_bounds_its_bytes(cuda_on_cpu, monkeypatch):
    runner = backbones.CudaRunner(load_backbone(TINY, random_weights=True), cuda_on_cpu, False, 4, 0)
    clock = [0.0]

    def model(images):  # as long for many as for one: any batch gains
        clock[0] += 1.0
        return torch.zeros(len(images), runner.dim)

    monkeypatch.setattr(runner, "model", model)
    monkeypatch.setattr(backbones.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(backbones.CudaRunner, "LARGEST", 1024)
    assert [runner.best_batch(images) for images in (10, 100, 200, 10**6)] == [16, 32, 64, 1024]
    monkeypatch.setattr(backbones.CudaRunner, "BYTES", 100 * 3 * runner.size**2)
    assert runner.best_batch(10**6) == 64


def test_a_result_of_the_gpu_runner_that_failed_can_be_asked_for_again(cuda_on_cpu, monkeypatch):
    runner = backbones.CudaRunner(load_backbone(TINY, random_weights=True), cuda_on_cpu, False, 4, 0)
    wait = runner.start(np.zeros((4, runner.size, runner.size, 3), np.uint8))

    def lost():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(runner.slots[0].done, "synchronize", lost)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="illegal memory access"):
                wait()
    assert wait().shape == (4, runner.dim)


@pytest.mark.parametrize("set_before", ["conv", "all", "matmul"])
def test_the_gpu_runner_keeps_float32_whole_whatever_a_program_has_set(cuda_on_cpu, monkeypatch, set_before):
    runner = backbones.CudaRunner(load_backbone(TINY, random_weights=True), cuda_on_cpu, False, 4, 0)
    conv, matmul, seen = torch.backends.cudnn.conv, torch.backends.cuda.matmul, []
    place = {"conv": conv, "all": torch.backends, "matmul": matmul}[set_before]
    before = place.fp32_precision, torch.backends.cudnn.benchmark
    monkeypatch.setattr(runner, "model", lambda _: seen.append((conv.fp32_precision, matmul.fp32_precision)))
    try:
        place.fp32_precision = "tf32"
        set_to = conv.fp32_precision, matmul.fp32_precision
        runner.forward(torch.zeros(1))
        assert seen == [("ieee", "ieee")]
        assert (conv.fp32_precision, matmul.fp32_precision) == set_to
    finally:
        place.fp32_precision = before[0]
    assert torch.backends.cudnn.benchmark == before[1]


@pytest.mark.parametrize("compiler", ["there", "missing"])
def test_the_gpu_runner_compiles_for_many_images_where_it_can(cuda_on_cpu, monkeypatch, compiler):
    backbone = load_backbone("test_efficientnet", random_weights=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3), dtype=np.uint8)
    expected = Encoder(backbone, "cpu", "exact", "torch", batch=4)(pixels)

    def missing(graph, inputs):
        raise RuntimeError("no C++ compiler was found")

    torch.compiler.reset()
    compiled = functools.partial(torch.compile, backend="aot_eager" if compiler == "there" else missing)

    def compile_(*given, **how):
        called.append(1)
        return compiled(*given, **how)

    called = []
    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(backbones.CudaRunner, "COMPILE_FROM", 100)
    for images, times in ((99, 0), (100, 1)):
        with (
            pytest.warns(UserWarning, match=r"without torch\.compile")
            if times and compiler == "missing"
            else contextlib.nullcontext()
        ):
            runner = backbones.CudaRunner(backbone, cuda_on_cpu, False, 4, images)
        assert len(called) == times
        found = runner.start(pixels)()
        assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


def test_the_encoder_has_work_while_rows_are_written(tmp_path, number):
    how, source, encoder = Preprocessing(4, 1.0, "bilinear", HALF, HALF), Source(2000), Adder()
    signatures = np.arange(2000, dtype=np.uint64)
    with FeatureStore.create(tmp_path / "f.h5", source.item_ids, signatures, 3, PROVENANCE) as store:
        steps = module.encoded(store, source, encoder, how, store.pending, 2)
        next(steps)
        assert encoder.held == encoder.depth
        assert sum(good + bad for good, bad in steps) == 2000 - 256
