"""What the outside relies on: names, the wheel's contents, and a command line that starts at once."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

import vbpr
from conftest import ROOT, run_python

NAMES = [
    "add_items",
    "ALS",
    "Backbone",
    "BACKBONES",
    "BPR",
    "BPRMF",
    "CEASE",
    "configure",
    "Dataset",
    "DVBPR",
    "EASE",
    "encode_photo",
    "evaluate",
    "extract",
    "Factors",
    "factors_of",
    "FeatureALS",
    "FeatureStore",
    "Filter",
    "Head",
    "Hybrid",
    "Interactions",
    "KNN",
    "load_backbone",
    "Metrics",
    "MODELS",
    "Nearest",
    "open_images",
    "Popularity",
    "Preprocessing",
    "Random",
    "report_epoch",
    "Spectral",
    "Split",
    "SplitConfig",
    "Stopped",
    "train",
    "TrainConfig",
    "tune",
    "VBPR",
    "VbprError",
    "Visual",
]


def test_public_names_are_pinned():
    assert vbpr.__all__ == sorted(NAMES) == dir(vbpr)
    for name in NAMES:
        assert getattr(vbpr, name).__module__.startswith("vbpr") if callable(getattr(vbpr, name)) else True
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vbpr.nothing


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_the_objects_of_their_modules(name):
    """Importing a module puts it into its package under its own name, which must be no public one of vbpr."""
    module = importlib.import_module(f"vbpr.{vbpr.PUBLIC[name]}")
    assert getattr(vbpr, name) is getattr(module, name)
    assert not any((ROOT / "pipeline" / "vbpr" / place).exists() for place in (name, f"{name}.py"))


def test_every_module_pins_its_names():
    """A module's `__all__` holds what there is, and all that its siblings import from it."""
    pinned, wanted = {}, {}
    for path in (ROOT / "pipeline" / "vbpr").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT / "pipeline").with_suffix("").parts).removesuffix(".__init__")
        if name.endswith("__main__"):
            continue
        module = importlib.import_module(name)
        pinned[name] = getattr(module, "__all__", None)
        assert all(hasattr(module, public) for public in pinned[name] or []), name
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                wanted.setdefault(f"{base}.{node.module}", set()).update(alias.name for alias in node.names)
    missing = {
        name: sorted(n for n in names - set(pinned[name]) if f"{name}.{n}" not in pinned)
        for name, names in wanted.items()
        if pinned.get(name) is not None
    }
    assert not {name: names for name, names in missing.items() if names}


def test_help_starts_at_once_and_without_torch():
    heavy = ("torch", "timm", "faiss", "h5py", "scipy", "pyarrow", "numpy")
    code = "import sys, vbpr.cli\ntry: vbpr.cli.app(['--help'])\nexcept SystemExit: pass\n" + (
        f"print('HEAVY', [m for m in {heavy} if m in sys.modules])"
    )
    started = time.monotonic()
    done = run_python("-c", code)
    assert done.returncode == 0 and "HEAVY []" in done.stdout, done.stdout + done.stderr
    assert time.monotonic() - started < 5  # a generous bound: machines are busy


def test_options_are_declared_without_torch():
    code = """
import vbpr.extraction.config
from vbpr import TrainConfig
print(TrainConfig(dim=8).dim)
"""
    done = run_python("-c", WITHOUT.format(names=("torch",)) + code)
    assert done.stdout.split() == ["8"], done.stdout + done.stderr


WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ImportError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["info", "MODEL"],
        ["info", "FEATURES"],
        ["recommend", "MODEL", "--user", "A00"],
        ["recommend", "MODEL", "--liked", "red-00", "-k", "3", "--diversity", "0.3"],
        ["recommend", "MODEL", "--all", "--out", "OUT"],
        ["similar", "MODEL", "--item", "red-00"],
        ["index", "MODEL"],
        ["export", "MODEL", "--to", "faiss", "--out", "FOLDER"],
        ["import", "ARRAY", "--ids", "numbers", "--out", "NEW"],
    ],
    ids=lambda words: " ".join(words),
)
def test_what_answers_needs_no_torch(words, board_model, board_features, tmp_path):
    """As where torch is not installed."""
    model = shutil.copy(board_model, tmp_path / "m.model.h5")
    np.save(tmp_path / "x.npy", np.eye(5))
    places = {"MODEL": str(model), "FEATURES": str(board_features), "OUT": str(tmp_path / "all.csv")}
    places |= {name: str(tmp_path / at) for name, at in (("FOLDER", "out"), ("ARRAY", "x.npy"), ("NEW", "x.h5"))}
    words = [places.get(word, word) for word in words]
    code = f"import vbpr\nfrom vbpr.cli import app\nvbpr.Factors, vbpr.Dataset, vbpr.Nearest\napp({words!r})"
    done = run_python("-c", WITHOUT.format(names=("torch", "torchvision", "timm")) + code)
    assert done.returncode == 0 and done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["uvicorn", "fastapi"])
def test_an_extra_that_is_not_installed_is_named(name, board_model):
    code = f"from vbpr.cli import app\napp(['serve', {str(board_model)!r}])"
    done = run_python("-c", WITHOUT.format(names=(name,)) + code)
    assert done.returncode == 2
    assert done.stderr == f"error: vbpr serve needs {name}: pip install fastapi uvicorn python-multipart\n"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools")
    ignore = shutil.ignore_patterns(".git", ".venv", "artifacts", "*.egg-info", "build", "__pycache__", "tests")
    shutil.copytree(ROOT, tmp_path / "source", ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path]
    done = subprocess.run([*command, tmp_path / "source"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        tops = {name.split("/")[0] for name in names}
        assert {top for top in tops if not top.endswith(".dist-info")} == {"vbpr"}
        needed = {
            "vbpr/py.typed",
            "vbpr/sample/images.tar",
            "vbpr/sample/interactions.csv",
            "vbpr/training/models/ease.py",
        }
        assert needed <= set(names)
        assert sum(info.file_size for info in wheel.infolist() if "/sample/" in info.filename) <= 10 * 2**20


def test_a_container_gets_as_many_threads_as_it_may_use(tmp_path, monkeypatch):
    from vbpr import __main__ as program

    monkeypatch.setattr(program, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for told, threads in (("max 100000\n", None), ("350000 100000\n", "4"), ("?", None), ("6400000 100000\n", None)):
        (tmp_path / "cpu.max").write_text(told)
        monkeypatch.setattr(os, "environ", {})
        program.share_processors()
        assert os.environ == {"GOMP_SPINCOUNT": "10000"} | ({"OMP_NUM_THREADS": threads} if threads else {})
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "8"})
    (tmp_path / "cpu.max").write_text("100000 100000")
    program.share_processors()
    assert os.environ == {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "8"}


@pytest.mark.slow
def test_training_does_not_import_the_backbones_libraries():
    code = "import vbpr.training.train, sys; print([m for m in ('timm', 'torchvision') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
