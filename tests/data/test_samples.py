"""WebDataset's tars and img2dataset's: whose picture a sample is, is in its json or in the Parquet file beside."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vbpr import Dataset, VbprError, open_images

IDS = ["B00A1", "0108775015", "a/b"]


def tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def img2dataset(folder, ids, name="sku", shards=2, in_json=True):
    """Shards as img2dataset writes them: jpg, txt and json of what was fetched, and all rows in the Parquet file, those
    that failed among them."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        members, rows = {}, []
        for n, item in list(enumerate(ids))[shard::shards]:
            key = f"{shard:05}{n:04}"
            good = n != len(ids) - 1
            row = {"url": f"https://x/{n}", "key": key, "status": "success" if good else "failed_to_download"}
            row |= {"error_message": None if good else "HTTP Error 404", "width": 64 if good else None, name: item}
            rows.append(row)
            if good:
                told = row if in_json else {field: value for field, value in row.items() if field != name}
                members |= {f"{key}.jpg": item.encode() if isinstance(item, str) else b"%d" % item}
                members |= {f"{key}.txt": b"shirt", f"{key}.json": json.dumps(told, indent=4).encode()}
        tar(folder / f"{shard:05}.tar", members)
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05}.parquet")
        (folder / f"{shard:05}_stats.json").write_text("{}")
    return folder


def interactions(folder, ids):
    (folder / "interactions.csv").write_text("user_id,item_id\n" + "".join(f"u,{item}\n" for item in ids))


def content_of(source):
    return {str(item): source.read(n) for n, item in enumerate(source.item_ids)}


@pytest.mark.parametrize("beside", [True, False], ids=["Parquet", "json"])
def test_the_field_is_that_whose_values_the_interactions_have(tmp_path, beside):
    folder = img2dataset(tmp_path / "data", [*IDS, "failed"], "whatever", in_json=not beside)
    if not beside:
        for path in folder.glob("*.parquet"):
            path.unlink()
    interactions(folder, IDS)
    source = Dataset(folder).images()
    assert content_of(source) == {item: item.encode() for item in IDS} and not source.others


def test_the_field_may_be_named_or_be_called_like_an_id(tmp_path):
    folder = img2dataset(tmp_path / "a", [7, 8, 9], "sku")
    assert content_of(open_images(folder)) == {"7": b"7", "8": b"8"}
    assert content_of(open_images(folder / "00000.tar")) == {"7": b"7"}
    other = img2dataset(tmp_path / "b", [7, 8, 9], "code")
    assert open_images(other).item_ids.tolist() == ["000000000", "000010001"]  # by the key: no field is called so
    assert open_images(other, field="code").item_ids.tolist() == ["7", "8"]
    with pytest.raises(VbprError, match=r"--id-field nothing: .* no such field; they have .*code"):
        open_images(other, field="nothing")


def test_keys_that_are_ids_stay(tmp_path):
    members = {}
    for n, item in enumerate(("a", "b")):
        members |= {f"{item}.jpg": item.encode(), f"{item}.json": json.dumps({"item_id": f"x{n}"}).encode()}
    tar(tmp_path / "images.tar", members)
    interactions(tmp_path, ["a", "b"])
    assert content_of(Dataset(tmp_path).images()) == {"a": b"a", "b": b"b"}


def test_several_pictures_of_a_sample_are_of_one_item(tmp_path):
    members = {"k.0.jpg": b"0", "k.1.jpg": b"1", "k.json": b'{"asin": "B1"}', "l.json": b"no json", "l.jpg": b"2"}
    tar(tmp_path / "train-000000.tar", members)
    source = open_images(tmp_path)
    assert source.item_ids.tolist() == ["B1"] and source.read(0) == b"0"
    assert np.diff(source.pictures.starts).tolist() == [2]


def test_a_folder_without_samples_has_no_field(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(VbprError, match="leave --id-field out"):
        open_images(tmp_path, field="sku")
