import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

import vbpr.answers.nearest
import vbpr.base.progress
from commands import run
from conftest import PROVENANCE
from small import made
from vbpr import Dataset, Factors, FeatureStore, Nearest, VbprError, configure, extract, train
from vbpr.answers import index_kinds
from vbpr.answers.copies import distinct
from vbpr.answers.index_file import digest_of, index_path
from vbpr.answers.index_kinds import among, build, choose
from vbpr.base.hdf5 import read_strings, read_text, write_text
from vbpr.stores.model.head import unit_rows


def clustered(n=4000, dim=24, seed=0):
    rng = np.random.default_rng(seed)
    return unit_rows(rng.standard_normal((40, dim))[rng.integers(40, size=n)] + 0.5 * rng.standard_normal((n, dim)))


def near_of(vectors, kind):
    index, chosen = build(vectors, kind)
    return Nearest(np.arange(len(vectors)).astype(str), index, [], None, "", **chosen)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivfpq"])
def test_every_kind_finds_what_a_plain_sort_finds_and_states_its_recall(kind):
    vectors = clustered()
    near, queries = near_of(vectors, kind), vectors[:200]
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    found = near.search_many(queries, 10)[0]
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)])
    assert recall >= (1.0 if kind == "flat" else 0.97)
    assert abs(recall - near.recall) < 0.02
    np.testing.assert_allclose(near.rows(np.array([5, 2])), vectors[[5, 2]], atol=2e-3)


def test_two_builds_of_faiss_are_refused(tmp_path, monkeypatch):
    assert vbpr.answers.index_kinds.one_faiss() is None
    for name in ("faiss_cpu", "faiss_gpu_cu12", "faiss_notes"):
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: 1.0\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    vbpr.answers.index_kinds.one_faiss.cache_clear()
    with pytest.raises(VbprError, match=r"faiss-cpu and faiss-gpu-cu12 are both installed.*pip uninstall"):
        build(clustered(20), "flat")


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivfpq"])
@pytest.mark.parametrize("subset", [0, 10**9])
def test_filters_let_nothing_else_through_and_lose_nothing(kind, subset, monkeypatch):
    monkeypatch.setattr(vbpr.answers.nearest, "SUBSET", subset)  # both roads: FAISS's selector, and one by one
    vectors = clustered()
    near, allowed = near_of(vectors, kind), np.random.default_rng(1).random(4000) < 0.3
    found = near.search_many(vectors[:50], 10, allowed)[0]
    assert allowed[found[found >= 0]].all()
    exact = among(vectors[:50], vectors[allowed], np.flatnonzero(allowed), 10)[0]
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)]) > 0.95
    nobody = near.search(vectors[:1], 5, allowed=np.arange(4000) == 17)
    assert [item for item, _ in nobody] in (["17"], [])


def test_the_kind_changes_at_its_limits():
    kinds = [
        choose(*size)[0] for size in ((50_000, 64), (50_001, 64), (4_000_000, 8), (4_000_001, 8), (4_000_000, 2048))
    ]
    assert kinds == ["flat", "hnsw", "hnsw", "ivfpq", "ivfpq"]


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
@pytest.mark.parametrize("wide", [False, True])
def test_identical_items_hide_no_other_and_all_are_answers(kind, wide, monkeypatch):
    """As of a shop where every fifth item shows the same "no photo", and came first."""
    monkeypatch.setattr(index_kinds, "AXES", 20 if wide else 128)
    monkeypatch.setattr(vbpr.answers.nearest, "SUBSET", 0)
    others = clustered(4000)
    others[3000:3010] = others[2000]
    vectors = np.concatenate([np.repeat(clustered(1, seed=5), 1000, 0), others])
    near, rest = near_of(vectors, kind), np.setdiff1d(np.arange(1000, 5000), [3000, *range(4000, 4010)])
    assert near.index.ntotal == 1 + 4000 - 10 and "; 1,009 look exactly like others" in near.reason
    assert near.recall >= 0.99
    itself = near.search_many(near.rows(rest), 1)[0][:, 0]
    assert (itself == rest).mean() > (0.999 if kind == "hnsw" else 0.99)
    np.testing.assert_allclose(near.rows(np.arange(5000)), vectors, atol=2e-3)
    items, scores = near.search_many(vectors[[0, 3000]], 1500)
    assert items[0, :1000].tolist() == list(range(1000)) and (scores[0, :1000] == scores[0, 0]).all()
    assert items[1, :11].tolist() == [3000, *range(4000, 4010)]
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in items)
    allowed = np.arange(5000) % 2 == 1
    items = near.search_many(vectors[[0, 3000]], 600, allowed)[0]
    assert items[0, :500].tolist() == list(range(1, 1000, 2)) and items[1, :5].tolist() == list(range(4001, 4010, 2))
    assert allowed[items[items >= 0]].all()
    new = clustered(1, seed=6)[0]
    more = near.extended(np.array(["a", "b", "c"]), np.stack([vectors[0], new, new]), "x")
    assert more.index.ntotal == near.index.ntotal + 1 and len(more.vectors) == 5003
    assert more.search(vectors[:1], 1001)[-1][0] == "a" and {i for i, _ in more.search(new[None], 2)} == {"b", "c"}
    plain = near_of(others[:2000], kind)
    assert plain.row_of is None and plain.extended(np.array(["b"]), new[None], "x").row_of is None


