"""What an extraction will take is told after ten pictures, and nothing is written."""

import pytest

from conftest import TINY
from vbpr import Dataset, FeatureStore, VbprError, extract
from vbpr.extraction.plan import plan

TORCH = {"random_weights": True, "engine": "torch", "device": "cpu", "batch": 4}


def test_a_plan_tells_what_the_extraction_then_makes(cli, board, tmp_path):
    words = ("extract", "--backbone", TINY, "--random-weights", "--engine", "torch", "--device", "cpu", "--data", board)
    code, said, err = cli(*words, "--plan", "--out", tmp_path / "f.h5")
    assert code == 0 and "22 images" in said and not list(tmp_path.iterdir()), err
    known = plan(board, TINY, **TORCH)
    extract(Dataset.resolve(board), TINY, tmp_path / "f.h5", **TORCH)
    store = FeatureStore(tmp_path / "f.h5")
    rows = len(store) * (2 * store.dim + 10 + max(map(len, store.item_ids)))
    assert (known.dim, known.images, known.bytes) == (store.dim, len(store), rows)
    assert known.engine == "torch" and known.rate > 0 and f"D {store.dim:,}," in said


def test_what_cannot_be_planned_is_refused(tmp_path, board):
    with pytest.raises(VbprError, match="trained on the images first"):
        plan(board, "cae")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(VbprError, match="none of the 10 pictures"):
        plan(tmp_path, TINY, **TORCH)
