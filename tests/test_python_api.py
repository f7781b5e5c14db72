import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy

import vbpr
from conftest import TINY
from small import draw, make_data
from vbpr import VBPR, Dataset, FeatureStore, Interactions, Split, SplitConfig, VbprError, Visual

PAGE = Path(__file__).parents[1] / "docs" / "python-api.md"


def test_the_page_of_the_python_api_runs_and_its_files_hold_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path / "data")
    (tmp_path / "new-images").mkdir()
    draw(tmp_path / "new-images" / "fresh.png", "red", np.random.default_rng(5))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 7
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    factors = vbpr.Factors.load("artifacts/mine.model.h5")
    tensors = safetensors.numpy.load_file("artifacts/mine.safetensors")
    np.testing.assert_array_equal(tensors["users"], factors.users)
    table = pyarrow.parquet.read_table("artifacts/recommendations.parquet").to_pylist()
    mine = [row["item_id"] for row in table if row["user_id"] == str(factors.user_ids[2])]
    assert mine == [str(i) for i in factors.item_ids[factors.recommend(2, 5)[0]]]
    assert names["added"].item_ids == ["fresh"]
    assert "fresh" in vbpr.Factors.load("artifacts/small.model.h5").item_ids


def test_every_model_is_a_class():
    classes = [getattr(vbpr, name) for name, module in vbpr.PUBLIC.items() if module == "training.estimators"]
    assert sorted(each.model for each in classes) == sorted(vbpr.MODELS)
    with pytest.raises(VbprError, match="open_images"):
        vbpr.DVBPR().fit(Interactions.of(["a", "a", "a"], ["x", "y", "z"]))


def test_a_class_fits_its_model(board, board_features):
    pairs = Dataset.resolve(board).interactions()
    for made in (vbpr.CEASE(), vbpr.Popularity(), vbpr.KNN(), vbpr.FeatureALS(factors=2, epochs=2)):
        factors = made.fit(pairs, board_features)
        assert factors.about["model"] == made.model and factors.about["features"]


def test_a_fitted_object_says_that_weights_were_random_and_takes_finished_files_only(board, board_features, tmp_path):
    pairs = Dataset.resolve(board).interactions()
    factors = Visual(dim=8, device="cpu").fit(pairs, board_features)
    assert factors.about["title"] == f"visual (RANDOM weights: {TINY})" and factors.about["features"]
    store = FeatureStore(board_features)
    config = VBPR(device="cpu", epochs=1).fit(pairs, store).about["config"]
    assert config["dim"] == min(store.dim, vbpr.configure("vbpr").dim) and config["epochs"] == 1
    part = tmp_path / "part.h5"
    with FeatureStore.create(part, store.item_ids, store.signature, store.dim, store.provenance) as half:
        half.write(np.arange(5), store.features[:5])
    with pytest.raises(VbprError, match="run vbpr extract again to resume"):
        Visual(dim=8, device="cpu").fit(pairs, part)


def test_a_fitted_object_takes_features_of_its_own_items_only(board, board_features):
    pairs = Dataset.resolve(board).interactions()
    with pytest.raises(VbprError, match="a Split is split already"):
        Visual(dim=8, device="cpu").fit(Split.make(pairs), board_features, SplitConfig(seed=3))
    others = Interactions.of(pairs.user_ids[pairs.users], np.char.add("other-", pairs.item_ids[pairs.items]))
    with pytest.raises(VbprError, match="in the interactions; write both ids alike"):
        Visual(dim=8, device="cpu").fit(others, board_features)