def test_vectors_are_compared_as_numbers_and_number_by_number():
    rows = np.array([[0, 1], [-0.0, 1], [1, 0], [0, 1], [1, 0], [2, 2]], np.float32)
    firsts, which = distinct(rows)
    assert firsts.tolist() == [0, 2, 5] and which.tolist() == [0, 0, 1, 0, 1, 2]
    firsts, which = distinct(rows[[0, 2, 5]])
    assert firsts.tolist() == which.tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_an_index_with_copies_is_saved_and_one_without_is_as_ever(model, kind):
    factors, path = Factors.load(model), index_path(model)
    near = Nearest.of(model, kind)
    near.save(path)
    with h5py.File(path) as handle:
        assert "row_of" not in handle and near.row_of is None
    items = factors.items.copy()
    items[10:14] = items[3]
    dataclasses.replace(factors, items=items).save(model)
    near = Nearest.of(model, kind)
    near.save(path)
    again = Nearest.open(model, path)
    assert again.kind == kind and again.index.ntotal == 26
    np.testing.assert_array_equal(again.row_of, near.row_of)
    np.testing.assert_array_equal(again.vectors, near.vectors)
    assert {i for i, _ in again.search(again.query_item("item-03"), 5)} == {
        "item-03",
        *(f"item-{n}" for n in range(10, 14)),
    }
    with h5py.File(path, "r+") as handle:
        handle["row_of"][0] = 5
    with pytest.raises(VbprError, match="damaged or was altered"):
        Nearest.open(model)


@pytest.mark.parametrize("n", [1, 5, 12, 15, 16, 60])
def test_too_few_items_for_the_codes_of_ivfpq_are_searched_exactly(n):
    vectors = clustered(n)
    near = near_of(vectors, "ivfpq")
    assert (near.kind, near.recall) == ("flat", 1.0) or (n >= 16 and near.kind == "ivfpq")
    assert n >= 16 or near.reason == f"{n} items: fewer than the 16 that the codes of ivfpq are learnt from"
    assert near.search_many(vectors, 1)[0].ravel().tolist() == list(range(n))


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq", "flat"])
def test_building_shows_progress_unless_it_is_a_copy(kind, monkeypatch, capsys):
    monkeypatch.setattr(index_kinds, "BLOCK", 512)
    monkeypatch.setattr(vbpr.base.progress, "LINE_EVERY", 0)
    about = build(clustered(2000), kind)[1]
    said = capsys.readouterr().err
    assert (
        all(f"index: {n} of 1,800 vectors" in said for n in ("512", "1,024", "1,800")) if kind != "flat" else not said
    )
    assert about["recall"] >= 0.99


def test_blocks_change_nothing_of_lists(monkeypatch):
    import faiss

    vectors, made = clustered(2000), []
    for block in (10**9, 512):
        monkeypatch.setattr(index_kinds, "BLOCK", block)
        made.append(faiss.serialize_index(build(vectors, "ivfpq")[0]))
    np.testing.assert_array_equal(*made)


