"""What vbpr writes and says is what it wrote and said before: files, numbers, help; see `golden.py`."""

import json
import re

import pytest

import golden
from conftest import ROOT, environment, run_python

EXPECTED = json.loads((ROOT / "tests" / "golden.json").read_text(encoding="utf-8"))
ON_ONE_KIND_OF_MACHINE = {"digest", "identity"}  # the last bits of float32 sums are others elsewhere


@pytest.mark.parametrize("command", EXPECTED["help"])
def test_help_says_what_it_said(command):
    assert golden.help_of()[command] == EXPECTED["help"][command]


def test_no_command_is_new():
    assert golden.help_of().keys() == EXPECTED["help"].keys()


@pytest.mark.slow
def test_files_hold_what_they_held(tmp_path):
    env = environment() | {"OPENBLAS_NUM_THREADS": "1"}
    done = run_python(ROOT / "tests" / "golden.py", tmp_path, env=env, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["models"].keys() == EXPECTED["models"].keys()
    pairs = [("features", found["features"], EXPECTED["features"])]
    pairs += [(name, found["models"][name], EXPECTED["models"][name]) for name in EXPECTED["models"]]
    exactly = found["machine"] == EXPECTED["machine"]
    for name, now, before in pairs:
        assert now.keys() == before.keys()
        for key, value in before.items():
            if key == "figures":
                assert now[key] == pytest.approx(value, rel=0.05, abs=1e-3), (name, key)
            elif key == "about":
                assert (now[key] if exactly else rough(now[key])) == (value if exactly else rough(value)), (name, key)
            elif exactly or key not in ON_ONE_KIND_OF_MACHINE:
                assert now[key] == value, (name, key)


def rough(about):
    """A description without the digits of its fractions, the last of which are others on another kind of machine."""
    return re.sub(r"\d+\.\d+(e-?\d+)?", "#", about)
