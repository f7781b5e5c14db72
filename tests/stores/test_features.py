"""The feature file: rows by id, resumed, carried over, and refused when it is not what it should be."""

import copy
import errno
import os

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vbpr.stores.features.store
from conftest import PROVENANCE
from vbpr import FeatureStore, VbprError

IDS = np.array([f"i{n}" for n in range(10)])
SIGNS = np.arange(10, dtype=np.uint64)


def create(path, ids=IDS, signs=SIGNS, dim=3, about=None):
    return FeatureStore.create(path, ids, signs, dim, about or PROVENANCE)


def values(rows):
    return np.outer(np.asarray(rows) % 300 + 1, [1, 10, 100]).astype(np.float32)


def finish(path, **options):
    with create(path, **options) as store:
        store.write(store.pending, values(store.pending))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 9), min_size=1), st.booleans(), st.booleans()), max_size=8))
def test_every_row_is_what_was_last_said_of_it(tmp_path_factory, steps):
    """Writes and failures in any order, the file closed and opened between some of them."""
    path = tmp_path_factory.mktemp("store") / "a.h5"
    state = dict.fromkeys(range(10), 0)
    store = (opened := create(path)).__enter__()
    for rows, good, reopen in steps:
        rows = np.array(sorted(rows))
        if good:
            store.write(rows, values(rows))
        else:
            store.fail(rows, ["truncated"] * len(rows))
        state |= dict.fromkeys(rows.tolist(), 1 if good else 2)
        if reopen:
            opened.__exit__(None, None, None)
            store = (opened := create(path)).__enter__()
    opened.__exit__(None, None, None)
    read = FeatureStore(path)
    assert read.state.tolist() == list(state.values())
    done = [n for n, s in state.items() if s == 1]
    np.testing.assert_array_equal(read.rows(IDS[done]), values(done).astype(np.float16).reshape(-1, 3))
    assert read.failures() == [(f"i{n}", "truncated") for n, s in state.items() if s == 2]
    assert read.pending.tolist() == [n for n, s in state.items() if s == 0]
    assert not read.verify()  # a row that was finished and is written again takes its digest along


def test_rows_to_write_are_positions_or_a_mask(tmp_path):
    with create(tmp_path / "a.h5") as store:
        chosen = np.arange(len(IDS)) % 3 == 0
        store.write(chosen, values(np.flatnonzero(chosen)))
        assert store.done.tolist() == np.flatnonzero(chosen).tolist()
        for rows in (chosen[:-1], [0.5], [-1], [len(IDS)]):
            with pytest.raises(VbprError, match="others were to be written"):
                store.write(np.asarray(rows), values([1]))
        with pytest.raises(VbprError, match="2 rows failed for 1 reasons"):
            store.fail(np.array([1, 2]), ["truncated"])


def test_rows_are_aligned_by_id_and_name_what_is_missing(tmp_path):
    finish(tmp_path / "a.h5")
    store = FeatureStore(tmp_path / "a.h5")
    np.testing.assert_array_equal(store.rows(["i7", "i2"]), values([7, 2]).astype(np.float16))
    assert store.find(np.array(["i9", "zz", "i0"])).tolist() == [9, -1, 0]
    with pytest.raises(VbprError, match=r"lacks 2 of 3 items \(first: zz\)"):
        store.rows(["zz", "i1", "yy"])


def test_ids_and_rows_are_of_one_file_though_another_is_renamed_into_place(tmp_path, monkeypatch):
    """As a run does that adds images, or takes them away."""
    path, other = tmp_path / "a.h5", tmp_path / "b.h5"
    finish(path)
    finish(other, ids=IDS[1:], signs=SIGNS[1:])
    real, left = vbpr.stores.features.rows.Rows, [1]

    def late(*args):
        if left:
            left.pop()
            other.rename(path)
        return real(*args)

    monkeypatch.setattr(vbpr.stores.features.store, "Rows", late)
    store = FeatureStore(path)
    assert store.item_ids.tolist() == IDS[1:].tolist() and store.verify() == []
    np.testing.assert_array_equal(store.rows(["i7", "i2"]), values([6, 1]).astype(np.float16))


def test_a_reader_beside_a_run_does_not_take_what_it_does_for_damage(tmp_path):
    """Rows became pending, and their block's digest is being taken away, while the file was opened."""
    path, readers = tmp_path / "a.h5", []
    finish(path)
    with create(path) as store:
        unseal = store._unseal
        store._unseal = lambda blocks: (readers.append(FeatureStore(path)), unseal(blocks))
        store._make_pending(np.arange(10))
        store.write(np.arange(5), 2 * values(np.arange(5)))
    assert len(readers) == 1 and readers[0].verify() == []


