"""Features made elsewhere: each kind of file, written by its own library, becomes the same feature file."""

import json
import os
import signal
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from conftest import environment
from vbpr.extraction.importers import IMPORTERS
from vbpr.extraction.importers.importing import import_features
from vbpr.stores.features.store import FeatureStore

N, D = 37, 6
IDS = [f"0{n:02d}é" if n % 5 == 0 else f"0{n:03d}" for n in range(N)]
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


def text_of(ids):
    return "".join(f"{name}\n" for name in ids)


def npy(folder):
    np.save(folder / "x.npy", X)
    (folder / "ids.txt").write_text("\ufeff" + text_of(f" {name}\t" for name in IDS), encoding="utf-8")
    return "x.npy", {"ids": folder / "ids.txt"}


def npy_by_columns(folder):
    np.save(folder / "x.npy", np.asfortranarray(X.reshape(N, 2, 3).astype(">f8")))
    pq.write_table(pa.table({"n": list(range(N)), "article_id": IDS}), folder / "ids.parquet")
    return "x.npy", {"ids": folder / "ids.parquet", "id_column": "article_id"}


def npy_with_a_map(folder):
    """MMRec's: the rows by itemID, in any order."""
    np.save(folder / "image_feat.npy", X)
    order = np.random.default_rng(1).permutation(N)
    lines = [f"{IDS[n]}\t{n}" for n in order]
    (folder / "i_id_mapping.csv").write_text("asin\titemID\n" + text_of(lines), encoding="utf-8")
    return "image_feat.npy", {"ids": folder / "i_id_mapping.csv"}


def npy_with_a_list(folder):
    """LightGCN's: an id, a blank and its number."""
    np.save(folder / "x.npy", X)
    (folder / "item_list.txt").write_text("org_id remap_id\n" + text_of(f"{i} {n}" for n, i in enumerate(IDS)), "utf-8")
    return "x.npy", {"ids": folder / "item_list.txt"}


def npy_with_lines_in_a_csv(folder):
    """No header; and half floats."""
    np.save(folder / "x.npy", X.astype(np.float16))
    (folder / "ids.csv").write_text(text_of(IDS), encoding="utf-8")
    return "x.npy", {"ids": folder / "ids.csv"}


def npz(folder):
    np.savez_compressed(folder / "x.npz", emb=X, names=np.array(IDS), other=np.arange(3))
    return "x.npz", {}


def mcauley(folder):
    ids = [f"B{n:09d}" if n else "B1" for n in range(N)]
    wide = np.zeros((N, 4096), "<f4")
    wide[:, :D] = X
    with (folder / "image_features_W.b").open("wb") as handle:
        for name, row in zip(ids, wide, strict=True):
            handle.write(name.encode().ljust(10, b" ") + row.tobytes())
    return "image_features_W.b", {"expect": (ids, wide)}


def ducho(folder):
    for name, row in zip(IDS, X, strict=True):
        (folder / "emb" / name[:2]).mkdir(parents=True, exist_ok=True)
        np.save(folder / "emb" / name[:2] / f"{name}.npy", row[None])
    return "emb", {}


def clip_retrieval(folder):
    for part, at in enumerate(np.array_split(np.arange(N), 11)):  # 10 comes after 9
        for kind, of in (("img_emb", X), ("text_emb", -X)):
            (folder / "clip" / kind).mkdir(parents=True, exist_ok=True)
            np.save(folder / "clip" / kind / f"{kind}_{part}.npy", of[at].astype(np.float16))
        (folder / "clip" / "metadata").mkdir(exist_ok=True)
        table = pa.table({"caption": ["x"] * len(at), "image_path": [f"/pictures/{IDS[n]}.jpg" for n in at]})
        pq.write_table(table, folder / "clip" / "metadata" / f"metadata_{part}.parquet")
    return "clip", {}


def parquet(folder):
    """Shards with other types of ids and lists, and small row groups."""
    (folder / "shards").mkdir()
    lists = [pa.list_(pa.float32()), pa.list_(pa.float64(), D), pa.large_list(pa.float32()), pa.list_(pa.float16(), D)]
    for part, at in enumerate(np.array_split(np.arange(N), 4)):
        ids = pa.array([IDS[n] for n in at], pa.large_string() if part == 1 else pa.string())
        ids = ids.dictionary_encode() if part == 2 else ids
        table = pa.table(
            {"item_id": ids, "v": pa.array(X[at].astype(np.float16 if part == 3 else float).tolist(), lists[part])}
        )
        pq.write_table(table, folder / "shards" / f"part-{part}.parquet", row_group_size=5)
    return "shards", {}


