"""Picture grids: every item in its cell."""

import io

import numpy as np
import pytest
from PIL import Image

from vbpr import Dataset, VbprError
from vbpr.pages.grid import Row, grid, save_grid
from vbpr.pages.lettering import CELL, GAP, LINE, font, wrapped
from vbpr.pages.photos import Photos


def test_each_item_is_in_its_cell(board):
    photos = Photos(Dataset.resolve(board))
    image = np.asarray(grid([Row("colours", ["red-00", "blue-00", "nothing"])], photos), int)
    top = GAP + 2 * LINE + CELL // 2
    centres = [image[top, GAP + n * (CELL + GAP) + CELL // 2] for n in range(3)]
    assert centres[0].argmax() == 0 and centres[1].argmax() == 2
    assert centres[2].tolist() == [0xDD] * 3  # no image: a grey square
    assert photos.titles(["red-00", "nothing"]) == ["red 00", ""]


def test_letters_of_other_alphabets_are_no_boxes():
    if font(20).getname()[0] == "Aileron":
        pytest.skip("no font on this machine: fonts-dejavu-core, for one, runs this")
    pictures = [font(20).getmask(letter) for letter in "üéßжλ"]
    assert len({(picture.size, bytes(picture)) for picture in pictures}) == 5


def test_pictures_without_any_photograph_say_so(board, tmp_path, capsys):
    (tmp_path / "moved").mkdir()
    save_grid(tmp_path / "a.png", [Row("r", ["red-00", "nothing"])], Photos(Dataset.resolve(board)))
    assert "note" not in capsys.readouterr().err
    save_grid(tmp_path / "a.png", [Row("r", ["red-00"])], Photos(Dataset(tmp_path / "moved")))
    told = " ".join(capsys.readouterr().err.split())
    assert "no photograph of any of these items in" in told and "if they have moved, give --data" in told


def test_rows_wrap(board):
    photos = Photos(Dataset.resolve(board))
    ids = [f"red-{n:02}" for n in range(10)]
    one, two = grid([Row("r", ids)], photos), grid([Row("r", ids)], photos, columns=5)
    assert one.width > two.width and one.height < two.height


def test_the_suffix_tells_the_format(board, tmp_path):
    photos = Photos(Dataset.resolve(board))
    for suffix, kind in (("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")):
        save_grid(tmp_path / f"a.{suffix}", [Row("r", ["red-00"])], photos)
        with Image.open(tmp_path / f"a.{suffix}") as image:
            assert image.format == kind
    with pytest.raises(VbprError, match=r"a\.webp: [\d,]+ x [\d,]+ pixels are more than WEBP takes"):
        save_grid(tmp_path / "a.webp", [Row("r", ["red-00"] * 100)], photos, columns=1)
    with pytest.raises(VbprError, match="give a name that ends in"):
        save_grid(tmp_path / "a.svg", [Row("r", ["red-00"])], photos)


@pytest.mark.parametrize(
    ("size", "wanted"), [((8000, 1), (192, 1)), ((1, 8000), (1, 192)), ((30, 40), (144, 192)), ((400, 300), (192, 144))]
)
def test_a_sliver_has_a_thumbnail_and_a_place_in_a_grid(tmp_path, size, wanted):
    (tmp_path / "images").mkdir()
    Image.new("RGB", size, "red").save(tmp_path / "images" / "a.png")
    photos = Photos(Dataset(tmp_path))
    assert Image.open(io.BytesIO(photos.thumbnail("a", 192))).size == wanted
    assert ((np.asarray(grid([Row("x", ["a"])], photos)) == [255, 0, 0]).all(-1)).any()


def test_captions_are_no_wider_than_their_pictures():
    for caption in ("Donaudampfschifffahrtsgesellschaft 0768847001", "WWWWWWWWWWWWWWWWWWWWWWWWWW", "a b", ""):
        lines = wrapped(caption, font(11))
        assert len(lines) <= 3 and all(font(11).getlength(line) <= CELL for line in lines)
    assert wrapped("short", font(11)) == ["short"]


def test_an_item_without_a_photo_says_so(tmp_path):
    (tmp_path / "images").mkdir()
    square = np.asarray(Photos(Dataset(tmp_path)).get("a"))
    assert (square == 0xDD).all(-1).any() and not (square == 0xDD).all()