def test_an_unfinished_file_says_so(tmp_path):
    with create(tmp_path / "a.h5") as store:
        store.write(np.arange(4), values(range(4)))
    with pytest.raises(VbprError, match=r"lacks 6 of 10 items \(first: i4\); run vbpr extract again to resume"):
        FeatureStore(tmp_path / "a.h5").finished()


def test_a_changed_catalogue_keeps_the_rows_of_unchanged_images(tmp_path):
    path = tmp_path / "a.h5"
    finish(path)
    ids = np.array(["a-new", "i1", "i3", "i4", "i6", "i8", "z-new"])
    signs = np.array([99, 1, 3, 44, 6, 8, 98], np.uint64)  # i4 has changed
    with create(path, ids, signs) as store:
        assert store.item_ids[store.pending].tolist() == ["a-new", "i4", "z-new"]
        np.testing.assert_array_equal(store.rows(["i3", "i1"]), values([3, 1]).astype(np.float16))
        store.write(store.pending, values(store.pending))
    assert not len(FeatureStore(path).pending)


def test_two_files_written_alike_are_the_same_bytes(tmp_path):
    """Whenever and in whatever order the rows were written."""
    import time

    finish(tmp_path / "a.h5")
    time.sleep(1.1)
    with create(tmp_path / "b.h5") as store:
        for row in (7, 2, 3, 0, 1, 9, 8, 6, 5, 4):
            store.write(np.array([row]), values([row]))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_layout_is_one_that_any_hdf5_tool_reads(tmp_path):
    ids = np.array([f"i{n}" for n in range(2000)])  # large enough to begin on a page of its own
    finish(tmp_path / "a.h5", ids=ids, signs=np.zeros(2000, np.uint64))
    with h5py.File(tmp_path / "a.h5") as handle:
        features = handle["features"]
        assert features.chunks is None and features.id.get_offset() % 4096 == 0 and features.dtype == np.float16
        np.testing.assert_array_equal(features[:], values(range(2000)).astype(np.float16))
        assert (handle["state"][:] == 1).all()
        assert handle["item_ids"].asstr()[:].tolist() == ids.tolist()


