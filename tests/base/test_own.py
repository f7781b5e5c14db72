"""Code of one's own is run where it is named, once, and its faults name the line."""

import pytest

from own_code import forget
from vbpr import VbprError
from vbpr.base import own
from vbpr.base.own import find_own, known_own, load_own, naming_lines


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """As in a process that has named nothing yet."""
    forget(monkeypatch)


def written(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("x = 1\nclass A: pass\nclass B: pass\n", ":C", r"mine.py has no class called 'C'; it has A, B"),
        ("import json\nclass Layer: pass\n", ":Layr", r"has no class called 'Layr' \(did you mean Layer\?\)"),
        ("class A: pass\n", "", r"mine.py: name what is in the file as well, as in .*mine.py:TwoLayer"),
        ("class A: pass\n", ":", r"has no class called ''"),
        ("class A:\n    def f(self:\n        pass\n", ":A", r"mine.py, line 2: SyntaxError: .*\[def f\(self:\]"),
        (
            "import math\n\nX = math.nothing\n",
            ":X",
            r"line 3: AttributeError: .*nothing.*\[X = math.nothing\]",
        ),
        ("def f():\n    return 1 / 0\n\nf()\n", ":f", r"mine.py, line 2, in f: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", ":A", r"mine.py, line 2: SystemExit: 3"),
        ("import no_such_package\n", ":A", r"mine.py, line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("X = 1\n", ":X", r"mine.py has no class called 'X'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, name, said):
    with pytest.raises(VbprError, match=said):
        load_own(f"{written(tmp_path, text)}{name}")


def test_a_file_that_is_not_there_or_is_no_text_is_said(tmp_path):
    with pytest.raises(VbprError, match=r"none.py cannot be read \(No such file or directory\)"):
        load_own(f"{tmp_path}/none.py:A")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(VbprError, match=r"folder\.py cannot be read"):
        load_own(f"{tmp_path}/folder.py:A")
    (tmp_path / "bytes.py").write_bytes(b"\xff\x00" * 9)
    with pytest.raises(VbprError, match=r"bytes\.py"):
        load_own(f"{tmp_path}/bytes.py:A")


def test_a_file_is_run_once_a_process_and_beside_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("VALUE = 7\n")
    noting = "import neighbour_of_mine as n\nopen(__file__ + '.runs', 'a').write('x')\n"
    path = written(tmp_path, noting + "class A:\n    v = n.VALUE\nclass B: pass\n")
    assert load_own(f"{path}:A").value.v == 7
    assert load_own(f"{path}:B").value.__name__ == "B"
    load_own(f"{path}:A")
    assert (tmp_path / "mine.py.runs").read_text() == "x"
    assert not list(tmp_path.glob("__pycache__/mine*"))
    assert known_own("vbpr.models", f"{path}:A") is load_own(f"{path}:A")
    assert known_own("vbpr.models", f"{tmp_path}/other.py:A") is None


def test_other_text_has_another_digest(tmp_path):
    first = load_own(f"{written(tmp_path, 'class A: pass')}:A").digest
    own.LOADED.clear()
    own.run_file.cache_clear()
    assert load_own(f"{written(tmp_path, 'class A: 1')}:A").digest != first


def test_what_vbpr_itself_would_say_passes(tmp_path, monkeypatch):
    class Special(VbprError):
        pass

    for error in (MemoryError(), RuntimeError("CUDA out of memory"), Special("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), naming_lines(tmp_path / "mine.py"):
            raise error
    monkeypatch.setenv("VBPR_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError), naming_lines(tmp_path / "mine.py"):
        _ = 1 / 0


def installed(tmp_path, monkeypatch, text, points):
    """A package with entry points, as pip leaves it."""
    (tmp_path / "shelf.py").write_text(text)
    info = tmp_path / "shelf-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "shelf", raising=False)


def test_a_plug_in_is_found_by_its_name(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, "class A: pass\n", "[vbpr.models]\nmine = shelf:A\nbroken = shelf:Nothing\n")
    found = find_own("vbpr.models", "mine")
    assert (found.value.__name__, found.origin, len(found.digest)) == ("A", "shelf 1.2", 32)
    assert find_own("vbpr.backbones", "mine") is None and known_own("vbpr.backbones", "mine") is None
    assert own.plugins("vbpr.models") == ["broken", "mine"]
    with pytest.raises(VbprError, match=r"broken of shelf 1.2 cannot be imported \(AttributeError"):
        find_own("vbpr.models", "broken")
