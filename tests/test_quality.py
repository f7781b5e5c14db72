"""bench/quality.py keeps finished cells: they have to be of the very code that would compute them anew."""

from pathlib import Path

import vbpr
from conftest import ROOT


def test_a_cell_is_of_the_code_that_computes_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    from quality import DECIDING, code

    seen = set()
    for folder in DECIDING:
        assert list((Path(vbpr.__file__).parent / folder).glob("*.py")), folder
        path = tmp_path / folder / "deep" / "model.py"
        path.parent.mkdir(parents=True)
        path.write_text("rate = 1\n")
        seen.add(before := code(tmp_path))
        path.write_text("rate = 1  # a comment\n")
        assert code(tmp_path) == before
        path.write_text("rate = 2\n")
        seen.add(code(tmp_path))
    assert len(seen) == 2 * len(DECIDING)
