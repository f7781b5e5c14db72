"""A model file that one question is asked of: the answers of the whole model, by the blocks that they need."""

import dataclasses
import gzip
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from vbpr import Factors, Nearest, VbprError
from vbpr.answers.nearest import source_of
from vbpr.answers.streamed import nearest_for_one
from vbpr.stores.model import blocks
from vbpr.stores.model.stored import StoredModel, model_in

HERE = Path(__file__).parent


@pytest.fixture
def few_rows(monkeypatch):
    """Blocks of a few rows, so that small arrays have many."""
    monkeypatch.setattr(blocks, "BLOCK", 64)


def saved(path, u=13, i=57, k=5, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 12, (u, i))
    factors = Factors(
        *(rng.standard_normal(s).astype(np.float32) for s in ((u, k), (i, k), i)),
        np.array([f"u{n}" for n in range(u)]),
        np.array([f"étoile-{n}" for n in range(i)]),
        *(sp.csr_matrix((kind == n).astype(np.float32)) for n in (1, 2, 3)),
        None,
        {"model": "bprmf", "dropped_users": 2},
    )
    factors.save(path)
    return factors


def test_answers_are_those_of_the_whole_model(tmp_path, few_rows):
    factors = saved(tmp_path / "m.h5")
    stored = StoredModel.open(tmp_path / "m.h5")
    assert len(stored.items.sums) > 5 and repr(stored) == repr(factors)
    assert stored.interactions == factors.interactions and stored.about == factors.about
    groups, allowed = np.arange(57) // 3, np.arange(57) % 4 != 1
    for asked in ({}, {"seen": True}, {"diversity": 0.4}, {"groups": groups}, {"allowed": allowed, "k": 60}):
        for user in range(13):
            items, scores = stored.recommend(user, **asked)
            expected, values = factors.recommend(user, **asked)
            np.testing.assert_array_equal(items, expected)
            np.testing.assert_allclose(scores, values, rtol=1e-5)
            assert stored.names(items) == factors.item_ids[expected].tolist()
    known, whole = stored.before_holding_out(), factors.before_holding_out()
    np.testing.assert_array_equal(known.seen_by(3), whole.seen_by(3))
    np.testing.assert_array_equal(stored.seen_by(3), factors.seen_by(3))
    assert [stored.user_index(f"u{n}") for n in range(13)] == list(range(13))
    with pytest.raises(VbprError, match=r"no user 'u77'.*did you mean.*left out users with too few items \(2\)"):
        stored.user_index("u77")
    with pytest.raises(VbprError, match="no user '\udc80'"):
        stored.user_index("\udc80")


@pytest.mark.parametrize("metric", ["cosine", "inner"])
def test_nearest_items_are_those_of_exact_search(tmp_path, few_rows, metric):
    path = tmp_path / "m.model.h5"
    saved(path)
    exact = Nearest.of(path, metric=metric)
    if metric == "inner":  # of which the index beside the model tells
        exact.save(tmp_path / "m.model.index")
    near = nearest_for_one(path)
    assert near.kind == "stored" and near.metric == metric
    for asked in (["étoile-3"], ["étoile-3", "étoile-40"]):
        for allowed in (None, np.arange(57) % 5 == 0):
            ours = near.search(near.query_item(*asked), 6, asked, allowed)
            theirs = exact.search(exact.query_item(*asked), 6, asked, allowed)
            assert [name for name, _ in ours] == [name for name, _ in theirs]
            np.testing.assert_allclose([s for _, s in ours], [s for _, s in theirs], rtol=1e-5)


def test_each_block_has_the_crc_of_its_bytes(tmp_path, few_rows):
    saved(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as handle:
        for name in ("users", "items", "bias", "user_ids", "item_ids", "train/indptr", "test/indices"):
            data, sums = handle[name][...].tobytes(), handle[f"checks/{name}"]
            size = sums.attrs["rows"] * handle[name][:1].nbytes
            assert sums[:].tolist() == [zlib.crc32(data[a : a + size]) for a in range(0, len(data), size)]


@pytest.mark.parametrize("name", ["users", "items", "bias", "user_ids", "item_ids", "train/indptr", "train/indices"])
def test_a_changed_byte_is_found_where_an_answer_needs_it_and_nowhere_else(tmp_path, few_rows, name):
    path = tmp_path / "m.model.h5"
    factors = saved(path)
    with h5py.File(path) as handle:
        first, end = handle[name].id.get_offset(), handle[name].id.get_offset() + handle[name].nbytes
    whole, found = path.read_bytes(), set()
    for place in np.linspace(first, end - 1, 12).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        stored = StoredModel.open(path)
        for user in (0, 12):
            try:
                items, _ = stored.recommend(stored.user_index(f"u{user}"), 3)
                names = stored.names(items)
            except VbprError as error:
                assert f"m.model.h5 is damaged (its {name} are not those" in str(error)
                found.add(user)
            else:
                assert names == factors.item_ids[factors.recommend(user, 3)[0]].tolist()
        with pytest.raises(VbprError):
            Factors.load(path)
    assert found == {0, 12}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def forged(name, value):
    def change(path):
        with h5py.File(path, "r+") as handle:
            del handle[name]
            handle[name] = value

    return change


def other_rows(rows):
    def change(path):
        with h5py.File(path, "r+") as handle:
            handle["checks/items"].attrs["rows"] = rows

    return change


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        forged("checks/items", np.zeros(3, np.uint32)),
        forged("items", np.zeros((57, 4), np.float32)),
        forged("bias", np.zeros(56, np.float32)),
        forged("train/indptr", np.arange(14)[::-1]),
        forged("checks/users", np.array(b"?")),
        *map(other_rows, (0, -1, 2**60)),
    ],
)
def test_forged_files_are_refused(tmp_path, damage):
    path = tmp_path / "m.model.h5"
    saved(path)
    damage(path)
    with pytest.raises(VbprError, match=r"m\.model\.h5 is (damaged|not a readable)"):
        StoredModel.open(path).recommend(3)


def test_files_from_before_the_checks_answer_as_they_did(tmp_path):
    for kind in ("model.h5", "model.index"):
        content = gzip.decompress((HERE / f"before-checks.{kind}.gz").read_bytes())
        (tmp_path / f"before-checks.{kind}").write_bytes(content)
    path = tmp_path / "before-checks.model.h5"
    assert StoredModel.open(path) is None
    model = model_in(path)
    assert isinstance(model, Factors) and model.digest() == "b0f826ec4da9c477a8fb9f04296c925d"
    items, scores = model.recommend(1, 3)
    assert items.tolist() == [1, 5, 6] and scores.tolist() == pytest.approx([2.8318875, 2.276247, 1.7881306])
    assert Nearest.open(path, tmp_path / "before-checks.model.index").kind == "flat"  # an index of this very file


def test_an_index_is_of_the_numbers_and_the_words_of_a_model(tmp_path):
    path = tmp_path / "m.model.h5"
    factors = saved(path)
    before = source_of(path)
    factors.save(path)
    assert source_of(path) == before
    dataclasses.replace(factors, about=factors.about | {"title": "another"}).save(path)
    worded = source_of(path)
    saved(path, seed=1)
    assert len({before, worded, source_of(path)}) == 3
