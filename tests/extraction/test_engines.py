"""Engines: the same features from each, whatever the batch; OpenVINO's graphs rewritten; the CUDA runner on a CPU."""

import contextlib
import functools
import os
import subprocess
import sys
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from conftest import TINY, board_items
from vbpr import VbprError, load_backbone
from vbpr.extraction.engines import Encoder, cuda
from vbpr.extraction.engines.graphs import in_float32, in_halves, pool_later, split_group_norms, tiles
from vbpr.extraction.engines.openvino import OpenvinoRunner
from vbpr.extraction.engines.torch_cpu import TorchRunner
from vbpr.networks.backbone import finish
from vbpr.networks.prepare import Preprocessing, prepare


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("batch", [1, 6, 16])
@pytest.mark.slow
def test_features_do_not_depend_on_batch_or_engine(engine, batch):
    if engine == "openvino":
        pytest.importorskip("openvino")
    backbone = load_backbone(TINY, random_weights=True)
    pixels = np.stack([prepare(data, backbone.preprocessing) for data in board_items().values()])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    with torch.inference_mode():  # the eager network on pixels scaled by hand
        expected = backbone.module((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    found = Encoder(backbone, "cpu", "exact", engine, batch)(pixels)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-3


@pytest.mark.parametrize(("cores", "alone", "pinned"), [(1, True, True), (64, True, False), (1, False, False)])
def test_streams_are_pinned_where_no_other_is_pinned_too(monkeypatch, cores, alone, pinned):
    pytest.importorskip("openvino")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(OpenvinoRunner, "alone", alone)
    runner = Encoder(load_backbone(TINY, random_weights=True), "cpu", engine="openvino", batch=2).runner
    assert runner.requests[0].get_compiled_model().get_property("ENABLE_CPU_PINNING") is pinned


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit.trace's
@pytest.mark.parametrize(
    ("pool", "convolution", "moved"),
    [
        ({}, {}, 1),
        ({"ceil_mode": True}, {}, 1),
        ({"kernel_size": 2, "padding": 0}, {}, 0),  # before it the convolution would have more places
        ({"stride": 2}, {}, 0),
        ({"count_include_pad": False}, {}, 0),  # at the border the weights of the mean differ
        ({}, {"out_channels": 12}, 0),
        ({}, {"kernel_size": 3}, 0),
        ({}, {"padding": 1}, 0),
        ({}, {"stride": 2}, 0),
        ({}, {"groups": 2}, 0),
    ],
)
def test_average_pools_go_behind_convolutions_where_nothing_but_the_time_changes(pool, convolution, moved):
    openvino = pytest.importorskip("openvino")
    model = torch.nn.Sequential(
        torch.nn.AvgPool2d(**{"kernel_size": 3, "stride": 1, "padding": 1} | pool),
        torch.nn.Conv2d(**{"in_channels": 8, "out_channels": 4, "kernel_size": 1} | convolution),
        torch.nn.ReLU(),
    ).eval()
    x = torch.randn(2, 8, 9, 7)
    with torch.inference_mode():
        expected = model(x)
    graph = converted(model, x)
    assert pool_later(graph) == moved
    found = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x.numpy()])[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


class Branches(torch.nn.Module):
    """Two convolutions of one map, joined, pooled and taken further, as InceptionV3 has them."""

    def __init__(self, groups=1, channels=96):
        super().__init__()
        self.a = torch.nn.Conv2d(channels, 64, 3, padding=1)
        self.b = torch.nn.Conv2d(channels, 128, (7, 1), padding=(3, 0), bias=False)
        self.norm = torch.nn.BatchNorm2d(128)
        self.c = torch.nn.Conv2d(192, 128, 3, stride=2, groups=groups)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        joined = torch.cat([self.a(x).relu(), self.norm(self.b(x)).relu()], 1)
        return self.c(torch.nn.functional.max_pool2d(joined, 3, 1)).relu().mean((2, 3))


def converted(model, x):
    import openvino

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated
        return openvino.convert_model(torch.jit.trace(model.eval(), x), input=[x.shape])


def test_products_of_halves_are_those_of_the_whole():
    """To float32's precision on any machine, and on units for bfloat16 where there are some."""
    pytest.importorskip("openvino")
    model, x = Branches(), torch.randn(4, 96, 19, 17) * 3
    graph = converted(model, x)
    halves = in_halves(graph)
    with torch.inference_mode():
        expected = model.double()(x.double()).numpy()
    for kind in ["f32", "bf16"] if tiles() else ["f32"]:
        found, wide = in_a_thread(halves, kind, x)
        assert wide or kind == "f32"
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < 3e-5, kind  # of bfloat16 alone: 3e-3
    found, wide = in_a_thread(graph, "f32", x)
    assert len(graph.outputs) == 1 and not wide
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [TINY, "test_efficientnet", "test_vit"])
def test_torch_s_engine_folds_batch_norms_and_does_not_quietly_run_the_model_as_it_is(name, recwarn):
    model = TorchRunner(load_backbone(name, random_weights=True), fast=False, batch=4).model
    kinds = [node.kind() for node in model.graph.nodes()]
    assert "aten::batch_norm" not in kinds and {"aten::_convolution", "aten::conv2d", "aten::linear"} & set(kinds)
    assert not recwarn.list


