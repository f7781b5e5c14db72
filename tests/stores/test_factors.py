"""Factors: scores, top-k, the model file, and files that must be refused."""

import dataclasses
import json
import os
import tracemalloc

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import scipy.sparse as sp

from vbpr import Factors, VbprError
from vbpr.base.files import digest, replacing
from vbpr.base.hdf5 import kind_of
from vbpr.base.locks import locked
from vbpr.stores.model.head import Head
from vbpr.stores.model.topk import best


def make(u=6, i=9, k=3, seed=0, head=True):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 6, (u, i))
    parts = [sp.csr_matrix((kind == n).astype(np.float32)) for n in (1, 2, 3)]
    h = Head(*(rng.standard_normal(s).astype(np.float32) for s in (4, 4, (k, 4), 4))) if head else None
    if head == "layer":
        hidden, outer = (rng.standard_normal(s).astype(np.float32) for s in ((5, 4), (k + 1, 5)))
        h = dataclasses.replace(h, hidden=hidden, outer=outer)
    return Factors(
        *(rng.standard_normal(s).astype(np.float32) for s in ((u, k), (i, k), i)),
        np.array([f"u{n}" for n in range(u)]),
        np.array([f"étoile-{n}" for n in range(i)]),
        *parts,
        h,
        {"model": "visual"},
    )


def test_scores_are_two_matrices_and_a_bias():
    f = make()
    for u in range(6):
        for i in range(9):
            assert f.scores(np.array([u]))[0, i] == pytest.approx(f.users[u] @ f.items[i] + f.bias[i], rel=1e-5)


@pytest.mark.parametrize("k", [0, 1, 4, 9, 50])
def test_best_is_a_stable_sort(k):
    scores = np.random.default_rng(0).integers(0, 4, 9).astype(np.float32)
    np.testing.assert_array_equal(best(scores, k), np.argsort(-scores, kind="stable")[:k])


def test_recommend_leaves_out_what_was_taken_and_orders_the_rest():
    f = make()
    for u in range(6):
        items, scores = f.recommend(u, 9)
        taken = set(f.seen_by(u).tolist())
        assert taken.isdisjoint(items.tolist()) and len(items) == 9 - len(taken)
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(scores, f.scores(np.array([u]))[0][items])
        assert len(f.recommend(u, 9, seen=True)[0]) == 9
    np.testing.assert_array_equal(np.sort(f.seen_by(2)), f.seen[2].indices)


@pytest.mark.parametrize("head", [True, False, "layer"])
def test_file_round_trip(tmp_path, head):
    f = make(head=head)
    f.save(tmp_path / "a.h5")
    g = Factors.load(tmp_path / "a.h5")
    for name in ("users", "items", "bias", "user_ids", "item_ids"):
        np.testing.assert_array_equal(getattr(f, name), getattr(g, name))
    for name in ("train", "validation", "test"):
        assert (getattr(f, name) != getattr(g, name)).nnz == 0
    assert f.about == g.about
    if head:
        x = np.random.default_rng(1).standard_normal((5, 4))
        for a, b in zip(f.head(x), g.head(x), strict=True):
            np.testing.assert_array_equal(a, b)
    assert kind_of(tmp_path / "a.h5") == "model"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]  # no temporary is left


def test_head_is_its_equation():
    h = make().head
    x = np.random.default_rng(1).standard_normal((1, 4)).astype(np.float32)
    z = (x[0] - h.mean) / h.scale
    vectors, bias = h(x)
    np.testing.assert_allclose(vectors[0], h.weight @ z, rtol=1e-5)
    assert bias[0] == pytest.approx(h.bias_weight @ z, rel=1e-5)
    h = make(head="layer").head
    z = (x[0] - h.mean) / h.scale
    more = h.outer @ np.maximum(0, h.hidden @ z)
    vectors, bias = h(x)
    np.testing.assert_allclose(vectors[0], h.weight @ z + more[:-1], rtol=1e-5)
    assert bias[0] == pytest.approx(h.bias_weight @ z + more[-1], rel=1e-5)
    few, same = h.of_columns(np.array([True, False, True]))(x)
    np.testing.assert_allclose(few[0], vectors[0, [0, 2]])
    np.testing.assert_array_equal(same, bias)


def test_a_hidden_layer_that_does_not_fit_is_refused():
    f = make(head="layer")
    for change in ({"outer": f.head.outer[:-1]}, {"hidden": None}, {"hidden": f.head.hidden[:, :2]}):
        with pytest.raises(VbprError, match="do not fit together"):
            dataclasses.replace(f, head=dataclasses.replace(f.head, **change))
    wrong = dataclasses.replace(f.head, outer=np.full_like(f.head.outer, np.nan))
    with pytest.raises(VbprError, match="not finite"):
        dataclasses.replace(f, head=wrong)


