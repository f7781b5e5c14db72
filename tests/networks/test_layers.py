"""Features of several layers: against hooks on the eager network, by both engines, and on record in the file."""

import numpy as np
import pytest
import torch

from conftest import board_items
from vbpr import Dataset, FeatureStore, VbprError, extract, load_backbone
from vbpr.extraction.engines import Encoder
from vbpr.extraction.photos import PhotoEncoder
from vbpr.extraction.plan import plan
from vbpr.networks.prepare import prepare

TORCH = {"random_weights": True, "engine": "torch", "device": "cpu", "batch": 4}
LAYERS = {  # of a network: what is asked for, and the modules that hooks listen to
    "test_resnet": ("layer3,final,act1", ["layer3", "", "act1"]),
    "test_efficientnet": ("all", ["blocks.0.0", "blocks.1.0", "blocks.2.0", "blocks.3.0", "blocks.4.0", ""]),
    "test_vit": ("blocks.2,blocks.4", ["blocks.2", "blocks.4"]),
}


def by_hooks(backbone, modules, pixels):
    """(n, D) of a network's own modules ("": all of it), each map averaged over its positions by hand."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    seen = {}
    for name in modules:
        backbone.module.get_submodule(name).register_forward_hook(
            lambda _module, _given, made, name=name: seen.__setitem__(name, made)
        )
    with torch.inference_mode():
        backbone.module((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
    columns = []
    for name in modules:
        made = seen[name].double().numpy()
        if made.ndim == 3:  # tokens: those before the positions are left out
            made = made[:, backbone.module.num_prefix_tokens :].mean(1)
        columns.append(made.mean((2, 3)) if made.ndim == 4 else made)
    return np.concatenate(columns, 1)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("network", LAYERS)
def test_layers_are_what_hooks_on_the_network_see(network, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    asked, modules = LAYERS[network]
    backbone, plain = (load_backbone(name, random_weights=True) for name in (f"{network}:{asked}", network))
    pixels = np.stack([prepare(data, backbone.preprocessing) for data in list(board_items().values())[:4]])
    expected = by_hooks(plain, modules, pixels)
    found = Encoder(backbone, "cpu", "exact", engine, 4)(pixels)
    assert found.shape == expected.shape == (4, backbone.dim)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-3
    assert backbone.digest == plain.digest and backbone.fingerprint != plain.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "dim"), [("lite0:blocks.0,final", 16 + 1280), ("inception:Mixed_6e", 768)])
def test_backbones_with_names_of_our_own_have_their_stages(asked, dim):
    assert load_backbone(asked, random_weights=True).dim == dim


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("layer9", r"has no layer 'layer9'; choose from act1, layer1, layer2, layer3, layer4, final, several with"),
        ("layer1,", "has no layer ''"),
        ("layer1,layer1", "gives each layer once"),
    ],
)
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(asked, words):
    with pytest.raises(VbprError, match=words):
        load_backbone(f"test_resnet:{asked}", random_weights=True)


def test_the_autoencoder_has_no_layers(board):
    with pytest.raises(VbprError, match="not for cae"):
        extract(Dataset.resolve(board), "cae", layer="all")


def test_layers_are_on_record_and_another_is_another_file(cli, board, tmp_path):
    path, words = tmp_path / "f.h5", ["extract", "--backbone", "test_resnet", "--random-weights", "--data", board]
    words += ["--engine", "torch", "--device", "cpu", "--out", path]
    code, said, err = cli(*words, "--layer", "layer2,final", "--plan")
    assert code == 0 and "D 144," in said and "test_resnet:layer2,final" in said, err
    assert plan(board, "test_resnet", layer="layer2,final", **TORCH).dim == 48 + 96
    code, _, err = cli(*words, "--layer", "layer2,final")
    assert code == 0, err
    made = FeatureStore(path).provenance
    assert (made["layers"], made["backbone"], made["dim"]) == ("layer2,final", "test_resnet:layer2,final", 144)
    before = path.read_bytes()
    for other in (["--layer", "final,layer2"], ["--layer", "layer2"], []):
        code, _, err = cli(*words, *other)
        assert code == 2 and "Traceback" not in err and path.read_bytes() == before
    done = extract(Dataset.resolve(board), "test_resnet", path, layer="layer2,final", **TORCH)
    assert done.written == 0


def test_a_photo_goes_through_the_same_layers(board, tmp_path):
    extract(Dataset.resolve(board), "test_resnet", tmp_path / "f.h5", layer="layer1,final", **TORCH)
    store = FeatureStore(tmp_path / "f.h5")
    encoder = PhotoEncoder([store.provenance])
    item, photo = next(iter(board_items().items()))
    np.testing.assert_allclose(encoder([photo])[0], store.rows(np.array([item]))[0], rtol=2e-3, atol=2e-3)