def parquet_tensor(folder):
    kind = pa.fixed_shape_tensor(pa.float32(), [D])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), D)
    table = pa.table({"box": [[0.0, 1.0]] * N, "id": IDS, "vector": pa.ExtensionArray.from_storage(kind, flat)})
    pq.write_table(table, folder / "x.parquet")
    return "x.parquet", {"column": "vector"}


def safetensors(folder):
    save_file({"emb": X}, folder / "x.safetensors", {"item_ids": json.dumps(IDS)})
    return "x.safetensors", {}


def safetensors_named(folder):
    save_file(dict(zip(IDS, X, strict=True)), folder / "x.safetensors")
    return "x.safetensors", {}


def bfloat16(folder):
    """As torch writes it: the upper halves of float32."""
    halves = (X.view(np.uint32) >> 16).astype("<u2")
    head = json.dumps({"emb": {"dtype": "BF16", "shape": [N, D], "data_offsets": [0, halves.nbytes]}}).encode()
    (folder / "x.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + halves.tobytes())
    (folder / "ids.json").write_text(json.dumps(IDS))
    return "x.safetensors", {
        "ids": folder / "ids.json",
        "expect": (IDS, (halves.astype(np.uint32) << 16).view(np.float32)),
    }


def hdf5(folder):
    with h5py.File(folder / "x.h5", "w") as handle:
        handle.create_dataset("visual/emb", data=X, chunks=(4, D), compression="gzip")
        handle["names"] = IDS
    return "x.h5", {}


def hdf5_named(folder):
    with h5py.File(folder / "x.hdf5", "w") as handle:
        for name, row in zip(IDS, X, strict=True):
            handle[name] = row
    return "x.hdf5", {}


KINDS = {
    "numpy": [npy, npy_by_columns, npy_with_a_map, npy_with_a_list, npy_with_lines_in_a_csv, npz],
    "mcauley": [mcauley],
    "files": [ducho],
    "clip-retrieval": [clip_retrieval],
    "parquet": [parquet, parquet_tensor],
    "safetensors": [safetensors, safetensors_named, bfloat16],
    "hdf5": [hdf5, hdf5_named],
}


def test_every_importer_is_tested():
    assert set(KINDS) == set(IMPORTERS)


@pytest.mark.parametrize("make", [make for makes in KINDS.values() for make in makes], ids=lambda make: make.__name__)
def test_each_kind_becomes_the_rows_that_were_written(tmp_path, make):
    name, options = make(tmp_path)
    ids, rows = options.pop("expect", (IDS, X))
    done = import_features(tmp_path / name, tmp_path / "out.h5", **{k: str(v) for k, v in options.items()})
    store = FeatureStore(tmp_path / "out.h5")
    assert (done.written, done.failures, done.scale) == (N, [], 1.0)
    assert sorted(store.item_ids) == sorted(ids) and store.sealed_rows() == N
    np.testing.assert_array_equal(store.rows(np.array(ids)), rows.astype(np.float16))
    again = import_features(tmp_path / name, tmp_path / "out.h5", **{k: str(v) for k, v in options.items()})
    assert again.written == 0


def made(folder, rows=X, ids=IDS, **options):
    folder.mkdir(exist_ok=True)
    np.save(folder / "x.npy", rows)
    (folder / "ids.txt").write_text(text_of(ids), encoding="utf-8")
    return import_features(folder / "x.npy", folder / "x.h5", ids=str(folder / "ids.txt"), **options)


@pytest.mark.parametrize(("factor", "most"), [(3e7, 65504), (1e-9, 2), (1e30, 65504)])
def test_numbers_that_float16_lacks_are_scaled_by_a_power_of_two_and_so_said(tmp_path, factor, most):
    rows = X.astype(np.float64) * factor
    done = made(tmp_path / "a", rows)
    store = FeatureStore(tmp_path / "a" / "x.h5")
    assert np.log2(done.scale) == int(np.log2(done.scale)) and store.provenance["scale"] == done.scale
    kept = np.asarray(store.features[:], np.float64)
    assert most / 4 <= np.abs(kept).max() <= most
    np.testing.assert_allclose(kept / done.scale, rows, rtol=2**-10, atol=np.abs(rows).max() * 2**-24)
    assert any(f"{done.scale:g}" in note for note in done.notes)


def test_rows_that_are_not_finite_are_left_out_by_name_or_refused(tmp_path, cli, refused):
    rows = X.copy()
    rows[3, 1], rows[8] = np.nan, np.inf
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "x.npy", rows)
    (tmp_path / "ids.txt").write_text(text_of(IDS), encoding="utf-8")
    command = ["import", tmp_path / "x.npy", "--ids", tmp_path / "ids.txt", "--out", tmp_path / "x.h5"]
    assert IDS[3] in refused(*command) and not (tmp_path / "x.h5").exists()
    code, out, _ = cli(*command, "--max-bad", "0.1")
    assert code == 0 and "skipped 2 rows: 2 not finite" in out and f"{IDS[3]}, {IDS[8]}" in out
    store = FeatureStore(tmp_path / "x.h5")
    assert store.failures() == [(IDS[3], "not finite"), (IDS[8], "not finite")] and len(store.done) == N - 2


