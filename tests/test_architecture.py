"""Files, classes and functions are short, every folder says what it holds, and the pages about the code are true."""

import ast
import re

import pytest

from conftest import ROOT

PACKAGE = ROOT / "pipeline" / "vbpr"
FILE, CLASS, FUNCTION = 400, 250, 80  # lines, at most
LONGER = {  # that are longer, and why
    "stores/model/factors.py Factors": "the one class of every fitted model; nearly half of it is docstrings",
}
FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
MODULES = sorted(PACKAGE.rglob("*.py"))


def too_long(text, name):
    """What in a module is longer than it should be: `file`, `file Class` or `file function`, with its lines."""
    lines = len(text.splitlines())
    if lines > FILE:
        yield name, lines
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > (CLASS if isinstance(node, ast.ClassDef) else FUNCTION):
                yield f"{name} {node.name}", lines


def test_files_classes_and_functions_are_short():
    found = dict(
        entry
        for path in MODULES
        for entry in too_long(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix())
    )
    assert not {name: lines for name, lines in found.items() if name not in LONGER}
    assert not LONGER.keys() - found.keys()  # what is short again is taken off the list


def test_the_limits_themselves_hold():
    text = "def f():\n" + "    pass\n" * 80 + "class C:\n" + "    x = 1\n" * 250
    assert dict(too_long(text, "a.py")) == {"a.py f": 81, "a.py C": 251}
    assert dict(too_long("x = 1\n" * 401, "a.py")) == {"a.py": 401}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_says_what_it_is_for(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert text, "no docstring"
    if path.name == "__init__.py" and path.parent.parent == PACKAGE and path.parent.name != "sample":
        assert "Uses " in text, "says not what the folder may use"


def test_the_page_of_the_architecture_is_true():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = re.findall(r"`((?:\w+/)+(?:\w+(?:\.\w+)+)?)[`:]", text)
    places = [place for place in places if not place.startswith("artifacts/") and "NAME" not in place]
    roots = (ROOT, PACKAGE, *(PACKAGE / folder for folder in FOLDERS))
    missing = [place for place in places if not any((root / place).exists() for root in roots)]
    assert len(places) > 30 and not missing
    assert all(f"**{folder}**" in text for folder in FOLDERS if folder != "sample")


def test_the_tree_names_every_folder():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## The tree")[1]
    inner = [path for folder in FOLDERS for path in (PACKAGE / folder).iterdir() if (path / "__init__.py").is_file()]
    names = [f"{folder}/" for folder in FOLDERS] + [f"{path.name}/" for path in inner]
    assert not [name for name in names if name not in text]