def test_another_models_file_is_refused_naming_both(tmp_path):
    finish(tmp_path / "a.h5")
    other = PROVENANCE | {"fingerprint": "g", "backbone": "resnet"}
    with pytest.raises(VbprError, match=r"was made by b \(weights w; p\); this run would be resnet"):
        create(tmp_path / "a.h5", about=other).__enter__()


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000])
def test_values_that_float16_cannot_hold_are_refused_by_name(tmp_path, value):
    with create(tmp_path / "a.h5") as store:
        block = values([3, 4])
        block[1, 2] = value
        with pytest.raises(VbprError, match="item i4 features that are not finite"):
            store.write(np.array([3, 4]), block)
        assert len(store.pending) == 10


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    finish(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(VbprError, match=r"cut short|not a readable HDF5"):
        FeatureStore(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as handle:
        del handle["state"]
        handle["state"] = np.zeros(3, np.uint8)
    with pytest.raises(VbprError, match="data set state is not as vbpr writes it"):
        FeatureStore(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as handle:
        del handle["digest"]  # whoever takes them away would else switch every check off
    with pytest.raises(VbprError, match="data set digest is not as vbpr writes it"):
        FeatureStore(path)


def test_digest_changes_with_one_number(tmp_path):
    for name in ("a.h5", "b.h5", "c.h5"):
        finish(tmp_path / name)
    with h5py.File(tmp_path / "c.h5", "r+") as handle:
        handle["features"][4, 1] += 1
        handle["digest"][:] = 0  # as of a file that was stopped before it wrote them
    a, b, c = (FeatureStore(tmp_path / name).digest() for name in ("a.h5", "b.h5", "c.h5"))
    assert a == b != c


def test_rows_are_read_as_numpy_would_index_them(tmp_path):
    finish(tmp_path / "a.h5")
    rows, whole = FeatureStore(tmp_path / "a.h5").features, values(np.arange(10)).astype(np.float16)
    mask = np.arange(10) % 3 == 0
    for what in (4, np.int64(9), slice(None), slice(2, 7), slice(8, 99), slice(1, 9, 3), slice(5, 5), mask):
        np.testing.assert_array_equal(rows[what], whole[what])
    for positions in ([], [3], [3, 4, 5], [7, 2, 2, 3, 9, 0]):
        np.testing.assert_array_equal(rows[np.array(positions, int)], whole[np.array(positions, int)])
    assert rows.shape == whole.shape and rows.nbytes == whole.nbytes and np.array_equal(rows, whole)
    for what in (10, -1, np.array([0, 10])):
        with pytest.raises(IndexError, match="rows 0 to 9"):
            rows[what]
    for what in ((3, 0), 1.5, np.array([1.0]), np.ones(4, bool), np.zeros((2, 2), int)):
        with pytest.raises(IndexError, match="read by row"):
            rows[what]
    other = copy.copy(rows)
    del rows
    np.testing.assert_array_equal(other[3:5], whole[3:5])  # by a descriptor of its own


def test_a_disk_that_fails_while_rows_are_read_is_an_error(tmp_path, monkeypatch):
    """Mapped, these rows would end the process with SIGBUS."""
    finish(tmp_path / "a.h5")
    store = FeatureStore(tmp_path / "a.h5")
    with (tmp_path / "a.h5").open("r+b") as file:
        file.truncate(store.offsets["features"] + 5)
    with pytest.raises(VbprError, match="ends too early"):
        store.features[2:4]

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(VbprError, match=r"a\.h5 could not be read \(Input/output error\); mend the disk"):
        store.features[0]


@pytest.mark.parametrize("shape", [(4, 2), (6, 1), (6, 3), (12,), (6, 2, 1)])
def test_features_of_another_shape_are_not_written(tmp_path, shape):
    ids = np.array(list("abcdef"))
    with FeatureStore.create(tmp_path / "f.h5", ids, np.arange(6), 2, PROVENANCE) as store:
        before = (tmp_path / "f.h5").read_bytes()
        with pytest.raises(VbprError, match=r"takes \(6, 2\) features"):
            store.write(np.arange(6), np.ones(shape))
        for rows in ([6], [-1], [[0]]):
            with pytest.raises(VbprError, match="has rows 0 to 5"):
                store.write(np.array(rows), np.ones((1, 2)))
            with pytest.raises(VbprError, match="has rows 0 to 5"):
                store.fail(np.array(rows), ["other"])
        assert (tmp_path / "f.h5").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"item_ids": ["a", "a", "b"]}, "distinct items"),
        ({"item_ids": []}, "distinct items"),
        ({"signatures": np.arange(2)}, "a signature each"),
        ({"dim": 0}, "rows of numbers"),
        ({"provenance": {}}, "must tell backbone, weights, preprocessing, data, fingerprint, reasons"),
        ({"provenance": PROVENANCE | {"reasons": []}}, "must tell reasons"),
    ],
)
def test_files_of_nothing_or_by_nobody_are_not_made(tmp_path, change, words):
    given = {"item_ids": ["a", "b", "c"], "signatures": np.arange(3), "dim": 2, "provenance": PROVENANCE} | change
    with pytest.raises(VbprError, match=words), FeatureStore.create(tmp_path / "f.h5", **given):
        pass
    assert not list(tmp_path.iterdir())


def test_a_digest_is_of_everything_that_a_training_sees(tmp_path):
    def digest(name, ids="abc", provenance=PROVENANCE, rows=((1, 2), (3, 4), (5, 6)), failed=None):
        with FeatureStore.create(tmp_path / name, np.array(list(ids)), np.arange(3), 2, provenance) as store:
            good = [n for n in range(3) if n != failed]
            store.write(np.array(good), np.array([rows[n] for n in good]))
            if failed is not None:
                store.fail(np.array([failed]), ["other"])
        return FeatureStore(tmp_path / name).digest()

    found = [
        digest("a"),
        digest("b", ids="abd"),
        digest("c", provenance=PROVENANCE | {"weights": "others"}),
        digest("d", rows=((1, 2), (3, 4), (5, 7))),
        digest("e", failed=0),
        digest("f", rows=((0, 0), (3, 4), (5, 6))),  # the same numbers as where it failed
    ]
    assert len(set(found)) == 6 and digest("g") == found[0]


def test_only_rows_that_held_features_count_as_dropped(tmp_path):
    ids, path = np.array(list("abcdefg")), tmp_path / "f.h5"
    with FeatureStore.create(path, ids, np.arange(7), 2, PROVENANCE) as store:
        store.write(np.array([0, 1, 3]), np.ones((3, 2)))
        store.fail(np.array([2]), ["other"])
    with FeatureStore.create(path, ids[3:], np.arange(3, 7), 2, PROVENANCE) as store:
        assert store.dropped == 2 and store.done.tolist() == [0]


def test_a_block_s_digest_is_of_its_ids_too(tmp_path):
    path = tmp_path / "a.h5"
    finish(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"i4") + 1] = ord("x")
    path.write_bytes(data)
    assert FeatureStore(path).verify() == [(0, 10)]


def test_a_row_that_failed_before_leaves_no_trace_of_it(tmp_path):
    finish(tmp_path / "a.h5")
    with create(tmp_path / "b.h5") as store:
        store.fail(np.array([3]), ["other"])
        store.write(np.arange(10), values(range(10)))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