@pytest.fixture
def model(tmp_path):
    shutil.copy(made() / "small.model.h5", tmp_path / "small.model.h5")
    return tmp_path / "small.model.h5"


def test_a_saved_index_answers_as_before_and_is_not_used_for_another_model(model, capsys):
    Nearest.of(model, "hnsw").save(index_path(model))
    near, exact = Nearest.open(model), Nearest.of(model)
    assert near.kind == "hnsw"
    found, wanted = (n.search(n.query_item("item-04"), 5) for n in (near, exact))
    assert [item for item, _ in found] == [item for item, _ in wanted]
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted], abs=1e-6)
    factors = Factors.load(model)
    factors.bias[0] += 1
    factors.save(model)
    with pytest.raises(VbprError, match="not made from"):
        Nearest.open(model, index_path(model))  # which was asked for
    assert Nearest.open(model).kind == "flat"
    assert "was not made from" in capsys.readouterr().err


def test_an_altered_index_is_refused_whichever_byte_it_was(model):
    path = index_path(model)
    Nearest.of(model).save(path)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    with h5py.File(path) as handle:
        start, size = handle["faiss"].id.get_offset(), handle["faiss"].id.get_storage_size()
    for at in [*rng.integers(start, start + size, 30), *rng.integers(0, len(whole), 30)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            near = Nearest.open(model)
        except VbprError:
            refused += 1
        else:  # a byte that HDF5 does not use: what was read is what was written
            assert not start <= at < start + size
            np.testing.assert_array_equal(near.vectors, Nearest.of(model).vectors)
    assert refused >= 30
    path.write_bytes(whole[:-100])
    with pytest.raises(VbprError):
        Nearest.open(model)


def test_the_commands_index_and_ask_by_item_items_photo_and_file(model, tmp_path, capsys):
    assert run("index", model) == 0
    assert "exact search takes milliseconds" in capsys.readouterr().out
    ask = ["similar", model, "-k", 3]
    assert run(*ask, "--item", "item-03", "--item", "item-06", "--unseen-by", "user/00", "--category", "red") == 0
    assert capsys.readouterr().out.count("red thing") == 3
    images = made() / "data" / "images"
    assert run(*ask, "--image", images / "item-03.png", "--image", images / "item-09.png") == 0
    assert run("similar", made() / "small.h5", "--image", images / "item-03.png", "-k", 1) == 0
    assert "item-03" in capsys.readouterr().out.splitlines()[-2]
    (tmp_path / "ids").write_text("item-01\nitem-02\n")
    assert run(*ask, "--items", tmp_path / "ids", "--out", tmp_path / "near.csv") == 0
    assert len((tmp_path / "near.csv").read_text().splitlines()) == 7
    capsys.readouterr()
    assert run("similar", made() / "small.h5", "--item", "item-01", "--unseen-by", "user/00") == 2
    assert "knows no users" in capsys.readouterr().err
    assert run("index", model, "--kind", "tree") == 2


def test_vectors_wider_than_the_axes_lose_nothing_that_matters(monkeypatch):
    monkeypatch.setattr(index_kinds, "AXES", 32)
    rng = np.random.default_rng(3)
    size = np.arange(1, 101) ** -0.6
    vectors = unit_rows(
        (rng.standard_normal((40, 100)) * size)[rng.integers(40, size=5000)]
        + 0.6 * size * rng.standard_normal((5000, 100))
    )
    for kind in ("hnsw", "ivfpq"):
        near, queries = near_of(vectors[:4800], kind), vectors[4800:]
        exact = among(queries, vectors[:4800], np.arange(4800), 10)[0]
        found, scores = near.search_many(queries, 10)
        assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)]) > 0.97
        full = np.einsum("qd,qkd->qk", queries, vectors[found])  # by every column, not by the axes alone
        np.testing.assert_allclose(scores, full, atol=2e-3)
        longer = near.extended(np.array(["new"]), vectors[4800:4801], "x")
        assert longer.search(vectors[4800:4801], 1)[0][0] == "new"


