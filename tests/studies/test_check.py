"""The contract tests find what they are for, and pass what is sound."""

import re

import pytest

from conftest import ROOT
from own_code import forget
from vbpr.studies.check import check

EXAMPLES = ROOT / "docs" / "examples"
HEAD = "import numpy as np, torch, vbpr\n"
SOUND = """
class {name}:
    visual = True
    reads = {{"seed"}}

    def __init__(self, config, checkpoint=None):
        self.config = config

    def fit(self, split, features, images=None):
        f = features.standardised(np.arange(len(split.item_ids))).numpy()
        {change}
        return vbpr.factors_of(split, split.train @ f, f)
"""
FAULTS = {  # what is changed, and what the check says of it
    "Sound": ("", None),
    "Drawn": ("f = f + np.random.rand(*f.shape)", "two fits differ; draw from a generator with config.seed"),
    "Peeking": ("return vbpr.factors_of(split, (split.train + 9 * split.test) @ f, f)", "held out for test rise by"),
    "Writing": ("split.train.data[:] = 1.5", "it wrote into split or features"),
    "Sorted": ("f = f[np.argsort(split.item_ids)]", "with the items in another order"),
    "Raw": ("f = np.asarray(features.matrix, np.float32) - features.mean", "use features.standardised(rows)"),
    "Tuple": ("return f, f", "fit returned tuple; it must return vbpr.factors_of(split, users, items)"),
    "Shapes": ("return vbpr.factors_of(split, split.train @ f, f[:5])", "line {line}, in fit: factors do not fit"),
    "Endless": ("f = np.full_like(f, np.nan)", "in fit: factors hold values that are not finite"),
    "Broken": ("f = f @ np.eye(3)", "line {line}, in fit: ValueError: matmul"),
    "Few": ("split.train[split.train.sum(1).argmin()].indices[0]", "line {line}, in fit: IndexError"),
    "Headed": (
        "return vbpr.factors_of(split, split.train @ f, f, head=vbpr.Head(features.mean, features.scale, "
        "2 * np.eye(6, dtype='f4'), np.zeros(6, 'f4')))",
        "the head gives items that nobody took other scores",
    ),
    "Told": ("return vbpr.factors_of(split, split.train @ f, f, about={'x': (1, 2)})", "put only texts, numbers"),
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file with a class for every fault; its place."""
    forget(monkeypatch)
    path = tmp_path / "mine.py"
    path.write_text(HEAD + "".join(SOUND.format(name=name, change=how) for name, (how, _) in FAULTS.items()))
    return path


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_and_nothing_else(mine, name):
    change, said = FAULTS[name]
    kind, findings = check(f"{mine}:{name}")
    found = list(findings)
    faults = [finding for finding in found if finding.state == "fault"]
    assert kind == "model"
    if said is None:
        assert not faults and len(found) == 12
        return
    line = 1 + mine.read_text().split("\n").index("        " + change)
    assert len(faults) == 1 and said.format(line=line) in faults[0].words, found


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("reads = {'dmi'}", r"reads has 'dmi', which is no option of training \(did you mean dim\?\)"),
        ("reads = {'model'}", "reads has 'model', which is no option"),
        ("reads = 'dim'", "reads is 'dim'; it must be a set of names"),
        ("defaults = {'dim': 3}", "defaults has 'dim', which is not in reads; add it there"),
        ("reads = {'dim'}; defaults = {'dim': -3}", "defaults: --dim is -3; it must be at least 0"),
        ("reads = {'dim'}; space = {'dim': 3}", r"space has 'dim': 3; give a list, or \(from, to\)"),
        ("reads = {'dim'}; space = {'dim': (1, 2, 'lin')}", "space has 'dim'"),
        ("reads = {'dim'}; space = {'dim': (1, 'x')}", "space: --dim is 'x'; it must be a whole number"),
        ("reads = {'dim'}; presets = {'small': {'lr': 1.0}}", r"presets\['small'\] has 'lr', which is not in reads"),
        ("visual = 1", "visual is 1; it must be True or False"),
        ("fit = None", "is no model: give a class with fit"),
    ],
)
def test_attributes_that_are_no_models_are_said(tmp_path, cli, attributes, said):
    path = tmp_path / f"attributes{abs(hash(attributes))}.py"
    path.write_text(f"class Mine:\n    def fit(self, split, features, images=None): pass\n    {attributes}\n")
    code, _, error = cli("check", f"{path}:Mine")
    assert code == 2 and re.search(said, error), error


def test_the_templates_pass(cli):
    code, out, _ = cli("check", EXAMPLES / "my_models.py:TwoLayer")
    assert code == 0 and "fault " not in out and out.count("\nok") >= 9
    assert "ok     it learns who likes which colour" in out
    code, out, _ = cli("check", EXAMPLES / "my_eyes.py:Patches")
    assert code == 0 and "fault " not in out and "note" not in out and out.count("\nok") == 6
    assert all(len(path.read_text().splitlines()) <= 60 for path in EXAMPLES.glob("my_*.py"))


def test_the_class_on_the_page_is_a_model(tmp_path, cli):
    page = (ROOT / "docs" / "own-model.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "def fit" in block]
    (tmp_path / "page.py").write_text(HEAD + blocks[0])
    code, out, _ = cli("check", tmp_path / "page.py:Mean")
    assert code == 0 and "fault " not in out and "ok     it learns" in out


def test_vbprs_own_models_pass(cli):
    for name in ("visual", "ease"):
        code, out, _ = cli("check", name)
        assert code == 0 and "fault " not in out and "note" not in out, out
    code, out, error = cli("check", "popularity", "--random-weights")
    assert code == 2 and "are for a backbone" in error


EYES = """
import torch, vbpr
from torch import nn

HOW = vbpr.Preprocessing(size=32, crop=1.0, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)

class Eye(nn.Module):
    preprocessing = HOW
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)

class Batchy(Eye):
    def forward(self, x):
        return super().forward(x - x.mean(0))

class Blind(Eye):
    def forward(self, x):
        return 0 * super().forward(x) + 1

class Loud(Eye):
    def forward(self, x):
        return 1e6 * super().forward(x)

class Restless(Eye):
    def forward(self, x):
        y = super().forward(x)
        return y + 0.1 * torch.rand_like(y[:1])

class Drawn(Eye):
    def __init__(self):
        import numpy as np
        super().__init__()
        self.w = nn.Parameter(torch.from_numpy(np.random.rand(12)).float())
    def forward(self, x):
        return super().forward(x) * self.w

class Map(Eye):
    def forward(self, x):
        return x

class Wrong(Eye):
    def forward(self, x):
        return x @ torch.eye(7)

class Bare(nn.Module):
    pass
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Batchy", "one image at a time they differ"),
        ("Blind", "are the same for different pictures"),
        ("Loud", "scale the output"),
        ("Restless", "they change from call to call"),
        ("Drawn", "built twice, it has other weights"),
        ("Map", r"gives a \(3, 32, 32\) map, not one vector an image"),
        ("Wrong", "line 43, in forward: RuntimeError"),
        ("Bare", "has no preprocessing; give the class `preprocessing = vbpr.Preprocessing"),
        ("HOW", "has no class called 'HOW'"),
    ],
)
def test_each_fault_of_a_backbone_is_found(tmp_path, cli, name, said):
    (tmp_path / "eyes.py").write_text(EYES)
    code, out, error = cli("check", f"{tmp_path}/eyes.py:{name}")
    assert code == 2 and re.search(said, out + error), out + error
    assert out.count("fault ") <= (2 if name == "Restless" else 1)