def test_lists_that_are_missing_or_of_another_length_are_left_out_by_name(tmp_path):
    lists = [None if n == 2 else row[:3].tolist() if n == 9 else row.tolist() for n, row in enumerate(X)]
    pq.write_table(pa.table({"item_id": IDS, "v": pa.array(lists, pa.list_(pa.float32()))}), tmp_path / "x.parquet")
    done = import_features(tmp_path / "x.parquet", tmp_path / "x.h5", max_bad=0.1)
    assert done.failures == [(IDS[2], "no vector"), (IDS[9], "of another width")]
    good = [n for n in range(N) if n not in (2, 9)]
    rows = FeatureStore(tmp_path / "x.h5").rows(np.array(IDS)[good])
    np.testing.assert_array_equal(rows, X[good].astype(np.float16))


def test_an_item_that_comes_twice_is_named_and_the_first_is_taken_where_that_is_wanted(tmp_path):
    ids = [*IDS[:-1], IDS[4]]
    with pytest.raises(Exception, match=f"{IDS[4]} in rows 5, {N}"):
        made(tmp_path / "a", ids=ids)
    done = made(tmp_path / "a", ids=ids, duplicates="first")
    assert done.items == N - 1 and IDS[4] in done.notes[0]
    np.testing.assert_array_equal(FeatureStore(done.path).rows(np.array([IDS[4]]))[0], X[4].astype(np.float16))


def cut(path, size):
    os.truncate(path, path.stat().st_size - size)


def shifted(path):
    data = path.read_bytes()
    path.write_bytes(data[:9] + data[10:] + b"\0")


def numbered(folder):
    """A column of other numbers than the lines', beside the ids and the titles."""
    rows = [f"{name},{(n + 1) % N},title" for n, name in enumerate(IDS)]
    (folder / "ids.csv").write_text("item_id,row,title\n" + text_of(rows), encoding="utf-8")


