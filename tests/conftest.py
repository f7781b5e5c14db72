"""Fixtures: small catalogues of coloured squares with a known answer, and files made from them.

The checkerboard: users of group A took every red item, users of group B every blue one, so that each user's held-out
item must come before every item of the other colour.
"""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors of a few rows: threads only get in each other's way
os.environ.setdefault(
    "XDG_CACHE_HOME", f"{tempfile.gettempdir()}/vbpr-tests-{os.getuid()}"
)  # of networks that were tried
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # ranx, an oracle, would compile for a minute

import colorsys
import csv
import io
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs: what is tested is not
ROOT = Path(__file__).parent.parent
TINY = "test_resnet"  # a timm model of half a megabyte; its weights are random wherever it is used here
ITEMS, USERS = 10, 16  # of each colour
PROVENANCE = {
    "backbone": "b",
    "weights": "w",
    "preprocessing": "p",
    "data": "d",
    "fingerprint": "f",
    "reasons": ["truncated", "unreadable", "other"],
}


def square(hue: float, rng: np.random.Generator, size: int = 40, kind: str = "PNG") -> bytes:
    """An encoded square of about this hue on a white ground."""
    pixels = np.full((size, size, 3), 255, np.uint8)
    colour = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.75, 1), rng.uniform(0.7, 1))
    a, b = rng.integers(2, size // 4), size - rng.integers(2, size // 4)
    pixels[a:b, a:b] = np.array(colour) * 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def board_items() -> dict[str, bytes]:
    """Item id -> image: ten red and ten blue items, and one of each that nobody took."""
    rng = np.random.default_rng(0)
    hues = {"red": 0.0, "blue": 0.62}
    names = [f"{colour}-{n:02}" for colour in hues for n in range(ITEMS)] + ["red-new", "blue-new"]
    return {name: square(hues[name.split("-")[0]] + rng.uniform(-0.03, 0.03), rng) for name in names}


def board_pairs() -> list[tuple[str, str]]:
    """Every user of group A with every red item, of group B with every blue one."""
    return [
        (f"{group}{u:02}", f"{colour}-{i:02}")
        for group, colour in (("A", "red"), ("B", "blue"))
        for u in range(USERS)
        for i in range(ITEMS)
    ]


def write_catalogue(folder: Path, images: dict[str, bytes], pairs: list[tuple[str, str]], how: str = "folder") -> Path:
    """A canonical folder: interactions.csv, items.csv and images as a folder, a tar or a zip."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("user_id", "item_id"), *pairs])
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("item_id", "title"), *((i, i.replace("-", " ")) for i in images)])
    if how == "folder":
        for n, (name, data) in enumerate(images.items()):
            path = folder / "images" / f"{n % 3}" / f"{name}.png"  # at any depth
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    elif how == "tar":
        with tarfile.open(folder / "images.tar", "w") as archive:
            for name, data in images.items():
                info = tarfile.TarInfo(f"{name}.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        with zipfile.ZipFile(folder / "images.zip", "w") as archive:
            for name, data in images.items():
                archive.writestr(f"{name}.png", data)
    return folder


@pytest.fixture(autouse=True)
def no_default_data(monkeypatch):
    monkeypatch.delenv("VBPR_DATA", raising=False)


@pytest.fixture
def catalogue(tmp_path):
    """Makes canonical folders: catalogue(), catalogue(images={...}, pairs=[...], how="tar", name="other")."""

    def make(images=None, pairs=None, how="folder", name="data"):
        return write_catalogue(
            tmp_path / name,
            board_items() if images is None else images,
            board_pairs() if pairs is None else pairs,
            how,
        )

    return make


@pytest.fixture(scope="session")
def board(tmp_path_factory) -> Path:
    """The checkerboard as a canonical folder; not to be changed."""
    return write_catalogue(tmp_path_factory.mktemp("board") / "board", board_items(), board_pairs())


@pytest.fixture(scope="session")
def board_features(board) -> Path:
    """Its feature file, by the tiny backbone with random weights."""
    from vbpr import Dataset, extract

    out = board.parent / "tiny.h5"
    extract(Dataset.resolve(board), TINY, out, random_weights=True, engine="torch", device="cpu")
    return out


@pytest.fixture(scope="session")
def board_model(board, board_features) -> Path:
    """A `visual` model of it."""
    from vbpr import Dataset, configure, train

    out = board.parent / "tiny.model.h5"
    train(Dataset.resolve(board), [board_features], configure("visual", dim=8, device="cpu"), out)
    return out


@pytest.fixture
def cli(capsys):
    """Runs a command in this process: cli("info", path) -> (exit code, standard output, standard error)."""
    from vbpr.cli import app

    def run(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            app([str(a) for a in args])
        out = capsys.readouterr()
        return left.value.code or 0, out.out, out.err

    return run


@pytest.fixture
def refused(cli):
    """Runs a command that must be refused: exit code 2, a short message and no traceback; returns the message."""

    def run(*args):
        code, out, err = cli(*args)
        assert code == 2, out + err
        assert "Traceback" not in err
        message = err[err.index("error: ") :]
        assert 20 < len(message) < 700
        return message

    return run


def environment() -> dict[str, str]:
    """For subprocesses: this checkout's package first."""
    paths = [str(ROOT / "pipeline"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "OMP_NUM_THREADS": "1"}


def run_python(*args, **options) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "text": True, "timeout": 120, "env": environment(), **options}
    return subprocess.run([sys.executable, *map(str, args)], **options)
