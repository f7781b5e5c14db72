"""The autoencoder: the published one's sizes and its collapse; the improved one learns, resumes, and is repaired."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image

from conftest import board_items
from vbpr.base.errors import VbprError
from vbpr.base.stopping import Stopped
from vbpr.data.dataset import Dataset
from vbpr.extraction.extract import extract
from vbpr.extraction.own_autoencoder import autoencoder_of
from vbpr.networks.cae import RECIPES, ImprovedEncoder, ReportDecoder, ReportEncoder, identity_of, load_encoder
from vbpr.networks.cae_training import train_autoencoder
from vbpr.networks.registry import load_backbone


class Drawn:
    """Coloured squares on white, a hue an item."""

    name = "drawn"

    def __init__(self, n: int) -> None:
        self.item_ids = np.array([f"i{k:03}" for k in range(n)])
        self.encoded = []
        for k in range(n):
            pixels = np.full((32, 32, 3), 255, np.uint8)
            pixels[6:26, 6:26] = np.random.default_rng(k).integers(0, 200, 3)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            self.encoded.append(buffer.getvalue())

    def __len__(self) -> int:
        return len(self.item_ids)

    def read(self, i: int) -> bytes:
        return self.encoded[i]

    def signature(self, i: int) -> int:
        return len(self.encoded[i])


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_published_sizes():
    encoder, decoder = ReportEncoder(), ReportDecoder()
    assert count(encoder) == 305_107
    assert count(decoder) == 71_875  # trainable; Keras counts the statistics of normalisation as well
    statistics = sum(b.numel() for name, b in decoder.named_buffers() if "running" in name)
    assert count(decoder) + statistics == 72_259
    with torch.inference_mode():
        code = encoder.eval()(torch.zeros(2, 3, 224, 224))
        assert code.shape == (2, 147) and torch.allclose(code.sum(1), torch.ones(2))
        assert decoder.eval()(code).shape == (2, 3, 224, 224)


def test_the_published_maps():
    sides = []
    encoder = ReportEncoder()
    for layer in encoder:
        if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d):
            layer.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    with torch.inference_mode():
        encoder(torch.zeros(1, 3, 224, 224))
    assert sides == [222, 111, 109, 54, 52, 26, 24, 12, 10, 5]


def ranker_loss(codes: torch.Tensor, whole_table: bool, steps: int = 200) -> tuple[float, float]:
    """(last batch loss in sums, largest |x_uij|) of a Dense(50) ranker on frozen codes of 40 users."""
    g = torch.Generator().manual_seed(0)
    users, n, b = 40, len(codes), 128
    theta = (torch.rand(users, 50, generator=g) / 100).requires_grad_()
    head = (torch.randn(50, codes.shape[1], generator=g) * 0.05).requires_grad_()
    adam = torch.optim.Adam([theta, head], 1e-3)
    for _ in range(steps):
        u, i, j = (torch.randint(top, (b,), generator=g) for top in (users, n // 2, n // 2))
        i, j = 2 * i + u % 2, 2 * j + (u + 1) % 2  # even users take even items
        x = (theta[u] * ((codes[i] - codes[j]) @ head.T)).sum(1)
        penalty = theta.square().sum() / 2 if whole_table else 0.01 * theta[u].square().sum() / 2
        loss = F.softplus(-x).sum() + penalty
        adam.zero_grad()
        loss.backward()
        adam.step()
    return loss.item(), x.abs().max().item()


@pytest.mark.slow
def test_the_reports_recipe_collapses_and_the_improved_one_does_not():
    """Softmax codes of near 1/147 under lambda_u = 1 on the whole table: every score goes to 0 and the
    loss to between B ln 2 and 1 + B ln 2. Standardised linear codes with a penalty of batch rows stay below it."""
    pixels = torch.full((24, 3, 224, 224), 1.0)
    for k in range(24):
        pixels[k, k % 2, 60:160, 60:160] = -1.0  # even and odd items differ in colour
    torch.manual_seed(0)
    with torch.inference_mode():
        published = ReportEncoder().eval()(pixels).clone()
        improved = ImprovedEncoder(64).eval()(F.interpolate(pixels, size=64)).clone()
    assert (published - 1 / 147).abs().max() < 1e-3  # nearly the same for every picture
    floor = 128 * np.log(2)
    loss, largest = ranker_loss(published, whole_table=True)
    assert floor - 0.01 <= loss <= 1 + floor and largest < 1e-3
    standard = (improved - improved.mean(0)) / improved.std(0).clamp(min=1e-6)
    assert ranker_loss(standard, whole_table=False)[0] < 0.5 * floor


@pytest.mark.slow
def test_it_learns_and_is_loaded_as_a_backbone(tmp_path):
    source = Drawn(120)
    path = train_autoencoder(source, tmp_path / "cae.safetensors", epochs=6, image_size=32)
    made = identity_of(path)
    assert made == {"recipe": "improved", "size": 32, "epochs": 6, "seed": 0}
    backbone = load_backbone("cae", path)
    assert (
        backbone.preprocessing.size == 32
        and backbone.dim == 256 + 2 * sum(ImprovedEncoder.widths) + 4 * ImprovedEncoder.widths[3]
    )
    picture = np.asarray(Image.open(tmp_path / "cae.png"), float)
    assert picture.shape == (64, 32 * 6, 3)  # six images are held out
    flat = np.abs(picture[:32] - picture[:32].mean()).mean()
    assert np.abs(picture[:32] - picture[32:]).mean() < 0.5 * flat
    stamp = path.stat().st_mtime_ns
    train_autoencoder(Drawn(130), path, epochs=6, image_size=32)
    assert path.stat().st_mtime_ns == stamp  # images were added: the weights stay
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_feature_file_keeps_the_autoencoder_that_it_was_made_with(catalogue, tmp_path):
    data, out = Dataset.resolve(catalogue()), tmp_path / "shop.hdf5"
    weights = autoencoder_of(out)

    def run(epochs=1, **options):
        cae = {"recipe": "improved", "epochs": epochs, "image_size": 32}
        return extract(data, "cae", out, engine="torch", device="cpu", cae=cae, **options)

    run()
    before, features = weights.read_bytes(), out.read_bytes()
    with pytest.raises(
        VbprError, match=r"shop\.hdf5 was made with .*epochs 1, .*not with one of .*epochs 2, .*another --out"
    ):
        run(epochs=2)
    assert (weights.read_bytes(), out.read_bytes()) == (before, features)
    (data.path / "images" / "new.png").write_bytes(next((data.path / "images").rglob("red-00.png")).read_bytes())
    moved = tmp_path / "far.safetensors"
    weights.rename(moved)
    with pytest.raises(VbprError, match="which is gone; give it with --weights"):  # before anything is trained
        run()
    assert not weights.exists()
    assert extract(data, "cae", out, weights=moved, engine="torch", device="cpu").written == 1
    out.unlink()
    extract(data, "test_resnet", out, random_weights=True, engine="torch", device="cpu")
    with pytest.raises(VbprError, match=r"was made by test_resnet .*; this run would train an autoencoder"):
        run()
    assert not weights.exists()


def test_how_a_cae_is_trained_is_no_matter_of_other_backbones_and_none_is_a_default(catalogue, tmp_path, monkeypatch):
    data, other, out = Dataset.resolve(catalogue()), tmp_path / "other.h5", tmp_path / "cae.h5"
    extract(data, "test_resnet", other, random_weights=True, engine="torch", device="cpu", cae={"epochs": 3})
    extract(data, "cae", out, engine="torch", device="cpu", cae={"epochs": 1, "image_size": 32, "recipe": None})
    monkeypatch.setattr(
        "vbpr.networks.registry.load_backbone", lambda *_: pytest.fail("a finished file needs no model")
    )
    assert extract(data, "test_resnet", other, random_weights=True).written == 0
    assert extract(data, "cae", out, cae={"epochs": 1, "image_size": 32}).written == 0


def test_a_catalogue_that_grows_keeps_its_autoencoders_seed(catalogue, tmp_path):
    data, out = Dataset.resolve(catalogue()), tmp_path / "cae.h5"
    how = {"epochs": 1, "image_size": 32, "seed": 1}
    extract(data, "cae", out, engine="torch", device="cpu", cae=how)
    Image.new("RGB", (32, 32), "green").save(data.path / "images" / "new.png")
    assert extract(data, "cae", out, engine="torch", device="cpu", cae=how).written == 1
    with pytest.raises(VbprError, match=r"seed 1\), not with one of .*seed 2"):
        Image.new("RGB", (32, 32), "blue").save(data.path / "images" / "newer.png")
        extract(data, "cae", out, engine="torch", device="cpu", cae=how | {"seed": 2})


def test_its_picture_does_not_join_the_catalogue(catalogue):
    data = Dataset.resolve(catalogue())
    with pytest.raises(VbprError, match=r"lies among the images, .* picture cae\.cae\.png .*another folder"):
        extract(data, "cae", data.path / "images" / "cae.h5", engine="torch", device="cpu", cae={"epochs": 1})
    assert len(data.images()) == len(board_items())


@pytest.mark.parametrize("told", [{"size": "abc"}, {"size": None}, {"size": 2**40}, {"recipe": ["improved"]}, []])
def test_forged_words_of_an_autoencoder_are_refused(tmp_path, told):
    path = tmp_path / "x.safetensors"
    whole = told and {"recipe": "improved", "size": 64, "epochs": 1, "seed": 0} | told
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"cae": json.dumps(whole)})
    with pytest.raises(VbprError, match=r"no autoencoder|multiple of 32, up to 1024"):
        load_encoder(path)


def test_weights_of_another_data_set_are_not_taken_for_those_of_this_one(tmp_path):
    path, men, women = tmp_path / "cae.safetensors", Drawn(40), Drawn(40)
    women.encoded = women.encoded[::-1]
    train_autoencoder(men, path, epochs=1, image_size=32, data="/men")
    before = path.read_bytes()
    train_autoencoder(women, path, epochs=1, image_size=32, data="/men")  # its images were changed: that is allowed
    assert path.read_bytes() == before
    train_autoencoder(women, path, epochs=1, image_size=32, data="/women")
    assert path.read_bytes() != before
    assert autoencoder_of(Path("d/x.men")) != autoencoder_of(Path("d/x.women"))
    assert autoencoder_of(Path("d/cae.h5")) == Path("d/cae.cae.safetensors")


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    source, whole, cut = Drawn(80), tmp_path / "a" / "cae.safetensors", tmp_path / "b" / "cae.safetensors"
    train_autoencoder(source, whole, epochs=3, image_size=32)
    calls = iter(range(10_000))

    class Interrupted:
        def __enter__(self):
            return lambda: next(calls) == 20

        def __exit__(self, *_):
            return None

    with monkeypatch.context() as patch:
        patch.setattr("vbpr.networks.cae_training.stop_signals", Interrupted)
        with pytest.raises(Stopped, match="2 finished epochs"):
            train_autoencoder(source, cut, epochs=3, image_size=32)
    assert not cut.exists()
    train_autoencoder(source, cut, epochs=3, image_size=32)
    a, b = (load_backbone("cae", path).digest for path in (whole, cut))
    assert a == b


def test_the_report_recipe_sees_32_images_only(tmp_path, monkeypatch):
    """Its first fault: training never gets beyond the first batch, whatever the catalogue holds."""
    seen = set()
    from vbpr.networks.cae_training import Trainer

    monkeypatch.setattr(Trainer, "learn", lambda self, rows: seen.update(rows.tolist()) or torch.zeros(()))
    monkeypatch.setattr(Trainer, "held_loss", lambda self: 0.0)
    monkeypatch.setattr(Trainer, "draw", lambda self, path: None)
    train_autoencoder(Drawn(100), tmp_path / "cae.safetensors", recipe="report")
    assert len(seen) == 32


def test_improved_loss_weighs_the_garment():
    white, target = torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    target[..., :2, :2] = 0.0
    on_garment, on_background = target.clone(), target.clone()
    on_garment[..., 0, 0] += 0.5
    on_background[..., 3, 3] -= 0.5
    loss = RECIPES["improved"].loss
    assert loss(on_garment, target) == pytest.approx(3 * loss(on_background, target).item())
    assert loss(target, target) == 0 and loss(white, target) > 0


def test_faults_are_said(tmp_path):
    with pytest.raises(VbprError, match="recipe"):
        train_autoencoder(Drawn(20), tmp_path / "x.safetensors", recipe="best")
    with pytest.raises(VbprError, match="224 px"):
        train_autoencoder(Drawn(20), tmp_path / "x.safetensors", recipe="report", image_size=64)
    with pytest.raises(VbprError, match="multiple of 32"):
        train_autoencoder(Drawn(20), tmp_path / "x.safetensors", image_size=50)
    with pytest.raises(VbprError, match="does not exist"):
        load_encoder(tmp_path / "none.safetensors")
    with pytest.raises(VbprError, match="trains them"):
        load_backbone("cae")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(VbprError, match="no autoencoder"):
        load_encoder(tmp_path / "text.safetensors")
    with pytest.raises(VbprError, match="too few"):
        train_autoencoder(Drawn(5), tmp_path / "y.safetensors", image_size=32)
