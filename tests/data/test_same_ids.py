"""One item has one id, in the interactions as in the images and the features."""

import numpy as np
import pytest

from conftest import board_items, board_pairs
from vbpr import Dataset, FeatureStore, VbprError, configure, extract, train
from vbpr.data.same_ids import written_in_two_ways
from vbpr.training.catalogue import prepare

WAYS = [
    lambda n: (f"{108775000 + n}", f"0{108775000 + n}"),
    lambda n: (f"{n + 1}.0", f"{n + 1}"),
    lambda n: (f"b00a{n}", f"B00A{n}"),
    lambda n: (f"sku_{n}", f"SKU-{n}"),
]


def renamed(catalogue, way, share=1.0):
    """The checkerboard with this share of its items written one way in the interactions and another in the images."""
    names = list(board_items())
    apart = {name: way(n) for n, name in enumerate(names)}
    few = set(names[: round(share * len(names))])
    here = {name: apart[name][0] if name in few else name for name in names}
    there = {name: apart[name][1] if name in few else name for name in names}
    pairs = [(user, here[item]) for user, item in board_pairs()]
    return catalogue(images={there[name]: data for name, data in board_items().items()}, pairs=pairs)


@pytest.mark.parametrize("model", ["popularity", "bprmf", "visual"])
@pytest.mark.parametrize("way", WAYS)
def test_no_model_ranks_an_item_twice(catalogue, tmp_path, model, way):
    """Neither where it is but a part of the items."""
    data = Dataset(renamed(catalogue, way, share=0.4))
    here, there = way(0)
    features = []
    if model == "visual":
        with pytest.raises(VbprError, match="written in another way"):
            extract(data, "test_resnet", tmp_path / "f.h5", random_weights=True)
        extract(Dataset(data.path / "images"), "test_resnet", tmp_path / "f.h5", random_weights=True, engine="torch")
        features = [tmp_path / "f.h5"]
    with pytest.raises(VbprError, match=rf"\(here {here}, there {there}\).* two items each; write both ids alike"):
        train(data, features, configure(model), tmp_path / "m.h5")


@pytest.mark.parametrize("model", ["popularity", "bprmf"])
def test_images_of_other_things_are_no_catalogue_of_these_items(catalogue, tmp_path, model):
    data = Dataset(renamed(catalogue, WAYS[0]))
    with pytest.raises(VbprError, match=r"none of the 20 items .* has an image .*here 108775000, there 0108775000"):
        train(data, [], configure(model), tmp_path / "m.h5")


def test_a_few_are_a_note(catalogue, capsys):
    prepare(Dataset(renamed(catalogue, WAYS[0], share=0.06)), [])
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of the 20 items in the interactions are written in another way" in said


def test_ids_that_differ_are_no_twins(board, board_features, capsys):
    ids = [np.array(names) for names in (["a1", "10", "0", "a"], ["a2", "100", "00a", "b"])]
    assert written_in_two_ways(*ids) == [("a", "00a")] and written_in_two_ways(ids[0], ids[0]) == []
    prepare(Dataset(board), [FeatureStore(board_features)])
    assert "another way" not in capsys.readouterr().err


def test_compare_refuses_them_too(catalogue, tmp_path, refused):
    folder = renamed(catalogue, WAYS[0], share=0.4)
    message = refused("compare", "--data", folder, "--models", "popularity", "--out", tmp_path / "c")
    assert "here 108775000, there 0108775000" in message