def test_many_queries_go_to_the_gpu_and_few_do_not(monkeypatch):
    import faiss

    class Elsewhere:
        def search(self, queries, k):
            asked.append(len(queries))
            return near.index.search(queries, k)

    asked, vectors = [], clustered()
    near = near_of(vectors, "flat")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda resources, device, index: Elsewhere(), raising=False)
    monkeypatch.setattr(vbpr.answers.nearest, "GPU_WORK", 100 * vectors.size)
    few, many = near.search_many(vectors[:1], 5)[0], near.search_many(vectors[:100], 5)[0]
    assert asked == [100]
    np.testing.assert_array_equal(many[:1], few)
    near.search_many(vectors[:100], 3000)
    near_of(vectors, "hnsw").search_many(vectors[:100], 5)
    assert asked == [100]


@pytest.mark.parametrize("when", ["copying", "searching"])
def test_a_full_gpu_leaves_the_work_to_the_processor(monkeypatch, when):
    import faiss

    class Full:
        def search(self, queries, k):
            raise RuntimeError("out of memory")

    def copy(*_):
        if when == "copying":
            raise RuntimeError("out of memory")
        return Full()

    vectors = clustered()
    near = near_of(vectors, "flat")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy, raising=False)
    monkeypatch.setattr(vbpr.answers.nearest, "GPU_WORK", 100 * vectors.size)
    assert near.search_many(vectors[:100], 1)[0].ravel().tolist() == list(range(100))


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_many_items_have_the_neighbours_that_each_has_alone(block):
    vectors = clustered(60)
    near, asked = near_of(vectors, "flat"), ["3", "59", "0", "17", "18", "44", "5", "6"]
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    found = near.search_items(asked, 4, block=block)
    assert [[item for item, _ in row] for row in found] == [
        np.argsort(-scores[int(item)])[:4].astype(str).tolist() for item in asked
    ]
    for item, row in zip(asked, found, strict=True):
        assert [score for _, score in row] == pytest.approx(np.sort(scores[int(item)])[::-1][:4], abs=1e-6)
    assert len(near.search(vectors[:1], 4, leave_out=[str(i) for i in np.argsort(scores[0])[:3]])) == 4


