import shutil

import numpy as np
import pytest

import vbpr.stores.model.factors
from commands import run
from small import draw, made
from vbpr import Factors, Nearest, VbprError, add_items
from vbpr.answers.index_file import index_path
from vbpr.extraction.photos import encode_photo, encode_photos


@pytest.fixture
def model(tmp_path):
    shutil.copy(made() / "small.model.h5", tmp_path / "small.model.h5")
    return tmp_path / "small.model.h5"


@pytest.fixture
def images(tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(made() / "data" / "images" / "item-04.png", tmp_path / "new" / "twin.png")
    draw(tmp_path / "new" / "other.png", "blue", np.random.default_rng(9))
    return tmp_path / "new"


def test_a_new_item_with_a_known_image_gets_the_known_visual_score(model, images):
    before = Factors.load(model)
    done = add_items(model, images)
    after = Factors.load(model)
    assert done.item_ids == ["other", "twin"]
    assert after.item_ids.tolist() == [*before.item_ids.tolist(), "other", "twin"]
    old, new = after.item_index("item-04"), after.item_index("twin")
    np.testing.assert_allclose(after.items[new], after.items[old], rtol=1e-2, atol=1e-2)  # the file holds float16
    np.testing.assert_allclose(after.scores(np.arange(24))[:, new], after.scores(np.arange(24))[:, old], atol=0.02)
    np.testing.assert_array_equal(after.items[:30], before.items)
    np.testing.assert_allclose(after.scores(np.arange(24))[:, :30], before.scores(np.arange(24)), rtol=1e-5)
    np.testing.assert_array_equal(after.train.toarray()[:, :30], before.train.toarray())
    assert after.train.shape == (24, 32)


def test_a_new_item_of_several_pictures_gets_their_mean(model, tmp_path):
    for item, numbers in {"x": (4, 8), "y": (5,)}.items():
        (tmp_path / "views" / item).mkdir(parents=True)
        for place, n in enumerate(numbers):
            shutil.copy(made() / "data" / "images" / f"item-{n:02}.png", tmp_path / "views" / item / f"{place}.png")
    before = Factors.load(model)
    assert add_items(model, tmp_path / "views").item_ids == ["x", "y"]
    after = Factors.load(model)
    paths = [sorted((tmp_path / "views" / item).iterdir()) for item in ("x", "y")]
    photos = [encode_photos(found, before.record.features) for found in paths]
    vectors, _ = before.head(np.stack([photo.mean(0) for photo in photos]))
    np.testing.assert_allclose(after.items[-2:], vectors, rtol=1e-4, atol=1e-5)
    assert not np.allclose(after.items[-2], before.head(photos[0][:1])[0], rtol=1e-2, atol=1e-2)


def test_the_index_is_refreshed_with_the_model(model, images):
    Nearest.of(model, "hnsw").save(index_path(model))
    assert add_items(model, images).index
    near = Nearest.open(model)
    photo = near.query_features(encode_photo(images / "twin.png", near.backbone))
    assert {item for item, _ in near.search(photo, 2)} == {"twin", "item-04"}


def test_known_items_are_skipped_and_counted_or_refused_and_bad_images_named(model, images, capsys):
    shutil.copy(images / "twin.png", images / "item-00.png")
    (images / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (images / "phone.heic").write_bytes(b"")
    kept = model.read_bytes()
    assert run("add-items", model, images, "--duplicates", "refuse") == 2
    assert "item-00" in capsys.readouterr().err and model.read_bytes() == kept
    assert run("add-items", model, images) == 0
    out = capsys.readouterr().out
    assert "2 items added" in out and "1 (item-00)" in out and "broken" in out
    assert "passed over 1 file not named like images (1 .heic)" in out
    (images / "broken.jpg").unlink()
    assert add_items(model, images).item_ids == []
    assert len(Factors.load(model).item_ids) == 32


def test_a_second_run_over_bad_images_ends_as_the_first_did(model, images, capsys):
    for name in ("broken", "worse"):
        (images / f"{name}.jpg").write_bytes(b"\xff\xd8 no")
    assert run("add-items", model, images) == 0
    kept, first = model.read_bytes(), capsys.readouterr().out
    assert run("add-items", model, images) == 0
    second = capsys.readouterr().out
    named = [line for line in first.splitlines() if "skipped 2 images" in line]
    assert named and named[0] in second and "0 items added" in second
    assert model.read_bytes() == kept
    for name in ("twin", "other"):
        (images / f"{name}.png").unlink()
    assert run("add-items", model, images) == 2
    assert "none of the 2 new images" in capsys.readouterr().err


def test_a_fault_while_writing_leaves_the_old_model(model, images, monkeypatch):
    kept = model.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vbpr.stores.model.file, "sums_of", fail)
    with pytest.raises(VbprError, match="No space left"):
        add_items(model, images)
    assert model.read_bytes() == kept and not list(model.parent.glob("*.tmp"))


def test_a_stale_index_is_refused_before_any_work(model, images):
    Nearest.of(model).save(index_path(model))
    shutil.copy(made() / "small.model.h5", model)
    factors = Factors.load(model)
    factors.bias[0] += 1
    factors.save(model)
    with pytest.raises(VbprError, match="not made from"):
        add_items(model, images)


def test_faults_are_of_this_command(model, images, tmp_path):
    with pytest.raises(VbprError, match="does not exist; give IMAGES a folder"):
        add_items(model, tmp_path / "none")
    add_items(model, images)
    with pytest.raises(VbprError, match=r"--weights .*none\.pt is no file"):
        add_items(model, images, weights=tmp_path / "none.pt")  # though nothing is new


def test_folders_of_added_items_are_on_record_wherever_one_stands(model, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add_items(model, "new")
    (tmp_path / "more").mkdir()
    shutil.copy(images / "twin.png", tmp_path / "more" / "third.png")
    add_items(model, "more")
    added = Factors.load(model).about["added"]
    assert added == [
        {"folder": str(tmp_path / "new"), "items": 2},
        {"folder": str(tmp_path / "more"), "items": 1},
    ]