FAULTS = {
    "numbers of other rows": (npy_with_lines_in_a_csv, numbered, {}, ["column row", "another order"]),
    "no ids": (npy, lambda f: None, {"ids": ""}, ["ids.txt", "--ids numbers"]),
    "an id too many": (npy, lambda f: (f / "ids.txt").write_text(text_of([*IDS, "x"])), {}, ["38 ids", "37 rows"]),
    "no id": (npy, lambda f: (f / "ids.txt").write_text(text_of(["a", "", *IDS[2:]])), {}, ["row 2"]),
    "cut short": (npy, lambda f: cut(f / "x.npy", 5), {}, ["x.npy", "cut short"]),
    "a record cut short": (mcauley, lambda f: cut(f / "image_features_W.b", 100), {}, ["B000000036", "truncate -s"]),
    "a record of another length": (mcauley, lambda f: shifted(f / "image_features_W.b"), {}, ["record 1", "10 bytes"]),
    "a shard without metadata": (
        clip_retrieval,
        lambda f: (f / "clip/metadata/metadata_3.parquet").unlink(),
        {},
        ["10"],
    ),
    "two columns": (parquet_tensor, lambda f: None, {"column": ""}, ["box, vector", "--column"]),
    "an unknown column": (parquet, lambda f: None, {"id_column": "sku"}, ["sku", "item_id"]),
    "cut safetensors": (safetensors, lambda f: cut(f / "x.safetensors", 5), {}, ["cut short"]),
    "too few ids": (npz, lambda f: None, {"id_column": "other"}, ["other"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_right_is_refused_with_its_place_and_the_cure(tmp_path, refused, fault):
    make, spoil, options, words = FAULTS[fault]
    name, told = make(tmp_path)
    spoil(tmp_path)
    told.pop("expect", None)
    given = [word for key, value in (told | options).items() if value for word in (f"--{key.replace('_', '-')}", value)]
    message = refused("import", tmp_path / name, "--out", tmp_path / "out.h5", *given)
    assert all(word in message for word in words), message
    assert not (tmp_path / "out.h5").exists()


def test_programs_are_not_read(tmp_path, refused):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "x.pt").write_bytes(b"PK")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    for name in ("x.npy", "x.npz", "x.pt"):
        refused("import", tmp_path / name, "--ids", "numbers", "--out", tmp_path / "out.h5")


def test_ids_are_compared_with_the_data_set_and_choose_the_column_of_a_map(tmp_path, cli, refused):
    npy_with_a_map(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    pairs = [f"u{n % 4},{n}" for n in range(N + 2)]  # MMRec's interactions have the numbers
    (data / "interactions.csv").write_text("user_id,item_id\n" + text_of(pairs))
    command = ["import", tmp_path / "image_feat.npy", "--data", data, "--out", tmp_path / "x.h5", "--ids"]
    code, out, err = cli(*command, tmp_path / "i_id_mapping.csv")
    assert code == 0, err
    assert "column itemID" in out and f"{N} of {N + 2} items in the interactions of data have a row, 2 not" in out
    store = FeatureStore(tmp_path / "x.h5")
    np.testing.assert_array_equal(store.rows(np.array(["11"]))[0], X[11].astype(np.float16))
    (tmp_path / "ids.txt").write_text(text_of(f"x{n}" for n in range(N)))
    assert "none of the 39 items" in refused(*command, tmp_path / "ids.txt")


CHILD = """
import os, signal, sys
from vbpr.extraction.importers import importing
from vbpr.stores.features.writer import Writer
write, count = Writer.write, 0
def counted(*args):
    global count
    write(*args)
    count += 1
    if count == 2:
        os.kill(os.getpid(), int(sys.argv[1]))
Writer.write = counted
importing.HELD = 8 * 6 * 10
from vbpr.cli import app
app(["import", "x.npy", "--ids", "ids.txt", "--out", sys.argv[2]])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_or_stopped_resumes_to_the_same_file(tmp_path, number):
    made(tmp_path, X * 1e6)
    command = [sys.executable, "-c", CHILD, str(int(number)), "stopped.h5"]
    left = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert left.returncode == (-9 if number == signal.SIGKILL else 130), left.stderr
    store = FeatureStore(tmp_path / "stopped.h5")
    assert len(store.done) == 20
    done = import_features(tmp_path / "x.npy", tmp_path / "stopped.h5", ids=str(tmp_path / "ids.txt"))
    assert done.written == N - 20
    undisturbed = FeatureStore(tmp_path / "x.h5")
    for name in ("features", "state", "signature"):
        np.testing.assert_array_equal(
            getattr(FeatureStore(tmp_path / "stopped.h5"), name)[:], getattr(undisturbed, name)[:]
        )


def test_a_source_that_has_changed_is_read_anew(tmp_path):
    made(tmp_path)
    os.utime(tmp_path / "x.npy", ns=(1, 1))
    os.utime(tmp_path / "ids.txt", ns=(1, 1))
    assert import_features(tmp_path / "x.npy", tmp_path / "x.h5", ids=str(tmp_path / "ids.txt")).written == N


def test_imported_features_are_trained_on_beside_others_and_asked_by_item_not_by_photo(
    board, board_features, tmp_path, cli, refused
):
    """Half of the items have imported features: the others are not for extract to make."""
    ids = FeatureStore(board_features).item_ids
    rows = np.random.default_rng(0).normal(size=(len(ids), 4)) + 5.0 * np.char.startswith(ids, "red")[:, None]
    done = made(tmp_path / "a", rows[::2], ids[::2], data=board)
    alone, both = tmp_path / "alone.model.h5", tmp_path / "both.model.h5"
    train = ["train", "--data", board, "--dim", "4", "--epochs", "2", "--device", "cpu"]
    code, out, err = cli(*train, "--features", done.path, "--out", alone)
    assert code == 0 and "without features" in out, err
    assert cli(*train, "--features", board_features, "--features", done.path, "--out", both)[0] == 0
    for model in (alone, both):
        assert cli("evaluate", model)[0] == 0
        assert cli("similar", model, "--item", ids[0])[0] == 0
    photo = next((board / "images").rglob("*.png"))
    for file in (done.path, alone, both):
        assert "made elsewhere" in refused("similar", file, "--image", photo)
    assert cli("similar", done.path, "--item", ids[0])[0] == cli("index", done.path)[0] == 0
    code, out, _ = cli("info", done.path)
    assert code == 0 and "ids.txt" in out and "made elsewhere" in out