def test_inner_products_keep_lengths(model):
    """Of items, of several together, of photos and of items that come later."""
    near, factors = Nearest.of(model, metric="inner"), Factors.load(model)
    items = factors.items.astype(np.float64)
    assert np.linalg.norm(items, axis=1).std() > 1e-3

    def wanted(query):
        return np.sort(items @ query)[::-1][:5]

    for ids, at in ((["item-04"], [4]), (["item-04", "item-07"], [4, 7])):
        found = near.search(near.query_item(*ids), 5)
        np.testing.assert_allclose([score for _, score in found], wanted(items[at].mean(0)), rtol=1e-4)
    features = FeatureStore(made() / "small.h5").features[[4, 7]]
    np.testing.assert_allclose(near.query_features(features), items[[4, 7]], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(near.query_photos(features)[0], items[[4, 7]].mean(0), rtol=1e-3, atol=1e-3)
    more = near.extended(np.array(["long"]), 3 * factors.items[:1], "digest")
    np.testing.assert_allclose(more.rows(np.array([30]))[0], 3 * items[0], rtol=1e-6)
    assert len(near.vectors) == 30 and len(near.search(near.query_item("item-04"), 30)) == 30  # left as it was
    more = Nearest.of(model).extended(np.array(["long"]), 7 * factors.items[:1], "digest")  # of length one by cosine
    assert more.search(more.rows(np.array([0])), 2)[1][1] == pytest.approx(1, abs=1e-5)
    with pytest.raises(VbprError, match="--metric euclid is not known"):
        Nearest.of(model, metric="euclid")


def test_what_a_user_has_is_not_among_what_may_be_answered(model):
    near, factors = Nearest.of(model), Factors.load(model)
    taken = factors.seen_by(5)
    assert len(taken) == 6
    wanted = np.ones(30, bool)
    wanted[taken] = False
    np.testing.assert_array_equal(near.not_taken(model, "user/05"), wanted)
    half = np.arange(30) < 15
    np.testing.assert_array_equal(near.not_taken(model, "user/05", half), wanted & half)
    assert half.sum() == 15  # the caller's own is left alone


def test_what_a_user_has_is_told_by_id_where_catalogues_differ(model, tmp_path):
    factors = Factors.load(model)
    fewer = factors.item_ids != "item-02"
    with FeatureStore.create(
        tmp_path / "f.h5", factors.item_ids[fewer], np.ones(29, np.uint64), 8, PROVENANCE
    ) as store:
        store.write(np.arange(29), factors.items[fewer])
    near = Nearest.of(tmp_path / "f.h5")
    mask = near.not_taken(model, "user/05")
    assert set(near.item_ids[~mask]) == set(factors.item_ids[factors.seen_by(5)]) - {"item-02"}


def test_one_query_is_searched_for_and_of_finite_numbers(model):
    near = Nearest.of(model)
    with pytest.raises(VbprError, match="one query is answered; got 2"):
        near.search(near.rows(np.array([0, 1])), 2)
    with pytest.raises(VbprError, match="not finite"):
        near.search(near.rows(np.array([0])) * np.nan, 2)


def test_images_that_failed_have_no_neighbours_and_no_part_in_the_mean(tmp_path):
    shutil.copytree(made() / "data", tmp_path / "data")
    (tmp_path / "data" / "images" / "item-03.png").write_bytes(b"no image")
    extract(Dataset.resolve(tmp_path / "data"), "test_resnet", tmp_path / "f.h5", random_weights=True, engine="torch")
    near, store = Nearest.of(tmp_path / "f.h5"), FeatureStore(tmp_path / "f.h5")
    assert near.item_ids.tolist() == [item for item in store.item_ids if item != "item-03"]
    rows = store.features[store.done].astype(np.float64)
    np.testing.assert_allclose(near.vectors, unit_rows(rows - rows.mean(0)), atol=1e-4)


def test_other_ids_in_an_index_are_an_alteration(model, capsys):
    path = index_path(model)
    Nearest.of(model).save(path)
    assert run("info", path) == 0
    out = capsys.readouterr().out
    assert "index, 30 items" in out and "kind: flat" in out and "metric: cosine" in out
    assert run("info", path, "--verify") == 2 and "another kind (index)" in capsys.readouterr().err
    with h5py.File(path, "r+") as handle:
        handle["item_ids"][0] = b"item-99"
    with pytest.raises(VbprError, match="damaged or was altered"):
        Nearest.open(model)
    assert run("info", path) == 2 and "damaged or was altered" in capsys.readouterr().err


def test_a_model_without_item_vectors_has_no_neighbours(tmp_path):
    train(Dataset.resolve(made() / "data"), [], configure("popularity"), tmp_path / "p.model.h5")
    with pytest.raises(VbprError, match="has no item vectors to compare"):
        Nearest.of(tmp_path / "p.model.h5")


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_few_allowed_items_and_few_answers_are_searched_for_as_hard_as_need_be(kind, monkeypatch):
    monkeypatch.setattr(vbpr.answers.nearest, "SUBSET", 0)
    vectors = clustered()
    near, allowed = near_of(vectors, kind), np.arange(4000) % 100 == 7
    found = near.search_many(vectors[:100], 10, allowed)[0]
    exact = among(vectors[:100], vectors[allowed], np.flatnonzero(allowed), 10)[0]
    assert allowed[found[found >= 0]].all()
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)]) > 0.9
    np.testing.assert_array_equal(near.search_many(vectors[:100], 1)[0], near.search_many(vectors[:100], 10)[0][:, :1])


@pytest.mark.parametrize("forged", ["two dimensions", "deep", "other numbers"])
def test_an_index_that_agrees_with_its_digest_and_is_none_is_refused(model, forged):
    path = index_path(model)
    Nearest.of(model).save(path)
    with h5py.File(path, "r+") as handle:
        if forged == "deep":
            write_text(handle, "about", "[" * 20_000)
        else:
            data = handle["faiss"][:]
            data = data[:, None] if forged == "two dimensions" else data.astype(np.int16)
            del handle["faiss"]
            handle["faiss"] = data
            ids, about = read_strings(handle, "item_ids"), json.loads(read_text(handle, "about"))
            write_text(handle, "digest", digest_of(data, ids, about))
    with pytest.raises(VbprError, match="is damaged"):
        Nearest.open(model)
