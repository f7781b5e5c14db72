"""The engine that will run is tried before a file is begun: one that differs, fails or dies gives way to torch."""

import importlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TINY, board_items
from vbpr import Dataset, FeatureStore, VbprError, extract, load_backbone
from vbpr.extraction import rehearsal, trial
from vbpr.extraction.engines import ENGINES
from vbpr.extraction.engines.torch_cpu import TorchRunner
from vbpr.extraction.photos import PhotoEncoder
from vbpr.extraction.rehearsal import compiles, outcomes_file
from vbpr.extraction.trial import difference, tried_encoder, two_pictures
from vbpr.networks.prepare import prepare

pytest.importorskip("openvino")
engines_module = importlib.import_module("vbpr.extraction.engines")
CPU = torch.device("cpu")
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
ENDS = "raise SystemExit(3)"


class Wrong(TorchRunner):
    """An engine of another opinion."""

    def run(self, pixels):
        return super().run(pixels) * 1.01


class Fails(TorchRunner):
    """An engine that does not take the network."""

    def __init__(self, *_):
        raise RuntimeError("Not Implemented: dynamic precision")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(rehearsal, "REHEARSE", ENDS)
    return tmp_path / "cache" / "vbpr" / "compiled.json"


def run(board, out, engine="openvino", **options):
    data = Dataset.resolve(board)
    return extract(data, TINY, out, random_weights=True, engine=engine, device="cpu", **options)


@pytest.mark.parametrize(
    ("stand_in", "words"),
    [(Wrong, "openvino differs from float32 by 0.01"), (Fails, "openvino fails (Not Implemented")],
)
def test_an_engine_that_differs_or_fails_gives_way_to_torch(
    board, tmp_path, cache, monkeypatch, capsys, stand_in, words
):
    monkeypatch.setitem(ENGINES, ("openvino", "cpu"), stand_in)
    run(board, tmp_path / "a.h5")
    run(board, tmp_path / "b.h5", "torch")
    a, b = FeatureStore(tmp_path / "a.h5"), FeatureStore(tmp_path / "b.h5")
    assert np.array_equal(a.features[:], b.features[:])
    assert words in a.provenance["fallback"] and "fallback" not in b.provenance
    assert f"{words}" in " ".join(capsys.readouterr().err.split())
    before, pending = (tmp_path / "a.h5").read_bytes(), np.arange(3, 9)
    with FeatureStore.create(tmp_path / "a.h5", *made_of(tmp_path / "a.h5")) as store:
        store._make_pending(pending)
    monkeypatch.delitem(ENGINES, ("openvino", "cpu"))  # a file that torch has begun is not tried again
    monkeypatch.setattr(engines_module, "pick_engine", lambda name, *_: "torch" if name == "torch" else "openvino")
    assert run(board, tmp_path / "a.h5").written == 6 and (tmp_path / "a.h5").read_bytes() == before
    photo = PhotoEncoder([a.provenance], engine="openvino")([next(iter(board_items().values()))])
    assert np.isfinite(photo).all()


def test_a_file_that_is_there_goes_on_with_torch(board, tmp_path, cache, monkeypatch):
    out = tmp_path / "a.h5"
    run(board, out, "torch")
    before = out.read_bytes()
    with FeatureStore.create(out, *made_of(out)) as store:
        store._make_pending(np.arange(3, 9))
    monkeypatch.setitem(ENGINES, ("openvino", "cpu"), Wrong)
    assert run(board, out).written == 6 and out.read_bytes() == before


def made_of(path):
    store = FeatureStore(path)
    return store.item_ids, store.signature, store.dim, store.provenance