def test_features_of_another_size_are_refused():
    with pytest.raises(VbprError, match="takes features of 4 numbers, and these have 5"):
        make().encoded(np.zeros((1, 5)))


def test_unknown_ids_suggest_near_ones():
    with pytest.raises(VbprError, match=r"no user 'u33'.*did you mean u3"):
        make().user_index("u33")
    with pytest.raises(VbprError, match=r"no item 'etoile-4'.*étoile-4"):
        make().item_index("etoile-4")
    assert make().item_index("étoile-4") == 4


def test_factors_that_do_not_fit_or_are_not_finite_are_refused():
    f = make()
    parts = (f.user_ids, f.item_ids, f.train, f.validation, f.test)
    with pytest.raises(VbprError, match="do not fit together"):
        Factors(f.users[:-1], f.items, f.bias, *parts)
    with pytest.raises(VbprError, match="not finite"):
        Factors(f.users * np.nan, f.items, f.bias, *parts)


def test_any_matrix_of_what_was_taken_will_do_if_it_fits():
    f = make()
    other = dataclasses.replace(f, train=f.train.tocsc(), users=f.users.astype(np.float64))
    np.testing.assert_array_equal(other.seen_by(0), f.seen_by(0))
    assert other.users.dtype == np.float32
    with pytest.raises(VbprError, match=r"train is a matrix of \(6, 8\) for 6 users and 9 items"):
        dataclasses.replace(f, train=f.train[:, :8])
    with pytest.raises(VbprError, match=r"user_ids has .* twice"):
        dataclasses.replace(f, user_ids=np.repeat(f.user_ids[:1], 6))


def damage_indptr(h):
    h["train/indptr"][2] = 10_000


def damage_indices(h):
    h["test/indices"][0] = 77


def damage_about(h):
    h.attrs["about"] = "{"


def damage_about_depth(h):
    h.attrs["about"] = "[" * 100_000


def damage_missing(h):
    del h["bias"]


def damage_nan(h):
    h["items"][0, 0] = np.nan


def damage_external(h):
    del h["users"]
    h["users"] = h5py.ExternalLink("/etc/passwd", "/x")


def damage_soft(h):
    h["head/elsewhere"] = h5py.SoftLink("/users")


def damage_virtual(h):
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    h.create_virtual_dataset("spy", layout)


def damage_kind(h):
    h.attrs["vbpr"] = "features"


def damage_head_nan(h):
    h["head/weight"][0, 0] = np.nan


def damage_head_scale(h):
    h["head/scale"][1] = 0


def damage_head_columns(h):
    del h["head/mean"]
    h["head/mean"] = np.zeros(5, "f4")


def damage_head_rows(h):
    del h["head/weight"]
    h["head/weight"] = np.zeros((2, 4), "f4")


@pytest.mark.parametrize("damage", [v for k, v in sorted(globals().items()) if k.startswith("damage_")])
def test_damaged_and_foreign_files_are_refused(tmp_path, damage):
    path = tmp_path / "a.h5"
    make().save(path)
    with h5py.File(path, "r+") as handle:
        damage(handle)
    with pytest.raises(VbprError, match=r"a\.h5|not finite"):
        Factors.load(path)


def test_numbers_that_were_not_written_are_refused(tmp_path):
    """Whatever they are: another taste, another purchase, another name would answer, and wrongly."""
    path = tmp_path / "a.h5"
    make().save(path)
    assert Factors.load(path).digest() == make().digest()
    for name, at in (("users", (0, 0)), ("bias", 2), ("train/indices", 0), ("head/mean", 1), ("item_ids", 3)):
        make().save(path)
        with h5py.File(path, "r+") as handle:
            old = handle[name][at]
            handle[name][at] = b"zz" if name == "item_ids" else 8 if name == "train/indices" else old + 1
        with pytest.raises(VbprError, match=r"a\.h5 is damaged \(its numbers are not those that were written\); train"):
            Factors.load(path)


FEATURES = {"path": "a", "backbone": "a", "weights": "a", "preprocessing": "a"}


@pytest.mark.parametrize(
    "about",
    [
        [],
        "x",
        {"features": "x"},
        {"features": ["x"]},
        {"features": [{"path": "a"}]},
        {"features": [FEATURES | {"weights_file": 1}]},
        {"added": [1]},
        {"added": [{"items": 2}]},
        {"curve": 3},
        {"curve": [{"epoch": "x"}]},
        {"curve": [{"epoch": 1, "auc": "x"}]},
        {"data": {"a": 1}},
        {"config": []},
    ],
)
def test_an_about_of_other_types_is_damaged(tmp_path, about):
    path = tmp_path / "a.h5"
    dataclasses.replace(make(), about=about).save(path)
    with pytest.raises(VbprError, match=r"a\.h5 is damaged \(about.*\); train again"):
        Factors.load(path)


