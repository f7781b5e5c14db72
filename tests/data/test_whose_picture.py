"""Whose picture each file is: tables, folders of items, names with suffixes, names that are none of an image."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import write_catalogue
from pictures import encoded, photo
from vbpr import Dataset, VbprError, open_images
from vbpr.data.images.naming import natural
from vbpr.data.images.table import table_of
from vbpr.data.same_ids import suffixed

PAIRS = [("u", "a/1"), ("u", "b"), ("v", "c")]


def put(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def pictures_of(source):
    """Item id -> the content of each of its pictures, in order."""
    if source.pictures is None:
        return {str(item): [source.read(n)] for n, item in enumerate(source.item_ids)}
    every, starts, places = source.pictures.source, source.pictures.starts, source.pictures.places
    found = {
        str(item): [every.read(int(p)) for p in places[starts[n] : starts[n + 1]]]
        for n, item in enumerate(source.item_ids)
    }
    assert [pictures[0] for pictures in found.values()] == [source.read(n) for n in range(len(source))]
    return found


WANTED = {"a/1": [b"1", b"2"], "b": [b"3"], "c": [b"1"]}  # an id with a slash, two pictures, and one that is shared
FILES = {"images/x/1.jpg": b"1", "images/x/2.jpg": b"2", "images/y/1.jpg": b"3", "images/y/idle.jpg": b"4"}
ROWS = [("a/1", "x/2.jpg", 10), ("b", "y/1.jpg", 1), ("a/1", "x/1.jpg", 9), ("c", "x/1.jpg", 1)]


def table(suffix, name=lambda file: file, columns=("item_id", "file", "position")):
    rows = [(item, name(file), at) for item, file, at in ROWS]
    if suffix == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))), sink)
        return sink.getvalue()
    if suffix == "jsonl":
        return "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    text = io.StringIO()
    csv.writer(text, delimiter="\t" if suffix == "tsv" else ",").writerows([columns, *rows])
    return text.getvalue()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    "name",
    [
        lambda file: file,
        lambda file: f"images/{file}",
        lambda file: f"/home/somebody/images/{file}",
        lambda file: f"https://shop.example/images/{file}",
        lambda file: file.replace("/", "\\"),
    ],
    ids=["from images/", "from the folder", "absolute", "address", "Windows"],
)
def test_a_table_says_whose_pictures_files_are(tmp_path, suffix, name):
    put(tmp_path, FILES | {f"images.{suffix}": table(suffix, name)})
    assert pictures_of(open_images(tmp_path)) == WANTED


@pytest.mark.parametrize("columns", [("item_id", "image", "n"), ("asin", "file_name", "n"), ("sku", "image_path", "n")])
def test_the_items_table_names_pictures(tmp_path, columns):
    put(tmp_path, FILES | {"items.csv": table("csv", columns=columns)})
    assert {item: set(found) for item, found in pictures_of(open_images(tmp_path)).items()} == {
        item: set(found) for item, found in WANTED.items()
    }


def test_names_of_files_without_their_folder_or_ending_are_found(tmp_path):
    files = {"images/deep/k0.jpg": b"0", "images/deep/k1.jpg": b"1"}
    for n, end in enumerate(("", ".jpg")):
        put(tmp_path / str(n), files | {"images.csv": f"item_id,file\na,k0{end}\nb,k1{end}\n"})
        assert pictures_of(open_images(tmp_path / str(n))) == {"a": [b"0"], "b": [b"1"]}


def test_a_list_in_a_cell_is_several_pictures(tmp_path):
    rows = pa.table({"item_id": ["a", "b"], "images": [["2.jpg", "1.jpg"], ["3.jpg"]]})
    put(tmp_path, {f"images/{n}.jpg": str(n).encode() for n in (1, 2, 3)})
    pq.write_table(rows, tmp_path / "items.parquet")
    assert pictures_of(open_images(tmp_path)) == {"a": [b"2", b"1"], "b": [b"3"]}
    (tmp_path / "items.parquet").unlink()
    put(tmp_path, {"items.csv": "item_id,images\na,2.jpg|1.jpg\nb,3.jpg\n"})
    assert pictures_of(open_images(tmp_path)) == {"a": [b"2", b"1"], "b": [b"3"]}


def test_metadata_of_hugging_face_s_image_folder(tmp_path):
    lines = [{"file_name": "0001.jpg", "item_id": "a"}, {"file_name": "0002.jpg", "item_id": "b"}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    files = {"0001.jpg": b"1", "0002.jpg": b"2", "metadata.jsonl": text}
    put(tmp_path / "one", files)
    put(tmp_path / "inner", {f"images/train/{name}": content for name, content in files.items()})
    put(tmp_path / "csv", {"images/k.jpg": b"1", "images/metadata.csv": "file_name,item_id\nk.jpg,a\n"})
    assert pictures_of(open_images(tmp_path / "one")) == {"a": [b"1"], "b": [b"2"]}
    assert pictures_of(open_images(tmp_path / "inner")) == {"a": [b"1"], "b": [b"2"]}
    assert pictures_of(open_images(tmp_path / "csv")) == {"a": [b"1"]}


def test_metadata_without_ids_and_addresses_in_the_items_table_leave_names_as_they_are(tmp_path):
    put(tmp_path, {"images/a.jpg": b"1", "images/metadata.csv": "file_name,text\na.jpg,red\n"})
    put(tmp_path, {"items.csv": "item_id,image\na,https://shop.example/81x.jpg\n"})
    assert open_images(tmp_path).item_ids.tolist() == ["a"]


def test_a_table_that_fits_nothing_is_refused_and_one_that_fits_in_part_is_told(tmp_path, capsys):
    put(tmp_path, {"images/1.jpg": b"1", "images/2.jpg": b"2", "images.csv": "item_id,file\na,7.jpg\n"})
    with pytest.raises(VbprError, match=r"none of the 1 file that .*images\.csv names is in"):
        open_images(tmp_path)
    (tmp_path / "images.csv").write_text("item_id,file\na,1.jpg\nb,7.jpg\n")
    assert open_images(tmp_path).item_ids.tolist() == ["a"]
    told = " ".join(capsys.readouterr().err.split())
    assert "1 of the 2 files" in told and "(7.jpg)" in told and "whose 1 image" in told and "(2.jpg)" in told
    (tmp_path / "images.csv").write_text("product,where\na,1.jpg\n")
    with pytest.raises(VbprError, match="has no file column; it has product, where"):
        open_images(tmp_path)


@pytest.mark.parametrize("ids", [["B00A1", "B00A2"], ["7", "8"]])
def test_a_folder_an_item_needs_no_table(tmp_path, ids):
    put(tmp_path, {f"images/{item}/{n}.jpg": f"{item} {n}".encode() for item in ids for n in (10, 2, 1)})
    assert pictures_of(open_images(tmp_path)) == {item: [f"{item} {n}".encode() for n in (1, 2, 10)] for item in ids}


@pytest.mark.parametrize(
    "names",
    [
        ["{}/front.jpg", "{}/back.jpg"],  # names repeat
        ["shelf/{}/1.jpg", "shelf/{}/2.jpg"],
        ["{}/9{}1.jpg", "{}/9{}2.jpg"],  # numbers of their own
    ],
)
def test_folders_are_items_where_the_interactions_say_so(tmp_path, names):
    ids = ["11", "12", "13"]
    files = {f"images/{name.format(item, item)}": name.format(item, item) for item in ids for name in names}
    put(tmp_path, files | {"interactions.csv": "user_id,item_id\n" + "".join(f"u,{item}\n" for item in ids)})
    found = pictures_of(Dataset(tmp_path).images())
    assert {item: len(pictures) for item, pictures in found.items()} == dict.fromkeys(ids, 2)


def test_shelves_are_no_items(tmp_path):
    names = ["010/0108775015.jpg", "010/0108775044.jpg", "011/0110065001.jpg"]
    put(tmp_path, {f"images/{name}": name for name in names})
    assert open_images(tmp_path).item_ids.tolist() == ["0108775015", "0108775044", "0110065001"]


def test_pictures_are_ordered_as_people_number_them():
    assert sorted(["a/10.jpg", "a/2.jpg", "a/b.jpg"], key=natural) == ["a/2.jpg", "a/10.jpg", "a/b.jpg"]


@pytest.mark.parametrize("how", ["folder", "tar", "zip"])
def test_a_file_without_ending_is_told_by_its_content(tmp_path, how):
    made = {"a": encoded(photo()), "b": encoded(photo(), "JPEG"), "c": encoded(photo(), "WEBP"), "README": b"text"}
    write_catalogue(tmp_path / how, made, PAIRS, how)
    if how == "folder":
        for path in list((tmp_path / how / "images").rglob("*.png")):
            path.rename(path.with_suffix(""))
    else:  # as the fixtures name them
        put(tmp_path / how, {f"images/{name}": content for name, content in made.items()})
        next((tmp_path / how).glob("images.*")).unlink()
        pack(tmp_path / how, how)
    source = open_images(tmp_path / how)
    assert source.item_ids.tolist() == ["a", "b", "c"] and source.others == {"no ending": 1}


def pack(folder, how):
    import shutil

    shutil.make_archive(str(folder / "images"), how, folder / "images")
    shutil.rmtree(folder / "images")


def test_what_is_not_named_like_an_image_is_counted_by_ending(tmp_path):
    put(tmp_path, {f"images/i{n}.jpg?width={n}": b"x" for n in range(3)} | {"images/a.heic": b"x"})
    with pytest.raises(VbprError, match=r"4 files, 3 that end in \.jpg\?, 1 that end in \.heic"):
        open_images(tmp_path)
    put(tmp_path, {"images.csv": "item_id,file\n" + "".join(f"i{n},i{n}.jpg?width={n}\n" for n in range(3))})
    assert open_images(tmp_path).item_ids.tolist() == ["i0", "i1", "i2"]


def test_two_images_of_an_item_name_the_cure(tmp_path):
    put(tmp_path, {"images/p/front.jpg": b"1", "images/q/front.jpg": b"2"})
    with pytest.raises(VbprError, match=r"p/front\.jpg and q/front\.jpg are both .* images\.csv \(item_id,file\)"):
        open_images(tmp_path)


def test_suffixes_of_items_that_somebody_took():
    ids = np.array(["i0", "i0_2", "i0-150x150", "i0 (1)", "i1", "i1_2", "i10", "j-1", "j-1-2"])
    found = suffixed(ids, np.array(["i0", "i1_2", "j-1"]))
    assert found == {"i0_2": "i0", "i0-150x150": "i0", "i0 (1)": "i0", "j-1-2": "j-1"}


def test_the_table_that_is_written_is_read_again(tmp_path):
    names = ["i0.jpg", "i0-150x150.jpg", "i0_2.jpg", "i1.jpg", "new.jpg", "new_2.jpg"]
    put(tmp_path, {f"images/{name}": name for name in names} | {"interactions.csv": "user_id,item_id\nu,i0\nu,i1\n"})
    data = Dataset(tmp_path)
    assert [line.split(",")[0] for line in table_of(data, False).splitlines()[1:]] == data.images().item_ids.tolist()
    (tmp_path / "images.csv").write_text(table_of(data, True))
    assert pictures_of(data.images()) == {
        "i0": [b"i0.jpg", b"i0-150x150.jpg", b"i0_2.jpg"],
        "i1": [b"i1.jpg"],
        "new": [b"new.jpg", b"new_2.jpg"],
    }
    assert table_of(data, True) == (tmp_path / "images.csv").read_text()
