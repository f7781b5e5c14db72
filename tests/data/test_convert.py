"""Foreign formats become the canonical folder; files that lie, or that carry code, are refused before anything runs."""

import gzip
import importlib.util
import io
import json
import os
import pickle
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import ROOT, run_python
from vbpr.base.errors import VbprError
from vbpr.data.converters import CONVERTERS, canonical, convert
from vbpr.data.converters.canonical import PARTIAL, write_table, write_tar
from vbpr.data.converters.pickles import Span, read_pickle
from vbpr.data.converters.published import PUBLISHED, recognise
from vbpr.data.dataset import Dataset

TOOL = ROOT / "tools" / "make_original.py"
spec = importlib.util.spec_from_file_location("make_original", TOOL)
assert spec is not None and spec.loader is not None
make_original = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_original)

HEADER = 128  # bytes before the pickle in a .npy of six objects


def photo(n: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(n).integers(0, 255, (40, 30, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def event(u: int, i: int) -> dict:
    return {"reviewerID": f"A{u}", "asin": f"B00{i}", "unixReviewTime": 1000 + u, b"productid": i}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Four users, six items: one without an image, one PNG, one without title, text and bytes keys mixed."""
    items = {
        i: {b"asin": b"B00%d" % i, b"title": b"Caf\xc3\xa9, %d" % i, b"categories": [[b"Clothing", b"Shoes"]],
            b"c": np.arange(6) == i, b"imgs": photo(i)}
        for i in range(6)
    }  # fmt: skip
    del items[1][b"imgs"], items[2][b"title"], items[3][b"categories"], items[4][b"c"]
    items[5][b"imgs"] = photo(5, "PNG")
    items[5]["title"] = items[5].pop(b"title").decode()
    parts = [
        {u: [event(u, (u + n) % 6) for n in range(3)] for u in range(4)},
        {u: [event(u, (u + 3) % 6)] for u in range(4)},
        {u: [event(u, (u + 4) % 6)] for u in range(4)},
    ]
    path = tmp_path / "AmazonFashion6ImgPartitioned.npy"
    make_original.write_original(path, parts, items)
    return path


def test_the_fixture_is_what_numpy_reads_as_the_original(original):
    told = np.load(original, allow_pickle=True, encoding="bytes")
    assert told.shape == (6,) and told[4] == 4 and told[5] == 6
    assert {type(key) for key in told[0][0][0]} == {str, bytes}
    assert told[3][0][b"imgs"] == photo(0) and told[3][0][b"c"].tolist() == [True] + [False] * 5


def test_the_reader_agrees_with_pickle(original):
    whole = original.read_bytes()
    ours, theirs = read_pickle(original, whole, HEADER).value, np.load(original, allow_pickle=True, encoding="bytes")
    assert ours[:3] == list(theirs[:3]) and ours[4:] == list(theirs[4:])
    for i in range(6):
        for key, value in theirs[3][i].items():
            mine = ours[3][i][key]
            if isinstance(mine, Span):
                assert whole[mine.offset : mine.offset + mine.length] == value
            elif isinstance(value, np.ndarray):
                assert (mine.value == value).all()
            else:
                assert mine == value


def test_conversion_keeps_interactions_split_items_and_bytes_of_images(original, tmp_path):
    done = convert(original, tmp_path / "out")
    assert done.counts == {
        "users": 4, "items": 6, "interactions": 20, "train": 12, "validation": 4, "test": 4, "images": 5
    }  # fmt: skip
    assert any("B001" in note for note in done.notes)
    assert any("45,184 are published" in note for note in done.notes)
    data = Dataset(tmp_path / "out")
    told = data.interactions()
    assert len(told) == 20 and set(told.splits) == {0, 1, 2} and set(told.times) == {1000, 1001, 1002, 1003}
    items = data.items()
    assert items["title"]["B000"] == "Café, 0" and items["title"]["B002"] == "" and items["title"]["B005"] == "Café, 5"
    assert items["category"]["B000"] == "Shoes" and items["categories"]["B000"] == "Clothing > Shoes"
    assert items["class"]["B003"] == "3" and items["class"]["B004"] == ""
    images = data.images()
    assert images.item_ids.tolist() == ["B000", "B002", "B003", "B004", "B005"]
    assert images.read(0) == photo(0) and images.read(4) == photo(5, "PNG")
    with tarfile.open(tmp_path / "out" / "images.tar") as archive:
        assert archive.getnames()[-1] == "B005.png"


def test_a_finished_conversion_is_left_alone_and_another_source_is_refused(original, tmp_path):
    first = convert(original, tmp_path / "out")
    stamp = (tmp_path / "out" / "images.tar").stat().st_mtime_ns
    assert convert(original, tmp_path / "out") == first
    assert (tmp_path / "out" / "images.tar").stat().st_mtime_ns == stamp
    os.utime(original, (1, 1))
    with pytest.raises(VbprError, match="another file"):
        convert(original, tmp_path / "out")


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 700, 5000])
def test_a_killed_conversion_resumes_to_the_same_bytes(tmp_path, cut):
    images = [(f"B{n}", photo(n)) for n in range(4)]
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    write_tar(tmp_path / "whole", images, 4)
    whole = (tmp_path / "whole" / "images.tar").read_bytes()
    (tmp_path / "cut" / PARTIAL).write_bytes(whole[:cut])
    write_tar(tmp_path / "cut", images, 4)
    assert (tmp_path / "cut" / "images.tar").read_bytes() == whole


def test_a_conversion_that_another_run_finishes_meanwhile_is_whole(tmp_path, monkeypatch):
    """It looked at the unfinished tar before it had the lock, and wrote on where that had ended."""
    images = [(f"B{n}", photo(n)) for n in range(4)]
    for folder in ("whole", "raced"):
        (tmp_path / folder).mkdir()
    write_tar(tmp_path / "whole", images, 4)
    whole = (tmp_path / "whole" / "images.tar").read_bytes()
    (tmp_path / "raced" / PARTIAL).write_bytes(whole[:5000])
    real = canonical.locked

    def late(path):
        monkeypatch.setattr(canonical, "locked", real)
        write_tar(tmp_path / "raced", images, 4)  # the other run
        return real(path)

    monkeypatch.setattr(canonical, "locked", late)
    write_tar(tmp_path / "raced", images, 4)
    assert (tmp_path / "raced" / "images.tar").read_bytes() == whole


def evil(body: bytes) -> bytes:
    """A .npy of six objects with this pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (6,)})
    return buffer.getvalue() + body


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_with_code_is_refused_by_name_before_anything_runs(tmp_path, protocol):
    source, marker = tmp_path / "evil.npy", tmp_path / "ran"
    body = pickle.dumps([Bomb(marker)] * 6, protocol)
    source.write_bytes(evil(body))
    with pytest.raises(VbprError, match=r"posix\.mkdir"):
        convert(source, tmp_path / "out")
    assert not marker.exists() and not (tmp_path / "out").exists()
    pickle.loads(body)  # the oracle: it was live
    assert marker.exists()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
F8 = b"cnumpy\ndtype\nU\x02f8\x85R"


@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x02" + ARRAY + b"(K\x01J\xff\xff\xff\x7f\x85" + F8 + b"\x89U\x08aaaaaaaatb.",  # 16 GB announced, 8 bytes
        b"\x80\x02" + ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + F8 + b"\x89U\x08aaaaaaaatb.",  # a negative shape
        b"\x80\x02" + ARRAY + b"(K\x01K\x01\x85cnumpy\ndtype\nU\x01O\x85R\x89U\x08aaaaaaaatb.",  # bytes as pointers
        b"\x80\x02cnumpy\ndtype\nU\x06(9,9)O\x85R.",  # a type with structure
        b"\x80\x02cnumpy\nndarray\n}U\x0c__setstate__K\x01sb.",  # a state for an allowed name
        b"\x80\x02T\xff\xff\xff\x7fabc.",  # a string of 2 GB in a file of a few bytes
        b"\x80\x02K\x01r\xff\xff\xff\x7fj\xfe\xff\xff\x7f.",  # memo places far apart
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # LONG4
        b"\x80\x02]K\x01a" + b"s" * 9 + b".",
        b"\x80\x02" + b"(" * 100_000,
        b"\x80\x02]" + b"q\x00h\x00a" * 3,  # holds itself, and never stops
        b"\x80\x02Pabc\n.",  # a persistent id
        b"\x80\x02\x82\x01.",  # a registered extension
        b"",
    ],
)
def test_forged_pickles_are_refused(tmp_path, body):
    source = tmp_path / "forged.npy"
    source.write_bytes(evil(body))
    with pytest.raises(VbprError, match=r"forged\.npy"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_truncation_is_refused(original, tmp_path):
    whole, source = original.read_bytes(), tmp_path / "cut.npy"
    for length in [*range(200), *range(200, len(whole), 97), len(whole) - 1]:
        source.write_bytes(whole[:length])
        with pytest.raises(VbprError, match=r"cut\.npy"):
            convert(source, tmp_path / "out")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_never_end_in_anything_but_data_or_a_fault(original, data):
    whole = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(HEADER, min(len(whole) - 1, HEADER + 1500)))] = data.draw(st.integers(0, 255))
    try:
        read_pickle("damaged.npy", bytes(whole), HEADER)
    except VbprError as error:
        assert "damaged.npy" in str(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, i: p[0][0][0].update({b"productid": 99}), "productid"),
        (lambda p, i: p.__setitem__(1, {77: []}), "key 77"),
        (lambda p, i: p[0].__setitem__(0, "text"), "lists"),
        (lambda p, i: i.__setitem__(2, []), "table"),
    ],
)
def test_a_file_of_another_structure_is_refused(tmp_path, change, words):
    parts = [{u: [event(u, u)] for u in range(3)} for _ in range(3)]
    items = {i: {b"asin": b"B00%d" % i} for i in range(3)}
    change(parts, items)
    source = tmp_path / "odd.npy"
    make_original.write_original(source, parts, items)
    with pytest.raises(VbprError, match=words):
        convert(source, tmp_path / "out")


