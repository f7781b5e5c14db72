"""A few kills of each kind in a cluster (the long loop: tools/torture_cluster.py)."""

import subprocess
import sys

import pytest

from conftest import ROOT

pytest.importorskip("ray")


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_file_of_one_process():
    tool = [sys.executable, f"{ROOT}/tools/torture_cluster.py", "--kills", "3", "--images", "200", "--seed", "3"]
    done = subprocess.run([*tool, "--kinds", "worker", "raylet", "command"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 kills at random moments" in done.stdout and "bit-identical" in done.stdout