@pytest.mark.slow
def test_nothing_of_what_is_encoded_is_reported_to_anyone(tmp_path):
    """OpenVINO would send word of each import and conversion, and leave an identity in the home folder."""
    pytest.importorskip("openvino")
    code = (
        "import sys, numpy as np; from vbpr.networks.registry import load_backbone\n"
        "from vbpr.extraction.engines import Encoder\n"
        f"encode = Encoder(load_backbone({TINY!r}, random_weights=True), 'cpu', engine='openvino', batch=2)\n"
        "encode(np.zeros((2, encode.size, encode.size, 3), np.uint8))\n"
        "print([name for name, module in sys.modules.items() if 'openvino_telemetry' in name and module])"
    )
    nowhere = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=nowhere | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert (done.stdout, sorted(tmp_path.iterdir())) == ("[]\n", [])


def in_a_thread(graph, kind, x):
    """What a graph makes of x, and `in_float32`.

    OpenVINO leaves AMX's tiles in use in the thread that calls it: a signal there then wants more of a stack than the
    one that faulthandler, and so pytest, gives signals in the main thread.
    """

    def run():
        import openvino

        compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": kind})
        return compiled([x.numpy()])[0], in_float32(compiled)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@pytest.mark.parametrize(
    "model",
    [
        Branches(groups=2),
        Branches(channels=8),
        torch.nn.Sequential(Branches(), torch.nn.Linear(128, 8)),
        torch.nn.ReLU(),
    ],
    ids=["groups", "too little to multiply", "another product", "nothing to multiply"],
)
def test_networks_that_stay_whole(model):
    pytest.importorskip("openvino")
    x = torch.randn(1, 8 if getattr(model, "a", None) and model.a.in_channels == 8 else 96, 19, 17)
    assert in_halves(converted(model, x)) is None


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


def backbone_of(module, size=32):
    """A module as a backbone that takes pixels scaled to [-1, 1]."""
    half = (0.5, 0.5, 0.5)
    return finish("made", module, "random", Preprocessing(size, 1.0, "bilinear", half, half))


def eager(backbone, pixels):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    with torch.inference_mode():
        return backbone.module((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()


def noise(n, size=32):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


class Lambda(torch.nn.Module):
    """A convolution in three dimensions over a map's places, as LambdaNetworks have."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, stride=4)
        self.over = torch.nn.Conv3d(1, 4, (3, 3, 1), padding=(1, 1, 0))

    def forward(self, x):
        x = self.first(x).flatten(2).unflatten(2, (8, 8))
        return self.over(x.permute(0, 2, 3, 1)[:, None]).mean((2, 3)).flatten(1)


class Table(torch.nn.Module):
    """A table of positions, resized to the map that it is added to, as naflexvit and hiera have."""

    def __init__(self, **how):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 4, stride=4)
        self.places = torch.nn.Parameter(torch.randn(1, 8, 5, 7))
        self.how = how

    def forward(self, x):
        x = self.first(x)
        how = {"size": x.shape[2:]} | self.how  # of naflexvit, the size comes from the picture
        places = torch.nn.functional.interpolate(self.places, mode="bicubic", antialias=True, **how)
        return (x + places).relu().mean((2, 3))


class Groups(torch.nn.Module):
    """Group normalisation of maps and of rows, with its scale and shift."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 24, 4, stride=4)
        self.norm, self.rows = torch.nn.GroupNorm(6, 24, eps=1e-3), torch.nn.GroupNorm(4, 24)
        for norm in (self.norm, self.rows):
            torch.nn.init.uniform_(norm.weight, 0.5, 2)
            torch.nn.init.normal_(norm.bias)

    def forward(self, x):
        return self.rows(self.norm(self.first(x)).relu().mean(2)).relu().mean(2)


@pytest.mark.parametrize(("engine", "batch"), [("torch", 1), ("torch", 4), ("openvino", 4)])
@pytest.mark.parametrize(
    "kind",
    [
        Lambda,
        Table,
        functools.partial(Table, size=(8, 8)),
        functools.partial(Table, size=None, scale_factor=(1.6, 1.15)),
        Groups,
    ],
)
def test_odd_networks_have_the_same_features_by_every_engine(kind, engine, batch):
    if engine == "openvino":
        pytest.importorskip("openvino")
    torch.manual_seed(0)
    backbone, pixels = backbone_of(kind()), noise(3)
    expected = eager(backbone, pixels)
    found = Encoder(backbone, "cpu", "exact", engine, batch)(pixels)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("groups", [1, 3, 12])
def test_group_norms_are_written_as_simpler_operations(groups):
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    model, x = torch.nn.GroupNorm(groups, 12, eps=1e-2), torch.randn(2, 12, 5, 3) * 3 + 1
    torch.nn.init.normal_(model.weight)
    torch.nn.init.normal_(model.bias)
    with torch.inference_mode():
        expected = model(x).numpy()
    graph = converted(model, x)
    assert split_group_norms(graph) == 1
    assert "GroupNormalization" not in [node.get_type_name() for node in graph.get_ordered_ops()]
    found = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x.numpy()])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_gpu_runner_takes_convolutions_in_three_dimensions(cuda_on_cpu):
    backbone, pixels = backbone_of(Lambda()), noise(3)
    found = cuda.CudaRunner(backbone, False, 4, cuda_on_cpu).start(pixels)()
    assert np.linalg.norm(found - eager(backbone, pixels)) < 1e-5 * np.linalg.norm(found)


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
    monkeypatch.setattr(cuda.CudaRunner, "LARGEST", 32)
    return torch.device("cpu")


