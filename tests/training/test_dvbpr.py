"""DVBPR as published: its sizes, its padding, its loss; and that it learns, resumes, and encodes less when told to."""

import io

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from vbpr.base.errors import VbprError
from vbpr.base.stopping import Stopped
from vbpr.data.images.source import BadImage
from vbpr.data.interactions import Interactions
from vbpr.data.split import Split
from vbpr.networks.pixel_cache import PixelCache
from vbpr.training.configure import configure
from vbpr.training.model import Diverged
from vbpr.training.models.dvbpr import dvbpr
from vbpr.training.models.dvbpr.dvbpr import DVBPR
from vbpr.training.models.dvbpr.network import CNNF, build, dropped, penalised, penalty
from vbpr.training.models.dvbpr.steps import Pictures, plain_step


class Drawn:
    """Pictures in memory: reddish, greenish or bluish squares with noise; one of them may be damaged."""

    name = "drawn"

    def __init__(self, n: int, colours: int = 3, damaged: int = -1) -> None:
        self.item_ids = np.array([f"i{k:03}" for k in range(n)])
        self.encoded = []
        for k in range(n):
            pixels = np.random.default_rng(k).integers(0, 60, (32, 32, 3), np.uint8)
            pixels[..., k % colours] += 180
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            self.encoded.append(buffer.getvalue() if k != damaged else b"\x89PNG broken")

    def __len__(self) -> int:
        return len(self.item_ids)

    def read(self, i: int) -> bytes:
        if not self.encoded[i]:
            raise BadImage("empty file")
        return self.encoded[i]

    def signature(self, i: int) -> int:
        return len(self.encoded[i])


@pytest.fixture(scope="module")
def tastes() -> tuple[Split, Drawn]:
    """30 users who each take pictures of one colour only."""
    images = Drawn(60)
    rng = np.random.default_rng(0)
    pairs = [(f"u{u:02}", f"i{k:03}") for u in range(30) for k in rng.choice(np.arange(u % 3, 60, 3), 8, replace=False)]
    return Split.make(Interactions.of(*zip(*pairs, strict=True)), catalogue=images.item_ids), images


@pytest.fixture
def narrow(monkeypatch):
    """Dense layers of 32 instead of 4,096: Adam on 22 million weights is seconds a step."""
    monkeypatch.setattr("vbpr.training.models.dvbpr.network.WIDE", 32)


SMALL = {"image_size": 32, "batch": 32, "dim": 8, "epochs": 2, "device": "cpu", "precision": "float32"}


def model(tmp_path, **changes) -> DVBPR:
    preset = changes.pop("preset", "default")
    return DVBPR(configure("dvbpr", preset, **{**SMALL, **changes}).changed(identity="x"), tmp_path / "check")


@pytest.mark.parametrize(("k", "parameters"), [(50, 70_573_874), (100, 70_778_724)])
def test_parameter_counts_are_the_published_ones(k, parameters):
    with torch.device("meta"):
        network = CNNF(k)
    assert sum(p.numel() for p in network.parameters()) == parameters
    layers = {name: sum(p.numel() for p in layer.parameters()) for name, layer in network.named_children()}
    assert layers == {
        "conv1": 23_296, "conv2": 409_856, "conv3": 590_080, "conv4": 590_080, "conv5": 590_080,
        "fc1": 51_384_320, "fc2": 16_781_312, "fc3": 4097 * k,
    }  # fmt: skip


def test_the_reports_inception_has_the_published_sizes():
    with torch.device("meta"):
        trunk = timm.create_model("inception_v3", num_classes=0)
        assert sum(p.numel() for p in trunk.parameters()) == 21_785_568
        assert trunk.forward_features(torch.zeros(1, 3, 299, 299)).shape == (1, 2048, 8, 8)
        flat = trunk.forward_features(torch.zeros(1, 3, 224, 224)).flatten(1).shape[1]
    assert flat == 5 * 5 * 2048
    assert sum(p.numel() for p in torch.nn.Linear(flat, 50).parameters()) == 2_560_050


