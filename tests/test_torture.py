"""Killed extractions resume to the very file that an undisturbed run makes (the long loop: tools/torture.py)."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "torture.py"


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "kills"), [("torch", 12), ("openvino", 6)])
def test_killed_at_random_moments_resumes_bit_equal(tmp_path, engine, kills):
    if engine == "openvino":
        pytest.importorskip("openvino")
    spec = importlib.util.spec_from_file_location("torture", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.torture(kills, tmp_path, seed=1, images=60, how=module.SMALLEST | {"engine": engine})
    assert result["killed"] == kills
    assert result["finished"] >= 1
