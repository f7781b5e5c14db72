"""The arithmetic of docs/scale.md is that of its tool, and follows from its figures."""

import subprocess
import sys

from conftest import ROOT


def reckoned(*options):
    done = subprocess.run([sys.executable, f"{ROOT}/tools/reckon.py", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_page_has_what_the_tool_prints():
    assert reckoned() in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_a_case_that_can_be_done_by_hand():
    lines = reckoned(
        *("--items", "3600000", "--users", "1000", "--dim", "95", "--machines", "2", "--threads", "5"),
        *("--images-a-second", "100", "--scores-a-second", "3600000", "--factors", "4"),
    )
    cells = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in lines.splitlines()[2:]}
    assert cells["extract: rate"] == "1,000 images/s" and cells["extract: time"] == "1.0 h"
    assert cells["extract: feature file"] == "720 MB" and cells["extract: driver's bound"] == "5,000,000 images/s"
    assert cells["recommend --all: rate"] == "10 users/s" and cells["recommend --all: time"] == "1.7 min"
    assert cells["recommend --all: model in each worker"] == "72.2 MB"