def test_maps_have_the_published_sides():
    with torch.device("meta"):
        network, sides = CNNF(50), []
        for layer in (network.conv1, network.conv2, network.conv3, network.conv5):
            layer.register_forward_hook(lambda _m, _i, out: sides.append(tuple(out.shape[1:])))
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 50)
    assert sides == [(64, 56, 56), (256, 28, 28), (256, 14, 14), (256, 14, 14)]  # the last pool makes 7


def same_conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int) -> torch.Tensor:
    """TensorFlow's SAME by its definition: out = ceil(in / stride), the odd pixel of padding at the end."""
    side, kernel = x.shape[-1], weight.shape[-1]
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    before = total // 2
    padded = F.pad(x, (before, total - before, before, total - before))
    return F.conv2d(padded, weight, bias, stride)


def test_conv1_is_tensorflows_same_and_symmetric_padding_differs():
    torch.manual_seed(0)
    network, x = CNNF(4, 64).double(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    ours = []
    network.conv1.register_forward_hook(lambda _m, _i, out: ours.append(out))
    network(x)
    conv = network.conv1
    assert torch.equal(ours[0], same_conv(x, conv.weight, conv.bias, 4))
    symmetric = F.conv2d(x, conv.weight, conv.bias, 4, padding=4)
    assert symmetric.shape == ours[0].shape and not torch.allclose(symmetric, ours[0])


def test_initial_values():
    network = CNNF(50, 32)
    network.initialise(torch.Generator().manual_seed(0))
    bound = (6 / (25 * 64 + 25 * 256)) ** 0.5  # Xavier: fan in + fan out of conv2
    assert network.conv2.weight.abs().max() <= bound and network.conv2.weight.abs().max() > 0.99 * bound
    assert all((layer.bias == 0).all() for layer in network.children())


def test_loss_is_the_published_sum(narrow, tastes, tmp_path):
    """-sum ln sigma + 1e-3/2 sum_layers |W|^2 + 1/2 sum_batch |theta_u|^2, written out; dropout off."""
    split, images = tastes
    c = configure("dvbpr", **(SMALL | {"batch": 128}))
    network, how = build(c)
    network.initialise(torch.Generator().manual_seed(1))
    network = network.double()
    generator = torch.Generator().manual_seed(3)
    theta = torch.rand(30, 8, dtype=torch.float64)
    pixels = Pictures(tmp_path / "p", images, split, how, torch.device("cpu"))

    class Fixed:
        def draw(self, n):
            g = torch.Generator().manual_seed(5)
            return [torch.randint(top, (n,), generator=g) for top in (30, 60, 60)]

    quiet = lambda x, _generator: network(x.double())  # noqa: E731
    users, ranking, encoded = plain_step(Fixed(), quiet, theta, pixels, generator, c)
    ours = (ranking + penalty(theta[users], penalised(network), c)).item()
    u, i, j = Fixed().draw(128)
    phi = network(pixels(torch.arange(60)).double())
    x = [(theta[u[n]] @ (phi[i[n]].float() - phi[j[n]].float()).double()).item() for n in range(128)]
    wanted = sum(np.log1p(np.exp(-v)) for v in x)
    wanted += 1e-3 / 2 * sum((layer.weight**2).sum().item() for layer in network.children())
    wanted += 1 / 2 * sum(float(theta[n] @ theta[n]) for n in u)
    assert ours == pytest.approx(wanted, rel=1e-5)
    assert encoded == 256


def test_bpr_at_zero():
    """At x = 0 and B = 128 the sum is 128 ln 2, the gradient -1/2 each; x = +-100 stays finite."""

    class Fixed:
        def draw(self, n):
            return torch.arange(n), torch.arange(n), torch.arange(n, 2 * n)

    c, items = configure("dvbpr"), torch.ones(256, 1, dtype=torch.float32)
    phi = torch.zeros(256, 1, requires_grad=True)
    network = lambda x, _generator: phi[: len(x)]  # noqa: E731
    step = lambda theta: plain_step(Fixed(), network, theta, lambda at: items[at], None, c)[1]  # noqa: E731
    loss = step(torch.ones(128, 1))
    loss.backward()
    assert loss.item() == pytest.approx(88.7228, abs=1e-4)
    assert (phi.grad[:128] == -0.5).all() and (phi.grad[128:] == 0.5).all()
    with torch.no_grad():
        phi[:64], phi[64:128] = 1, -1
    assert step(torch.full((128, 1), 100.0)).item() == pytest.approx(6400)


def test_penalty_counts_batch_users_with_repeats():
    c = configure("dvbpr")
    theta = torch.ones(4, 50, requires_grad=True)
    value = penalty(theta[[0, 0, 1]], [], c)
    value.backward()
    assert value.item() == 75
    assert (theta.grad[:, 0] == torch.tensor([2.0, 1.0, 0.0, 0.0])).all()


def test_gradients_agree_with_finite_differences(narrow):
    torch.manual_seed(0)
    network = CNNF(2, 32).double()
    x, theta = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    c = configure("dvbpr")

    def loss() -> torch.Tensor:
        phi = network(x)
        return F.softplus((theta * (phi[2:] - phi[:2])).sum(1)).sum() + penalty(theta, penalised(network), c)

    loss().backward()
    for p in (theta, network.conv1.weight, network.fc3.weight, network.fc3.bias):
        at = tuple(0 for _ in p.shape)
        with torch.no_grad():
            start, e = p[at].item(), 1e-6
            p[at] = start + e
            up = loss().item()
            p[at] = start - e
            down = loss().item()
            p[at] = start
        assert float(p.grad[at]) == pytest.approx((up - down) / (2 * e), rel=1e-5, abs=1e-9)


def test_dropout_halves_and_keeps_the_mean():
    out = dropped(torch.ones(100_000), torch.Generator().manual_seed(0))
    assert set(out.tolist()) == {0.0, 2.0} and float(out.mean()) == pytest.approx(1, abs=0.02)
    assert dropped(out, None) is out


@pytest.mark.slow
def test_it_learns_colours_and_the_efficient_preset_encodes_less(narrow, tastes, tmp_path):
    split, images = tastes
    plain = model(tmp_path, epochs=8, lr=2e-3, reg_users=0.01).fit(split, None, images)
    frugal = model(
        tmp_path, preset="efficient", images_per_step=24, epochs=8, lr=5e-3, reg_users=0.01
    ).fit(split, None, images)  # fmt: skip
    for factors in (plain, frugal):
        seen = np.asarray(factors.seen.todense(), bool)
        scores = factors.users @ factors.items.T
        same = np.arange(30)[:, None] % 3 == np.arange(60)[None, :] % 3
        assert np.mean([scores[u][same[u] & ~seen[u]].mean() > scores[u][~same[u]].mean() for u in range(30)]) > 0.95
    triplets = 8 * (split.train.nnz // 32) * 32
    assert plain.about["encoded"] == 2 * triplets + 8 * 60
    assert frugal.about["encoded"] < plain.about["encoded"] / 1.5


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_vectors(narrow, tastes, tmp_path, monkeypatch):
    split, images = tastes
    whole = model(tmp_path).fit(split, None, images)
    calls = iter(range(1000))

    class Interrupted:
        def __enter__(self):
            return lambda: next(calls) == 6

        def __exit__(self, *_):
            return None

    with monkeypatch.context() as patch:
        patch.setattr("vbpr.training.models.dvbpr.dvbpr.stop_signals", Interrupted)
        with pytest.raises(Stopped, match="step 7"):
            model(tmp_path).fit(split, None, images)
    assert (tmp_path / "check").exists()
    again = model(tmp_path).fit(split, None, images)
    assert np.array_equal(again.users, whole.users) and np.array_equal(again.items, whole.items)
    assert again.about["encoded"] == whole.about["encoded"] and again.about["curve"] == whole.about["curve"]


def test_an_item_without_a_picture_is_grey_not_another_item(tmp_path):
    images = Drawn(6, damaged=2)
    pairs = [(f"u{u}", f"i{k:03}") for u in range(3) for k in range(6)] + [("u0", "i999")]
    split = Split.make(Interactions.of(*zip(*pairs, strict=True)))
    _, how = build(configure("dvbpr", image_size=32))
    pixels = Pictures(tmp_path / "p", images, split, how, torch.device("cpu"))
    assert pixels.pictured.tolist() == [True, True, False, True, True, True, False]
    seen = pixels(torch.arange(7))
    assert (seen[[2, 6]].abs() < 0.01).all() and (seen[3].abs() > 0.1).any()


def test_the_pixel_cache_is_made_once_and_anew_for_other_images(tmp_path):
    _, how = build(configure("dvbpr", image_size=32))
    images = Drawn(5)
    cache = PixelCache.build(tmp_path / "p", images, how)
    for k in range(5):
        assert np.array_equal(cache.rows[k], np.asarray(Image.open(io.BytesIO(images.encoded[k]))))
    images.read = None  # a second run must not decode
    assert np.array_equal(PixelCache.build(tmp_path / "p", images, how).rows, cache.rows)
    (tmp_path / "p.json").write_text("{")  # a damaged mark: decoded anew
    assert np.array_equal(PixelCache.build(tmp_path / "p", Drawn(5), how).rows, cache.rows)
    other = Drawn(6)
    assert len(PixelCache.build(tmp_path / "p", other, how).rows) == 6


def test_without_a_checkpoint_it_leaves_no_pixels(tastes, narrow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = DVBPR(configure("dvbpr", **{**SMALL, "epochs": 1}))
    split, images = tastes
    made.fit(split, None, images)
    assert len(list(tmp_path.rglob("dvbpr.32.nearest.pixels"))) == 1
    del made
    assert not list(tmp_path.iterdir())


def test_needs_pictures_and_a_fitting_size(tastes):
    split, _ = tastes
    with pytest.raises(VbprError, match="pictures"):
        DVBPR(configure("dvbpr")).fit(split, None)
    for size in (100, 2**31 - 32):
        with pytest.raises(VbprError, match="multiple of 32 up to 1024"):
            CNNF(8, size)
    for options, words in (({"dim": 0}, "--dim is 0"), ({"negatives": "in-batch"}, "in-batch")):
        with pytest.raises(VbprError, match=words):  # before any picture is decoded
            DVBPR(configure("dvbpr", **options)).fit(split, None, Drawn(0))
    with pytest.raises(VbprError, match="dvbpr"):
        configure("visual", "efficient")


@pytest.mark.slow
def test_another_network_can_be_tuned_end_to_end(tastes, tmp_path):
    split, images = tastes
    c = {"network": "test_vit", "network_weights": "random", "epochs": 1, "batch": 100}
    factors = model(tmp_path, **c).fit(split, None, images)
    assert factors.items.shape == (60, 8) and factors.about["network"] == "test_vit"


@pytest.mark.slow
def test_training_that_diverges_keeps_the_best_epoch(narrow, tastes, tmp_path, monkeypatch):
    split, images = tastes
    one = model(tmp_path / "one", epochs=2).fit(split, None, images)
    steps, count = split.train.nnz // 32, []

    def broken(theta, weights, c):
        count.append(1)
        return real(theta, weights, c) * (torch.nan if len(count) > 2 * steps else 1)

    real = dvbpr.penalty
    monkeypatch.setattr(dvbpr, "penalty", broken)
    with pytest.raises(Diverged, match="epoch 3 is not finite; lower --lr") as raised:
        model(tmp_path / "two", epochs=5).fit(split, None, images)
    assert raised.value.factors.about["curve"][:2] == one.about["curve"][:2]
    assert np.isfinite(raised.value.factors.items).all()


@pytest.mark.slow
def test_a_vector_that_is_not_finite_ends_it_like_a_loss(narrow, tastes, tmp_path, monkeypatch):
    split, images = tastes
    real, calls = dvbpr.Run.end_epoch, []

    def broken(self, *rest):
        calls.append(1)
        if len(calls) == 3:
            self.theta.data[3, 0] = torch.nan
        return real(self, *rest)

    monkeypatch.setattr(dvbpr.Run, "end_epoch", broken)
    with pytest.raises(Diverged, match="not finite in epoch 3; lower --lr") as raised:
        model(tmp_path, epochs=5).fit(split, None, images)
    assert len(raised.value.factors.about["curve"]) == 2 and np.isfinite(raised.value.factors.users).all()


@pytest.mark.slow
def test_patience_ends_it(narrow, tastes, tmp_path):
    split, images = tastes
    factors = model(tmp_path, epochs=4, lr=0.0, patience=2).fit(split, None, images)
    assert len(factors.about["curve"]) == 3  # nothing gets better after the first