def test_plain_arrays_and_unknown_files_are_refused(tmp_path):
    np.save(tmp_path / "numbers.npy", np.zeros(6))
    with pytest.raises(VbprError, match=r"float64|<f8"):
        convert(tmp_path / "numbers.npy", tmp_path / "out")
    (tmp_path / "a.xyz").touch()
    with pytest.raises(VbprError, match="no converter"):
        convert(tmp_path / "a.xyz", tmp_path / "out")
    with pytest.raises(VbprError, match="does not exist"):
        convert(tmp_path / "none.npy", tmp_path / "out")
    (tmp_path / "b.json").write_text('{"reviewerID": "A", "asin": "B", "unixReviewTime": 1}')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(VbprError, match="not empty"):
        convert(tmp_path / "b.json", tmp_path / "full")


def zipped(path: Path, lines: list[str]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as handle:
        handle.write("\n".join(lines))
    return path


def test_amazon_reviews_in_json_and_in_python_literals(tmp_path):
    source = zipped(
        tmp_path / "reviews_Clothing_5.json.gz",
        [
            json.dumps({"reviewerID": "A1", "asin": "007", "unixReviewTime": 5}),
            str({"reviewerID": "A2", "asin": "008", "unixReviewTime": 6}),
        ],
    )
    zipped(
        tmp_path / "meta_Clothing.json.gz",
        [str({"asin": "007", "title": "It's a hat", "categories": [["Clothing", "Hats"]]}), str({"asin": "999"})],
    )
    assert convert(source, tmp_path / "out").counts == {"users": 2, "items": 2, "interactions": 2}
    data = Dataset(tmp_path / "out")
    assert data.interactions().item_ids.tolist() == ["007", "008"]
    assert data.items()["title"] == {"007": "It's a hat"} and data.items()["category"] == {"007": "Hats"}


def test_a_conversion_that_lacks_a_file_is_made_again(tmp_path):
    review = json.dumps({"reviewerID": "A1", "asin": "007", "unixReviewTime": 5})
    source, out = zipped(tmp_path / "reviews_Hats_5.json.gz", [review]), tmp_path / "out"
    assert any("no meta_ file" in note for note in convert(source, out).notes)
    zipped(tmp_path / "meta_Hats.json.gz", [json.dumps({"asin": "007", "title": "A hat"})])
    assert not any("no meta_ file" in note for note in convert(source, out).notes)
    assert Dataset(out).items()["title"] == {"007": "A hat"}
    (out / "interactions.csv").unlink()
    convert(source, out)
    assert (out / "interactions.csv").exists()


@pytest.mark.parametrize("bad", ["u\ud800", "a\nb", "a\0"])
def test_ids_that_no_table_can_hold_are_refused_with_their_line(tmp_path, bad):
    lines = [{"reviewerID": who, "asin": "007", "unixReviewTime": 5} for who in ("A1", bad)]
    with pytest.raises(VbprError, match=r"line 2: reviewerID .* is no id"):
        convert(zipped(tmp_path / "reviews.json.gz", list(map(json.dumps, lines))), tmp_path / "out")
    for item in (bad, "", None, {"a": 1}, True):
        line = json.dumps({"uid": "u", "lists": {"bought": [item]}})
        with pytest.raises(VbprError, match=r"line 1: .* is no item id"):
            convert(zipped(tmp_path / "tradesy.json.gz", [line]), tmp_path / "out")


@pytest.mark.parametrize(
    ("told", "title", "category"),
    [
        ({"title": None, "imUrl": None, "categories": None}, "", ""),
        ({"title": "A hat", "categories": {"x": 1}}, "A hat", ""),
        ({"categories": 5}, "", ""),
        ({"categories": [{"x": 1}]}, "", ""),
        ({"categories": []}, "", ""),
        ({"categories": [["Clothing", "Hats"]]}, "", "Hats"),
    ],
)
def test_odd_metadata_is_no_title_and_no_category(tmp_path, told, title, category):
    source = zipped(tmp_path / "reviews_X.json.gz", ['{"reviewerID": "A1", "asin": "007", "unixReviewTime": 5}'])
    zipped(tmp_path / "meta_X.json.gz", [json.dumps({"asin": "007"} | told)])
    convert(source, tmp_path / "out")
    items = Dataset(tmp_path / "out").items()
    assert items["title"]["007"] == title and items["category"]["007"] == category and items["image_url"]["007"] == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"[]",
        lambda whole: b"\xff",
        lambda whole: b"[" * 100_000,
        lambda whole: whole.replace(b'"users": 1', b'"users": "one"'),
        lambda whole: whole.replace(b'"users": 1', b'"users": Infinity'),
        lambda whole: whole.replace(b'"counts": {', b'"counts": 1, "x": {'),
        lambda whole: whole.replace(b"notes", b"other"),
    ],
)
def test_a_damaged_mark_is_refused_and_nothing_is_overwritten(cli, tmp_path, change):
    source, out = tmp_path / "reviews_X.json", tmp_path / "out"
    source.write_text('{"reviewerID": "A1", "asin": "007", "unixReviewTime": 5}')
    convert(source, out)
    mark = out / "conversion.json"
    mark.write_bytes(change(mark.read_bytes()))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code, _, said = cli("convert", str(source), str(out))
    assert code == 2 and f"{mark} is damaged" in said and f"delete {out}" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("line", ["__import__('os').mkdir('ran')", "[1]", "(" * 5000, "{'asin': 'B'}", "{'a': 1"])