@pytest.mark.parametrize("fast", [False, True])
def test_the_gpu_runner_keeps_every_batch_that_is_not_yet_fetched(cuda_on_cpu, fast):
    backbone = load_backbone("test_efficientnet", random_weights=True)
    pixels = np.random.default_rng(0).integers(0, 256, (11, 160, 160, 3), dtype=np.uint8)
    expected = Encoder(backbone, "cpu", "exact", "torch", batch=4)(pixels)
    runner = cuda.CudaRunner(backbone, fast, 2, cuda_on_cpu, 0)
    waits = [runner.start(pixels[a : a + 2]) for a in range(0, 11, 2)]  # six batches through three pairs of buffers
    found = np.concatenate([wait() for wait in reversed(waits)][::-1])
    assert np.linalg.norm(found - expected) <= (0.05 if fast else 1e-3) * np.linalg.norm(expected)
    assert np.array_equal(runner.start(pixels)(), found)  # more than a batch goes in parts


def test_the_gpu_runner_steps_down_in_mid_run_and_keeps_what_was_under_way(cuda_on_cpu, monkeypatch):
    backbone = load_backbone("test_efficientnet", random_weights=True)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 160, 160, 3), dtype=np.uint8)
    runner = cuda.CudaRunner(backbone, False, None, cuda_on_cpu, 0)
    assert runner.batch in (16, 32)
    runner = cuda.CudaRunner(backbone, False, 8, cuda_on_cpu, 0)
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
    runner = cuda.CudaRunner(backbone, False, 4, cuda_on_cpu, 0)
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
    assert cuda.out_of_memory(RuntimeError(words))
    assert not cuda.out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_the_gpu_runner_stops_doubling_at_any_failure_of_more_images(cuda_on_cpu, monkeypatch):
    runner = cuda.CudaRunner(load_backbone(TINY, random_weights=True), False, 4, cuda_on_cpu, 0)

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
    runner = cuda.CudaRunner(load_backbone(TINY, random_weights=True), False, 4, cuda_on_cpu, 0)
    clock = [0.0]

    def model(images):  # as long for many as for one: any batch gains
        clock[0] += 1.0
        return torch.zeros(len(images), runner.dim)

    monkeypatch.setattr(runner, "model", model)
    monkeypatch.setattr(cuda.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cuda.CudaRunner, "LARGEST", 1024)
    assert [runner.best_batch(images) for images in (10, 100, 200, 10**6)] == [16, 32, 64, 1024]
    monkeypatch.setattr(cuda.CudaRunner, "BYTES", 100 * 3 * runner.size**2)
    assert runner.best_batch(10**6) == 64


def test_a_result_of_the_gpu_runner_that_failed_can_be_asked_for_again(cuda_on_cpu, monkeypatch):
    runner = cuda.CudaRunner(load_backbone(TINY, random_weights=True), False, 4, cuda_on_cpu, 0)
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
    runner = cuda.CudaRunner(load_backbone(TINY, random_weights=True), False, 4, cuda_on_cpu, 0)
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
@pytest.mark.slow
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
    monkeypatch.setattr(cuda.CudaRunner, "COMPILE_FROM", 100)
    for images, times in ((99, 0), (100, 1)):
        with (
            pytest.warns(UserWarning, match=r"without torch\.compile")
            if times and compiler == "missing"
            else contextlib.nullcontext()
        ):
            runner = cuda.CudaRunner(backbone, False, 4, cuda_on_cpu, images)
        assert len(called) == times
        found = runner.start(pixels)()
        assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)
