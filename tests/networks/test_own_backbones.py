"""A backbone in a file of one's own: extracted with by name, known by its text, and run where it is named alone."""

import pytest
import safetensors.torch
import torch

from conftest import ROOT
from own_code import forget, written
from vbpr import FeatureStore, VbprError, encode_photo, load_backbone
from vbpr.base import own
from vbpr.extraction.rehearsal import compiles

EYES = (ROOT / "docs" / "examples" / "my_eyes.py").read_text() + '\n\nopen(__file__ + ".runs", "a").write("x")\n'


@pytest.fixture
def eyes(tmp_path, monkeypatch):
    return written(tmp_path, monkeypatch, "eyes.py", EYES)


def test_features_are_made_by_name_and_photos_only_where_it_was_named(eyes, board, cli, refused, tmp_path, monkeypatch):
    words = ("extract", "--backbone", "eyes.py:Patches", "--data", board, "--engine", "torch", "--device", "cpu")
    code, _, error = cli(*words)
    store = FeatureStore("artifacts/eyes.Patches.h5").finished()
    assert code == 0 and store.dim == 96, error
    found = own.load_own("eyes.py:Patches")
    assert store.provenance["own"] == {"name": "Patches", "from": "eyes.py", "digest": found.digest}
    assert found.digest in cli("info", store.path)[1]
    train = ("train", "--features", store.path, "--data", board, "--dim", "4", "--epochs", "1", "--device", "cpu")
    code, _, error = cli(*train, "--out", "m.h5")
    assert code == 0, error
    photo = next((board / "images").rglob("*.png"))
    forget(monkeypatch)
    ran = (tmp_path / "eyes.py.runs").read_text()
    message = refused("similar", "m.h5", "--image", photo)
    assert "a name in a file runs no code; call vbpr.load_backbone('eyes.py:Patches') first" in message
    assert (tmp_path / "eyes.py.runs").read_text() == ran
    load_backbone("eyes.py:Patches")
    seen = encode_photo(photo, [store.provenance])
    assert abs(seen[0] - store.features[store.find([photo.stem])[0]]).max() < 1e-2


def test_another_text_makes_other_features(eyes, board, cli, monkeypatch, tmp_path):
    words = ("extract", "--backbone", "eyes.py:Patches", "--data", board, "--engine", "torch", "--device", "cpu")
    assert cli(*words)[0] == 0
    forget(monkeypatch)
    assert "0 written now" in cli(*words)[1]
    eyes.write_text(EYES.replace("adaptive_avg_pool2d", "adaptive_max_pool2d"))
    forget(monkeypatch)
    code, out, error = cli(*words)
    assert (code, "22 written now" in out) == (0, True) or (code == 2 and "eyes.Patches.h5" in error), out + error


def test_weights_of_a_file_are_loaded_and_tell_it_apart(eyes, tmp_path):
    made = load_backbone("eyes.py:Patches")
    state = {name: torch.ones_like(value) for name, value in made.module.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    loaded = load_backbone("eyes.py:Patches", tmp_path / "w.safetensors")
    assert torch.equal(loaded.module.edges.weight, torch.ones_like(loaded.module.edges.weight))
    random = load_backbone("eyes.py:Patches", random_weights=True)
    assert len({made.digest, loaded.digest, random.digest}) == 3 and random.weights == "random"
    assert made.fingerprint == load_backbone("eyes.py:Patches").fingerprint
    with pytest.raises(VbprError, match="lacks 2 of its 2 tensors"):
        safetensors.torch.save_file({"other": torch.ones(1)}, tmp_path / "x.safetensors")
        load_backbone("eyes.py:Patches", tmp_path / "x.safetensors")


@pytest.mark.slow
def test_openvino_tries_it_in_a_process_of_its_own(eyes, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert compiles(load_backbone("eyes.py:Patches"), "exact", 4)
    assert (tmp_path / "eyes.py.runs").read_text() == "xx"  # here, and in the child
    assert "eyes.py:Patches" in (tmp_path / "cache" / "vbpr" / "compiled.json").read_text()
