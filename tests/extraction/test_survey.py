"""A dozen odd networks of timm, as `tools/survey_backbones.py` tries them."""

import re
import sys

import pytest

from conftest import ROOT

pytest.importorskip("openvino")
# Attention in hard steps, convolutions in three dimensions, branches to be merged, layers that are there twice, norms
# of groups and of weights, attention across channels.
ODD = (
    *(
        "levit_128s",
        "lambda_resnet26t",
        "repvgg_a0",
        "mobileone_s0",
        "efficientvit_m0",
        "coat_tiny",
        "xcit_nano_12_p8_224",
    ),
    *("edgenext_xx_small", "mobilevit_xxs", "ghostnet_050", "test_nfnet", "test_efficientnet_gn"),
)


@pytest.fixture
def survey(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import survey_backbones

    yield survey_backbones
    sys.modules.pop("survey_backbones")


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd_networks_run_by_openvino_and_agree_with_torch(survey, name):
    row = survey.tried_apart(name, 240)
    assert survey.verdict(row) == "OpenVINO" and survey.passes(row["torch"]) and survey.passes(row["one photo"]), row


def test_the_survey_goes_on_from_what_is_kept_and_says_what_it_found(survey, tmp_path, monkeypatch):
    found = {
        "a": {"D": 8, "px": 32, "words": "", "float32": 1e-7, "openvino": 1e-6, "torch": 1e-6},
        "b": {"D": 8, "px": 32, "words": "", "float32": 1e-7, "openvino": "ends the process", "torch": 1e-6},
        "c": {"refused": "it gives a map"},
        "d": {"D": 8, "px": 32, "words": "are all zero", "openvino": 1e-6},
    }
    tried = []
    monkeypatch.setattr(survey, "families", lambda: [*((name, 1e6) for name in found), ("e", 2e8)])
    monkeypatch.setattr(survey, "tried_apart", lambda name, limit: tried.append(name) or found[name])
    kept = tmp_path / "kept.jsonl"
    assert survey.survey(kept, 1, -1) is None and not tried  # no time at all
    rows = survey.survey(kept, 1, 1)
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines[:-2]) + "\n")
    assert survey.survey(kept, 1, 1) == rows and tried == ["a", "b", "c", "d", "d"]
    assert [survey.verdict(row) for row in rows] == [
        "OpenVINO",
        "torch (OpenVINO: ends the process)",
        "refused: it gives a map",
        "refused: its features are all zero",
        "not tried: too large",
    ]
    assert len(re.findall(r"^\| [a-e] ", survey.section(rows), re.MULTILINE)) == 5
