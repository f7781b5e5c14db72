"""Nearest items against a brute-force cosine, by item and by photo."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from small import made
from vbpr import Dataset, Factors, FeatureStore, Nearest, VbprError, configure, extract, train
from vbpr.extraction.photos import encode_photo


def cosines(vectors, query):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ (query / np.linalg.norm(query))


@pytest.mark.parametrize("raw", [True, False])
def test_neighbours_are_those_of_brute_force(board_model, board_features, raw):
    near = Nearest.of(board_features if raw else board_model)
    if raw:
        vectors = np.asarray(FeatureStore(board_features).features, np.float64)
        vectors = vectors - vectors.mean(0)
    else:
        vectors = Factors.load(board_model).items.astype(np.float64)
    at = int(np.flatnonzero(near.item_ids == "blue-04")[0])
    expected = cosines(vectors, vectors[at])
    found = near.search(near.query_item("blue-04"), 6, leave_out="blue-04")
    values = [expected[np.flatnonzero(near.item_ids == i)[0]] for i, _ in found]
    np.testing.assert_allclose([s for _, s in found], values, atol=1e-4)
    np.testing.assert_allclose(values, np.sort(np.delete(expected, at))[::-1][:6], atol=1e-4)
    assert "blue-04" not in [i for i, _ in found]


@pytest.mark.parametrize("raw", [True, False])
def test_a_photo_of_the_catalogue_finds_itself(board, board_model, board_features, raw):
    near = Nearest.of(board_features if raw else board_model)
    photo = next((board / "images").glob("*/red-07.png"))
    query = near.query_features(encode_photo(photo, near.backbone))
    best = near.search(query, 3)
    assert max(s for _, s in best) > 0.99
    same = near.query_item("red-07")
    assert float((query @ same.T)[0, 0]) > 0.99


def test_other_weights_and_unusable_photos_are_refused(board_model, tmp_path):
    near = Nearest.of(board_model)
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    with pytest.raises(VbprError, match="not an image"):
        encode_photo(tmp_path / "bad.jpg", near.backbone)
    with pytest.raises(VbprError, match="cannot be read"):
        encode_photo(tmp_path / "none.jpg", near.backbone)
    other = [near.backbone[0] | {"weights_digest": "0" * 32}]
    with pytest.raises(VbprError, match="give those weights with --weights"):
        encode_photo(tmp_path / "bad.jpg", other)
    with pytest.raises(VbprError, match="cannot read a photo"):
        encode_photo(tmp_path / "bad.jpg", [])


def test_unknown_items_suggest_near_ones(board_model):
    with pytest.raises(VbprError, match="did you mean red-07"):
        Nearest.of(board_model).query_item("red-7")


def test_features_that_have_changed_on_the_disk_have_no_neighbours(board_features, tmp_path):
    path = tmp_path / "f.h5"
    data = bytearray(Path(board_features).read_bytes())
    store = FeatureStore(board_features)
    data[store.offsets["features"] + 1] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(VbprError, match=r"f\.h5 has changed since it was written"):
        Nearest.of(path)


def test_weights_from_a_file_are_found_again_and_must_be_the_same(tmp_path):
    weights, other = tmp_path / "w.safetensors", tmp_path / "other.safetensors"
    for seed, path in enumerate((weights, other)):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    data = Dataset.resolve(made() / "data")
    extract(data, "test_resnet", tmp_path / "f.h5", weights=weights, engine="torch")
    train(data, [tmp_path / "f.h5"], configure("visual", dim=4, epochs=1), tmp_path / "m.model.h5")
    photo = made() / "data" / "images" / "item-03.png"
    near = Nearest.of(tmp_path / "f.h5")
    assert near.search(near.query_features(encode_photo(photo, near.backbone)), 1)[0][0] == "item-03"
    recorded = Nearest.of(tmp_path / "m.model.h5").backbone
    assert encode_photo(photo, recorded).shape == (1, FeatureStore(tmp_path / "f.h5").dim)
    moved = weights.rename(tmp_path / "moved.safetensors")
    with pytest.raises(VbprError, match=r"w\.safetensors, which is not there; give that file with --weights"):
        encode_photo(photo, recorded)
    encode_photo(photo, recorded, moved)
    other.rename(weights)
    with pytest.raises(VbprError, match="give those weights with --weights"):
        encode_photo(photo, recorded)


def test_a_photo_goes_through_what_the_features_went_through(board_model, board):
    """Its preprocessing and precision, too; and one file of weights is not of two backbones."""
    recorded, photo = Nearest.of(board_model).backbone[0], next((board / "images").glob("*/red-07.png"))
    exact, fast = (encode_photo(photo, [recorded | {"precision": p}]) for p in ("exact", "fast"))
    assert 0 < np.linalg.norm(fast - exact) < 0.05 * np.linalg.norm(exact)
    with pytest.raises(VbprError, match="the features came from"):
        encode_photo(photo, [recorded | {"preprocessing": recorded["preprocessing"].replace("160 px", "161 px")}])
    with pytest.raises(VbprError, match="here it might be of test_resnet and test_resnet"):
        encode_photo(photo, [recorded, recorded], photo)


def test_weights_take_the_place_of_the_file_that_has_moved(tmp_path):
    """Of a model on two feature files, of which one's weights lie elsewhere now."""
    data, files = Dataset.resolve(made() / "data"), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        weights = tmp_path / f"{seed}.safetensors"
        save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
        files.append(extract(data, "test_resnet", tmp_path / f"{seed}.h5", weights=weights, engine="torch").path)
    train(data, files, configure("visual", dim=4, epochs=1), tmp_path / "m.model.h5")
    recorded, photo = Nearest.of(tmp_path / "m.model.h5").backbone, made() / "data" / "images" / "item-03.png"
    before = encode_photo(photo, recorded)
    moved = (tmp_path / "1.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(VbprError, match="which is not there; give that file with --weights"):
        encode_photo(photo, recorded)
    np.testing.assert_array_equal(encode_photo(photo, recorded, moved), before)
    (tmp_path / "0.safetensors").unlink()
    with pytest.raises(VbprError, match="it might be of test_resnet and test_resnet"):
        encode_photo(photo, recorded, moved)


def test_one_of_each_group_and_none_of_what_is_asked_for(tmp_path, cli, refused):
    """By hand: down the list of cosines, past colours that are there already or asked for."""
    model, table = made() / "small.model.h5", tmp_path / "n.csv"
    factors = Factors.load(model)
    unit = factors.items / np.linalg.norm(factors.items, axis=1, keepdims=True)
    (tmp_path / "ids").write_text("item-04\nitem-11\n")
    words = ["--one-per", "category", "-k", 5]
    assert cli("similar", model, "--items", tmp_path / "ids", *words, "--out", table)[0] == 0
    rows = [line.split(",") for line in table.read_text().replace('"', "").splitlines()[1:]]
    for asked in (4, 11):
        wanted, colours = [], {asked % 3}
        for i in np.argsort(-(unit @ unit[asked])):
            if i % 3 not in colours:
                wanted.append(f"item-{i:02}")
                colours.add(i % 3)
        assert [row[2] for row in rows if row[0] == f"item-{asked:02}"] == wanted
        code, _, err = cli("similar", model, "--item", f"item-{asked:02}", *words, "--json", tmp_path / "j")
        assert code == 0, err
        assert [each["item_id"] for each in json.loads((tmp_path / "j").read_text())["items"]] == wanted
    assert "it has title, category" in refused("similar", model, "--item", "item-04", "--one-per", "product")
