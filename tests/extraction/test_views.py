"""Several pictures of an item, and one picture of many items."""

import numpy as np
import pytest

from conftest import PROVENANCE, TINY, board_items
from vbpr import Dataset, FeatureStore, VbprError, extract
from vbpr.data.images import open_images
from vbpr.extraction.shared import SHARED, shared_pictures
from vbpr.extraction.views import in_steps

OPTIONS = {"random_weights": True, "engine": "torch", "device": "cpu", "batch": 1}
MADE = list(board_items().values())


def run(folder, out, **options):
    return extract(Dataset.resolve(folder), TINY, out, **OPTIONS | options)


def put(folder, **items):
    """Item -> the numbers of the made pictures that it has."""
    for item, numbers in items.items():
        for place, n in enumerate(numbers):
            path = folder / "images" / item / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(MADE[n] if n >= 0 else b"broken")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The features of each made picture, alone."""
    folder = tmp_path_factory.mktemp("alone")
    for n, content in enumerate(MADE):
        (folder / f"{n:02}.png").write_bytes(content)
    return np.asarray(FeatureStore(run(folder, folder / "f.h5").path).features, np.float64)


def rows(path):
    store = FeatureStore(path)
    return dict(zip(store.item_ids.tolist(), np.asarray(store.features), strict=True))


def test_an_item_has_the_mean_of_its_pictures(tmp_path, alone):
    folder = put(tmp_path / "data", a=[0, 1, 2], b=[3], c=[4, 5])
    done = run(folder, tmp_path / "f.h5")
    assert (done.items, done.written, done.views.items) == (3, 6, 6)
    expected = {"a": alone[:3].mean(0), "b": alone[3], "c": alone[4:6].mean(0)}
    for item, row in rows(tmp_path / "f.h5").items():
        assert np.array_equal(row, expected[item].astype(np.float16))
    assert FeatureStore(tmp_path / "f.h5").provenance["views"] == "mean"
    assert rows(tmp_path / "f.views.h5").keys() == {"a/0.png", "a/1.png", "a/2.png", "b/0.png", "c/0.png", "c/1.png"}
    before = (tmp_path / "f.h5").read_bytes()
    assert run(folder, tmp_path / "f.h5").written == 0 and (tmp_path / "f.h5").read_bytes() == before
    first = run(folder, tmp_path / "first.h5", views="first")
    assert first.written == 3 and first.views is None
    assert np.array_equal(rows(first.path)["c"], alone[4].astype(np.float16))


def test_a_further_picture_costs_one_encoding(tmp_path, alone):
    folder = put(tmp_path / "data", a=[0], b=[1])
    (folder / "images.csv").write_text("item_id,file\na,a/0.png\nb,b/0.png\n")
    assert run(folder, tmp_path / "f.h5").written == 2 and not (tmp_path / "f.views.h5").exists()
    put(folder, a=[0, 5])
    (folder / "images.csv").write_text("item_id,file\na,a/0.png\nb,b/0.png\na,a/1.png\n")
    assert run(folder, tmp_path / "f.h5").written == 2  # a/0.png was written anew: another time
    put(folder, b=[1])
    (folder / "images" / "b" / "9.png").write_bytes(MADE[7])
    with (folder / "images.csv").open("a") as handle:
        handle.write("b,b/9.png\n")
    (folder / "images" / "b" / "0.png").touch()
    done = run(folder, tmp_path / "f.h5")
    assert done.written == 2 and done.views.items == 4
    (folder / "images" / "b" / "8.png").write_bytes(MADE[8])
    with (folder / "images.csv").open("a") as handle:
        handle.write("b,b/8.png\n")
    assert run(folder, tmp_path / "f.h5").written == 1
    assert np.array_equal(rows(tmp_path / "f.h5")["b"], alone[[1, 7, 8]].mean(0).astype(np.float16))
    whole = run(folder, tmp_path / "whole.h5")
    assert whole.written == 5 and whole.path.read_bytes() == (tmp_path / "f.h5").read_bytes()
    (folder / "images.csv").write_text("item_id,file\na,a/0.png\na,a/1.png\nb,b/0.png\n")  # of three one is left
    assert run(folder, tmp_path / "f.h5").written == 0
    assert np.array_equal(rows(tmp_path / "f.h5")["b"], alone[1].astype(np.float16))


def test_pictures_that_cannot_be_used_are_left_out_of_the_mean(tmp_path, alone):
    folder = put(tmp_path / "data", a=[0, -1, 2], b=[-1, -1], c=[4, 5])
    done = run(folder, tmp_path / "f.h5", max_bad=0.5)
    assert done.failures == [("b", "not an image")] and len(done.views.failures) == 3
    assert np.array_equal(rows(done.path)["a"], alone[[0, 2]].mean(0).astype(np.float16))
    (folder / "images" / "b" / "1.png").write_bytes(MADE[9])
    done = run(folder, tmp_path / "f.h5", max_bad=0.5)
    assert (done.written, done.failures) == (1, [])
    assert np.array_equal(rows(done.path)["b"], alone[9].astype(np.float16))


@pytest.mark.parametrize("moment", ["pictures", "means"])
def test_a_run_that_ends_between_is_gone_on_with(tmp_path, monkeypatch, moment):
    folder = put(tmp_path / "data", a=[0, 1], b=[2, 3], c=[4, 5])
    whole = run(folder, tmp_path / "whole.h5")
    writes = []

    def interrupted(self, rows, features):
        writes.append(len(rows))
        if len(writes) > (3 if moment == "pictures" else 6):
            raise KeyboardInterrupt
        return original(self, rows, features)

    from vbpr.extraction import views
    from vbpr.stores.features.writer import Writer

    original = Writer.write
    monkeypatch.setattr(Writer, "write", interrupted)
    monkeypatch.setattr(views, "STEP", 2)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "f.h5")
    monkeypatch.undo()
    assert run(folder, tmp_path / "f.h5").written == (3 if moment == "pictures" else 0)
    for suffix in (".h5", ".views.h5"):
        assert (tmp_path / f"f{suffix}").read_bytes() == whole.path.with_suffix(suffix).read_bytes()


def test_steps_hold_so_many_pictures_and_every_item_once(monkeypatch):
    monkeypatch.setattr("vbpr.extraction.views.STEP", 10)
    counts = np.array([3, 12, 4, 4, 4, 1, 10, 2])
    steps = [step.tolist() for step in in_steps(np.arange(8), counts)]
    assert [item for step in steps for item in step] == list(range(8))
    assert all(counts[step].sum() <= 10 or len(step) == 1 for step in steps)


def catalogue(tmp_path):
    """Six items with pictures of their own, and four that share one."""
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(10):
        (folder / f"i{n}.png").write_bytes(MADE[0 if n < 4 else n])
    return folder


def test_a_picture_that_many_items_share_is_counted_and_may_be_left_out(tmp_path, alone):
    folder, out = catalogue(tmp_path), tmp_path / "f.h5"
    done = run(folder, out)
    assert done.shared == [(4, "i0")] and not done.failures
    plain = out.read_bytes()
    done = run(folder, out, max_shared=3)
    assert [item for item, reason in done.failures if reason == SHARED] == ["i0", "i1", "i2", "i3"]
    assert done.written == 0 and FeatureStore(out).provenance["max_shared"] == 3
    fresh = run(folder, tmp_path / "fresh.h5", max_shared=3)
    assert fresh.written == 6 and fresh.path.read_bytes() == out.read_bytes()
    assert np.array_equal(rows(out)["i5"], alone[5].astype(np.float16))
    assert run(folder, out, max_shared=4).written == 4 and not FeatureStore(out).failures()
    run(folder, out, max_shared=3)
    assert run(folder, out).written == 4 and out.read_bytes() == plain


def test_shared_pictures_count_items_and_not_files(tmp_path):
    folder = put(tmp_path / "data", a=[0, 1], b=[0, 0], c=[2, 3], d=[2, 4])
    (folder / "images.csv").write_text(
        "item_id,file\n"
        + "".join(f"{item},{item}/{n}.png\n" for item in "abcd" for n in (0, 1))
        + "e,c/1.png\nf,c/1.png\n"
    )
    source = open_images(folder)
    found = shared_pictures(source.pictures.source, source.pictures)
    names = source.pictures.source.item_ids
    assert {(group.items, *sorted(names[group.rows])) for group in found} == {
        (2, "a/0.png", "b/0.png", "b/1.png"),
        (3, "c/1.png"),
        (2, "c/0.png", "d/0.png"),
    }


def test_a_file_of_another_network_is_not_taken_over(tmp_path):
    folder = put(tmp_path / "data", a=[0, 1], b=[2, 3])
    ids, signatures = np.array(["a", "b"]), np.ones(2, np.uint64)
    with FeatureStore.create(tmp_path / "f.h5", ids, signatures, 4, PROVENANCE):
        pass
    with pytest.raises(VbprError, match="another network"):
        run(folder, tmp_path / "f.h5")