def test_an_about_of_the_right_types_is_kept(tmp_path):
    about = {"features": [FEATURES], "added": [{"folder": "b", "items": 2}], "curve": [{"epoch": 1}], "data": "sample"}
    dataclasses.replace(make(), about=about).save(tmp_path / "a.h5")
    assert Factors.load(tmp_path / "a.h5").about == about


def test_files_are_as_open_to_others_as_the_user_has_files(tmp_path):
    before = os.umask(0o022)
    try:
        make().to_safetensors(tmp_path / "a.safetensors")  # whose library makes private ones
        make().save(tmp_path / "a.h5")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_texts_that_safetensors_cannot_hold_are_refused_before_the_write(tmp_path):
    path = tmp_path / "a.safetensors"
    make().to_safetensors(path)
    old = path.read_bytes()
    with pytest.raises(VbprError, match=r"a\.safetensors: .* 6 users and 9 items .*write_recommendations"):
        dataclasses.replace(make(), about={"x": "x" * 100_000_000}).to_safetensors(path)
    assert path.read_bytes() == old


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + b"\0" * 50])
def test_files_that_are_not_hdf5_are_refused(tmp_path, content):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(VbprError, match=r"is no file of vbpr|not a readable HDF5 file"):
        Factors.load(path)
    with pytest.raises(VbprError, match=r"is no file of vbpr|not a readable HDF5 file"):
        kind_of(path)


