"""Killed extractions resume to the very file that an undisturbed run makes (the long loop: tools/torture.py)."""

import re
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "kills", "images"), [("torch", 12, 60), ("openvino", 6, 400)])
def test_killed_at_random_moments_resumes_bit_equal(engine, kills, images):
    if engine == "openvino":
        pytest.importorskip("openvino")
    tool = [sys.executable, f"{ROOT}/tools/torture.py", "--seed", "1", "--images", str(images)]
    tool += ["--kills", str(kills), "--engine", engine]
    done = subprocess.run(tool, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{kills} processes killed .*; [1-9]\d* files finished, each bit-identical", done.stdout)