def test_review_lines_are_never_evaluated(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    good = json.dumps({"reviewerID": "A1", "asin": "007", "unixReviewTime": 5})
    with pytest.raises(VbprError, match="line 2"):
        convert(zipped(tmp_path / "reviews.json.gz", [good, line]), tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_a_truncated_gzip_is_refused(tmp_path):
    reviews = [json.dumps({"reviewerID": f"A{n}", "asin": "007", "unixReviewTime": n}) for n in range(50)]
    whole = zipped(tmp_path / "whole.json.gz", reviews).read_bytes()
    (tmp_path / "cut.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VbprError, match=r"cut\.json\.gz breaks off after line \d+ .*; fetch it again"):
        convert(tmp_path / "cut.json.gz", tmp_path / "out")


def test_tradesy_counts_purchases_and_wishes_once(tmp_path):
    lists = {"bought": ["1", "2"], "want": ["2", "3"], "selling": ["9"], "sold": []}
    source = zipped(tmp_path / "tradesy.json.gz", [str({"uid": "5", "lists": lists})])
    assert convert(source, tmp_path / "out").counts == {"users": 1, "items": 3, "interactions": 3}
    assert CONVERTERS["tradesy"].takes(source)


HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_shards_of_hugging_face_become_a_tar_and_a_table_of_items(tmp_path):
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    features = {"image": {"_type": "Image"}, "category": {"_type": "ClassLabel", "names": ["Shoes", "Hats"]}}
    schema = pa.schema(
        [("image", HUGGING_FACE), ("title", pa.string()), ("category", pa.int64()), ("sizes", pa.list_(pa.string()))],
        metadata={b"huggingface": json.dumps({"info": {"features": features}}).encode()},
    )
    for shard, rows in enumerate(((0, 1, 2), (3, 4))):
        columns = {
            "image": [{"bytes": photo(n, "PNG") if n != 3 else None, "path": f"train/a.{n}.png"} for n in rows],
            "title": [f"Café, {n}" if n else None for n in rows],
            "category": [n % 2 for n in rows],
            "sizes": [["S"] for n in rows],
        }
        pq.write_table(pa.table(columns, schema), folder / f"train-{shard:05}-of-00002.parquet", row_group_size=2)
    for _ in range(2):
        done = convert(tmp_path / "hub", tmp_path / "out")
        assert done.counts == {"items": 5, "images": 4} and any("1 of 5 items" in note for note in done.notes)
    data = Dataset(tmp_path / "out")
    images, items = data.images(), data.items()
    assert images.item_ids.tolist() == ["a.0", "a.1", "a.2", "a.4"]
    assert [images.read(n) for n in range(4)] == [photo(n, "PNG") for n in (0, 1, 2, 4)]
    assert items["title"]["a.3"] == "Café, 3" and items["title"]["a.0"] == ""
    assert items["category"] == {f"a.{n}": ("Shoes", "Hats")[n % 2] for n in range(5)}
    assert set(items) == {"title", "category"}


def test_a_parquet_file_of_bytes_and_ids_is_converted(cli, tmp_path):
    table = pa.table({"Article ID": [7, 8], "photo": [photo(7), photo(8)], "thumbnail": [b"a", b"b"]})
    pq.write_table(table, tmp_path / "shop.parquet")
    code, said, _ = cli("convert", tmp_path / "shop.parquet", tmp_path / "out")
    assert code == 0 and "2 items, 2 images" in said and "interactions.csv" in said
    images = Dataset(tmp_path / "out").images()
    assert images.item_ids.tolist() == ["7", "8"] and images.read(1) == photo(8)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"item_id": ["a"], "title": ["x"]}, "no column of images; it has item_id, title"),
        ({"item_id": ["a"], "front": [b"x"], "back": [b"x"]}, "several columns of bytes (front, back)"),
        ({"name": ["a"], "image": [b"x"]}, "no item_id column; it has name, image"),
        ({"item_id": ["a", "a"], "image": [b"x", b"y"]}, "row 2: item a is there twice"),
        ({"item_id": ["a", None], "image": [b"x", b"y"]}, "row 2: '' is no item id"),
        ({"item_id": ["a", "b/c"], "image": [b"x", b"y"]}, "row 2: 'b/c' is no item id"),
        ({"item_id": ["a"], "image": [b"x"], "Title": ["x"], "title": ["y"]}, "two columns called 'title'"),
        ({"item_id": ["a"], "image": pa.array([None], pa.binary())}, "none of its 1 rows has an image"),
    ],
)
def test_parquet_files_that_are_no_catalogue_are_refused(tmp_path, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(VbprError, match=re.escape(words)):
        convert(tmp_path / "x.parquet", tmp_path / "out")


def test_parquet_shards_that_differ_or_are_cut_short_are_refused(tmp_path):
    table = pa.table({"item_id": ["a"], "image": [photo(1)]})
    pq.write_table(table, tmp_path / "0.parquet")
    pq.write_table(table.append_column("title", [["x"]]), tmp_path / "1.parquet")
    with pytest.raises(VbprError, match=r"1\.parquet has other columns than .*0\.parquet"):
        convert(tmp_path, tmp_path / "out")
    (tmp_path / "1.parquet").write_bytes((tmp_path / "0.parquet").read_bytes()[:-20])
    with pytest.raises(VbprError, match="cannot be read"):
        convert(tmp_path, tmp_path / "out")


def test_published_sets_are_known_by_their_counts():
    for name, p in PUBLISHED.items():
        assert recognise(p.users, p.items, p.interactions) == name
    assert recognise(1, 2, 3) is None


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("none.npy", lambda whole: None, "does not exist; give the downloaded file"),
        ("short.npy", lambda whole: whole[: len(whole) // 2], "cut short|breaks off"),
        ("evil.npy", lambda whole: evil(pickle.dumps([Bomb(Path("ran"))] * 6, 2)), r"names posix\.mkdir"),
        ("data.feather", lambda whole: whole, "no converter knows"),
    ],
)
def test_the_command_says_what_is_wrong_and_exits_with_2(original, cli, tmp_path, monkeypatch, name, make, words):
    monkeypatch.chdir(tmp_path)
    if (content := make(original.read_bytes())) is not None:
        Path(name).write_bytes(content)
    code, _, said = cli("convert", name, "out")
    assert code == 2 and said.startswith("error: ") and name in said and re.search(words, said)
    assert not Path("out").exists() and not Path("ran").exists()


LIMITED = """
import resource, sys
from vbpr.cli import app
import vbpr.data.converters
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20,) * 2)
app(["convert", sys.argv[1], "out"])
"""


@pytest.mark.parametrize("size", [4_000_000, 2**31])  # dicts by the million; or the file itself does not fit
def test_a_conversion_that_runs_out_of_memory_says_so(tmp_path, size):
    path = tmp_path / "large.npy"
    path.write_bytes(evil(b"\x80\x02](" + b"}" * 4_000_000 + b"e."))
    os.truncate(path, max(size, path.stat().st_size))
    done = run_python("-c", LIMITED, "large.npy", 60, cwd=tmp_path)
    assert done.returncode == 2 and "out of memory converting large.npy" in done.stderr, done.stderr


def test_numbers_read_as_pickle_reads_them():
    for value in (0, 255, 256, -1, 2**31 - 1, -(2**31), 2**40, -(2**63), 1.5, True, False, None, "é", b"\xff", (1, 2)):
        for protocol in (2, 4):
            assert read_pickle("x", pickle.dumps(value, protocol)) == value


def test_a_stopped_conversion_with_long_ids_resumes(tmp_path):
    """Names of over 100 bytes have a header of their own in a tar."""
    images = [(f"{'long-' * 30}{n}", photo(n)) for n in range(4)]
    write_tar(tmp_path, images, 4)
    whole = (tmp_path / "images.tar").read_bytes()
    for cut in range(0, len(whole), 700):
        (tmp_path / "images.tar").unlink()
        (tmp_path / PARTIAL).write_bytes(whole[:cut])
        write_tar(tmp_path, images, 4)
        assert (tmp_path / "images.tar").read_bytes() == whole


def test_other_columns_of_parquet_files_do_no_harm(tmp_path):
    columns = {
        "id": pa.array([1e10, 2.0]), "image": [photo(1), photo(2)], "item_id ": ["x", "y"],
        "uuid": pa.array([b"1" * 16, b"2" * 16], pa.binary(16)), "price": [1.5, None],
    }  # fmt: skip
    (tmp_path / "in" / "items.parquet").mkdir(parents=True)  # as Spark writes a table
    pq.write_table(
        pa.table({name: columns[name] for name in columns if name != "item_id "}), tmp_path / "in" / "a.parquet"
    )
    done = convert(tmp_path / "in", tmp_path / "out")
    data = Dataset(tmp_path / "out")
    assert done.counts["images"] == 2 and data.images().item_ids.tolist() == ["10000000000", "2"]
    assert data.items()["price"] == {"10000000000": "1.5", "2": ""} and set(data.items()) == {"price"}
    pq.write_table(pa.table({name: columns[name] for name in ("item_id ", "image", "id")}), tmp_path / "b.parquet")
    convert(tmp_path / "b.parquet", tmp_path / "other")
    assert Dataset(tmp_path / "other").images().item_ids.tolist() == ["x", "y"]


def test_a_title_with_any_end_of_line_is_read_as_it_was_written(tmp_path):
    titles = ["a\rb", "a\nb", "a\r\nb", 'a "b", c']
    write_table(tmp_path / "items.csv", {"item_id": list("abcd"), "title": titles})
    assert list(Dataset(tmp_path).items()["title"].values()) == titles