def test_a_missing_file_names_its_neighbours(tmp_path):
    make().save(tmp_path / "inc.model.h5")
    with pytest.raises(VbprError, match=r"does not exist; there is .*inc\.model\.h5"):
        Factors.load(tmp_path / "int.model.h5")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def write_and_fail():
        with replacing(path) as temporary:
            temporary.write_text("half of the ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with replacing(path) as temporary:
        temporary.write_text(json.dumps("new"))
    assert path.read_text() == '"new"'


def test_a_lock_has_one_holder(tmp_path):
    path = tmp_path / "a.h5"
    with locked(path), pytest.raises(VbprError, match=r"a\.h5 is in use by pid \d+"), locked(path):
        pass
    with locked(path):
        pass
    assert not list(tmp_path.iterdir())


def test_digest_depends_on_every_byte(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"x" * 1000)
    b.write_bytes(b"x" * 999 + b"y")
    assert len(digest(a)) == 32 and digest(a) != digest(b)


@pytest.mark.parametrize(
    "wrong", [np.array([1, 2, 3]), np.ones(9, int), np.ones(8, bool), ["étoile-1"], np.ones((1, 9), bool)]
)
def test_what_is_no_mask_is_refused(wrong):
    f = make()
    assert len(f.item_ids) == 9
    for ask in (lambda: f.recommend(0, 3, allowed=wrong), lambda: f.recommend_all(k=3, allowed=wrong)):
        with pytest.raises(VbprError, match="a mask of 9 true or false is needed"):
            ask()


def test_positions_outside_are_refused_and_masks_are_positions():
    f = make()
    n = len(f.user_ids)
    for ask in (
        lambda: f.recommend(-1),
        lambda: f.recommend(n),
        lambda: f.recommend_all([-1]),
        lambda: f.recommend_all([0.5]),
        lambda: f.seen_by(-1),
        lambda: f.scores([n]),
    ):
        with pytest.raises(VbprError, match=f"by position, 0 to {n - 1}"):
            ask()
    with pytest.raises(VbprError, match="by position, 0 to 8"):
        f.similar_items(9)
    for ask in (f.recommend_all, lambda k: f.recommend(0, k)):
        with pytest.raises(VbprError, match="k is 0"):
            ask(k=0)
    with pytest.raises(VbprError, match="items are asked for by position, 0 to 8"):
        f.choose(f.users[0], exclude=np.array([-1]))
    for taste in (f.users[0] * np.nan, f.users[0, 1:], f.users[:2]):
        with pytest.raises(VbprError, match="a taste is 3 finite numbers"):
            f.choose(taste)
    with pytest.raises(VbprError, match="diversity is 2; it must be from 0 to 1"):
        f.recommend(0, diversity=2)
    np.testing.assert_array_equal(f.fold_in(f.items[3]), f.fold_in(f.items[3:4]))
    with pytest.raises(VbprError, match="vectors of 3 numbers"):
        f.fold_in(f.items[3, :2])
    np.testing.assert_array_equal(f.recommend_all(3)[0], f.recommend_all([3])[0])
    chosen = np.arange(n) % 2 == 0
    np.testing.assert_array_equal(f.recommend_all(chosen, 3)[0], f.recommend_all(np.flatnonzero(chosen), 3)[0])
    assert f.recommend_all([], 3)[0].shape == (0, 3)


def test_ids_may_be_lists_or_numbers():
    f = make()
    named = dataclasses.replace(f, user_ids=list(range(len(f.user_ids))), item_ids=list("abcdefghi"))
    assert named.user_index(1) == 1 and named.item_indices("c").tolist() == [2]
    np.testing.assert_array_equal(named.recommend("1", 3)[0], f.recommend(1, 3)[0])


def test_an_item_of_which_nothing_is_known_has_no_neighbours():
    f = make()
    items = f.items.copy()
    items[3] = 0
    blank = dataclasses.replace(f, items=items)
    assert len(blank.similar_items(3)[0]) == 0 and len(blank.similar_items(2, 4)[0]) == 4


def test_parquet_heeds_what_may_come_back(tmp_path):
    f = make()
    allowed = np.arange(9) < 5
    for seen, mask in ((False, None), (True, None), (False, allowed), (True, allowed)):
        f.write_recommendations(tmp_path / "r.parquet", 4, None, seen, mask)
        table = pyarrow.parquet.read_table(tmp_path / "r.parquet").to_pydict()
        items, scores = f.recommend_all(k=4, seen=seen, allowed=mask)
        assert table["item_id"] == f.item_ids[items[items >= 0]].tolist()
        assert table["score"] == scores[items >= 0].tolist()


def test_a_head_of_unit_vectors_stays_one(tmp_path):
    for unit in (False, True):
        f = make()
        f = dataclasses.replace(f, head=dataclasses.replace(f.head, unit=unit))
        f.save(tmp_path / "m.h5")
        assert Factors.load(tmp_path / "m.h5").head.unit is unit


@pytest.mark.parametrize("ids", [["new", "new"], ["étoile-3", "new"]])
def test_items_to_add_are_new_and_distinct(ids):
    f = make()
    with pytest.raises(VbprError, match="must be new and distinct"):
        f.extended(np.array(ids), f.items[:2], f.bias[:2])


@pytest.mark.parametrize(
    ("indptr", "indices"),
    [
        (lambda p: p[:-1], lambda i: i),
        (lambda p: p + 1, lambda i: i),
        (lambda p: np.append(p[:-1], p[-1] - 1), lambda i: i),
        (lambda p: p, lambda i: np.append(i[:-1], -1)),
        (lambda p: p, lambda i: np.append(i[:-1], 9)),
        (lambda p: np.concatenate([p[:1], p[2:3] + 1, p[2:]]), lambda i: i),
    ],
)
def test_a_matrix_that_is_none_is_refused(tmp_path, indptr, indices):
    make().save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as handle:
        group = handle["train"]
        changed = {"indptr": indptr(group["indptr"][:]), "indices": indices(group["indices"][:])}
        for name, values in changed.items():
            del group[name]
            group[name] = values
    with pytest.raises(VbprError, match=r"train is not a matrix|train/indptr is no array of"):
        Factors.load(tmp_path / "m.h5")


def test_a_pair_in_two_parts_is_refused():
    pair = sp.csr_matrix(np.eye(2, 3, dtype=np.float32))
    none, vectors = sp.csr_matrix((2, 3), dtype=np.float32), np.ones((3, 2), np.float32)
    ids = np.array(["a", "b", "c"])
    with pytest.raises(VbprError, match="2 interactions are in train and in test"):
        Factors(vectors[:2], vectors, np.zeros(3), ids[:2], ids, pair, none, pair)


@pytest.mark.parametrize("name", ["bias", "users", "train/indices", "head/mean"])
def test_a_forged_shape_is_refused_before_room_is_made_for_it(tmp_path, name):
    make(head=True).save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as handle:
        shape = handle[name].shape
        del handle[name]
        handle.create_dataset(name, (2**40, *shape[1:]), "<f4", chunks=(2**20, *shape[1:]))
    tracemalloc.start()
    with pytest.raises(VbprError, match=f"m.h5 is damaged .*{name} is (no array of|not whole)"):
        Factors.load(tmp_path / "m.h5")
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_what_hdf5_cannot_make_out_is_a_damaged_file(tmp_path, monkeypatch):
    make().save(tmp_path / "m.h5")

    def broken(*_):
        raise RuntimeError("Can't synchronously determine if attribute exists by name")

    monkeypatch.setattr("vbpr.stores.model.file.read_text", broken)
    with pytest.raises(VbprError, match=r"m\.h5 is damaged"):
        Factors.load(tmp_path / "m.h5")