def test_torch_s_graph_gives_way_to_the_network_as_it_is(monkeypatch):
    model = load_backbone(TINY, random_weights=True)
    monkeypatch.setitem(ENGINES, ("torch", "cpu"), Wrong)
    encoder, why = tried_encoder(model, CPU, "exact", "torch", 4, 2, board_pixels(model))
    assert type(encoder.runner) is TorchRunner and not isinstance(encoder.runner.model, torch.jit.ScriptModule)
    assert encoder.batch == 4 and why == "torch differs from float32 by 0.01"


def board_pixels(model):
    return np.stack([prepare(image, model.preprocessing) for image in list(board_items().values())[9:11]])


def test_a_converter_that_ends_its_process_is_met_in_another_one_once(board, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(rehearsal, "REHEARSE", DIES)
    run(board, tmp_path / "a.h5")
    words = "openvino ends the process when it compiles this network"
    assert FeatureStore(tmp_path / "a.h5").provenance["fallback"] == words
    monkeypatch.setattr(rehearsal, "REHEARSE", ENDS)
    model = load_backbone(TINY, random_weights=True)
    assert not compiles(model, "exact", None) and cache == outcomes_file()  # remembered
    assert compiles(model, "exact", 4) and compiles(model, "exact", 4)
    cache.write_text("damaged")
    assert compiles(model, "exact", None)
    monkeypatch.setattr(rehearsal, "status_of_child", lambda _: pytest.fail("networks of our own are known"))
    assert compiles(load_backbone("cae", random_weights=True), "exact", None)


def test_a_child_that_somebody_killed_says_nothing_about_the_network(cache, monkeypatch):
    monkeypatch.setattr(rehearsal, "REHEARSE", DIES.replace("SEGV", "KILL"))
    model = load_backbone(TINY, random_weights=True)
    assert not compiles(model, "exact", None)
    monkeypatch.setattr(rehearsal, "REHEARSE", ENDS)
    assert compiles(model, "exact", None)


def test_a_home_that_cannot_be_written_is_no_fault(cache, monkeypatch):
    cache.parent.parent.write_text("a file where the folder would be")
    assert compiles(load_backbone(TINY, random_weights=True), "exact", None)


@pytest.mark.slow
def test_the_child_compiles_the_network_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    loud = (
        f"{rehearsal.REHEARSE}; import sys; open({str(tmp_path / 'ran')!r}, 'w').write(repr('openvino' in sys.modules))"
    )
    monkeypatch.setattr(rehearsal, "REHEARSE", loud)
    assert compiles(load_backbone(TINY, random_weights=True), "exact", None)
    assert (tmp_path / "ran").read_text() == "True"


def test_the_two_pictures_differ_most(catalogue):
    source = Dataset.resolve(catalogue()).images()
    how = load_backbone(TINY, random_weights=True).preprocessing
    a, b = two_pictures(source, how)
    assert difference(a, b) > 20  # a red one and a blue one
    (red,) = two_pictures(Dataset.resolve(catalogue({"red": board_items()["red-00"]}, name="one")).images(), how)
    assert red.shape == a.shape


def test_features_that_are_the_same_for_all_pictures_are_refused_before_the_file_is_begun(board, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "eager", lambda model, pixels: np.ones((len(pixels), model.dim), np.float32))
    with pytest.raises(VbprError, match=r"are the same for different pictures \(untrained: give it weights\)"):
        run(board, tmp_path / "a.h5", "torch")
    assert not (tmp_path / "a.h5").exists()


def test_pictures_that_hardly_differ_may_have_equal_features(catalogue, tmp_path, monkeypatch):
    def grey(value):
        buffer = io.BytesIO()
        pixels = np.full((20, 20, 3), 90, np.uint8)
        pixels[3, 3] = value
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    folder = catalogue({"a": grey(90), "b": grey(100)}, pairs=[("u", "a")])
    monkeypatch.setattr(trial, "NEAR", {"exact": np.inf})
    monkeypatch.setattr(trial, "eager", lambda model, pixels: np.ones((len(pixels), model.dim), np.float32))
    assert run(folder, tmp_path / "a.h5", "torch").written == 2
