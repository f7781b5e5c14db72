"""The plan of a training against the training: the same steps, the same bytes of all that grows with the data."""

import dataclasses

import numpy as np
import pytest

from vbpr import Interactions, Split, VbprError, configure
from vbpr.training.fit import fit
from vbpr.training.item_features import ItemFeatures
from vbpr.training.models.bpr import bpr, trainer
from vbpr.training.models.bpr.progress import State
from vbpr.training.plan import plan, told


@pytest.fixture(scope="module")
def shop():
    """A split of 300 users and 700 items, of which many were never bought, and 24 features."""
    rng = np.random.default_rng(0)
    items = (700 * rng.random(300 * 12) ** 3).astype(int)
    took = Interactions.of(np.repeat(np.arange(300), 12).astype(str), items.astype(str))
    split = Split.make(took, catalogue=np.sort(np.arange(700).astype(str)))
    features = rng.normal(size=(700, 24)).astype(np.float16)
    return split, ItemFeatures.of(features, np.ones(700, bool))


SIZES = {"dim": 8, "epochs": 2, "batch": 64, "patience": 0, "device": "cpu", "precision": "float32"}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("visual", {}),
        ("visual", {"history": False, "whiten": 0.0}),
        ("visual", {"history_factors": False, "axes": 10, "factors": 3, "item_bias": True}),
        ("visual", {"shared_negatives": 0}),
        ("visual", {"hidden": 7}),
        ("vbpr", {"factors": 5}),
        ("vbpr", {"factors": 5, "joint": True}),
        ("bprmf", {"factors": 5}),
    ],
)
def test_it_holds_what_the_plan_says(shop, monkeypatch, model, options):
    split, features = shop
    sizes = {name: value for name, value in SIZES.items() if model != "bprmf" or name != "dim"}
    alone = {"popular": False} if model == "visual" else {}  # popularity is a column more, where it is wanted
    config = configure(model, **sizes | options | alone)
    width = 24 if model != "bprmf" else 0
    seen, steps, kept = [], [], bpr.BPR.train
    forget, step = State.forget, trainer.gradients

    def train(self, everyone, state):
        steps.append(0)
        kept(self, everyone, state)
        held = [x for x in (everyone.inputs.x, everyone.inputs.h) if x is not None]
        seen.append({"features": sum(x.nbytes for x in held)})

    def gradients(*args):
        steps[-1] += 1
        return step(*args)

    def last(self):
        groups = {"parameters": [self.params], "moments": [self.adam.m, self.adam.v], "best": [self.keeper.best]}
        for name, tables in groups.items():
            seen[-1][name] = sum(v.nbytes for table in tables for k, v in table.items() if k != "validation")
        forget(self)

    monkeypatch.setattr(bpr.BPR, "train", train)
    monkeypatch.setattr(trainer, "gradients", gradients)
    monkeypatch.setattr(State, "forget", last)
    planned = list(plan(split, width, config).parts.values())
    factors = fit(split, features if width else None, config)
    assert [part.steps for part in planned] == steps
    assert [{name: part.memory[name] for name in held} for part, held in zip(planned, seen, strict=True)] == seen
    if len(planned) == 1:
        assert planned[0].vectors == factors.users.nbytes + factors.items.nbytes + factors.bias.nbytes
    assert all(part.seconds > 0 for part in planned)


def test_it_grows_with_what_it_is_of(shop, monkeypatch):
    split, _ = shop
    monkeypatch.setattr("vbpr.training.plan.seconds_a_step", lambda *_: 0.5)
    once = plan(split, 24, configure("visual", **SIZES))
    more = plan(split, 24, configure("visual", **SIZES | {"epochs": 6}))
    assert more.seconds == 3 * once.seconds == 3 * 0.5 * once.parts["visual"].steps and more.parts.keys() == {"visual"}
    wide = plan(split, 24, configure("visual", **SIZES | {"dim": 16})).parts["visual"]
    assert wide.memory["parameters"] > 1.9 * once.parts["visual"].memory["parameters"]
    assert wide.memory["features"] == once.parts["visual"].memory["features"]
    monkeypatch.setattr("vbpr.training.plan.LARGE", 0)
    nowhere = plan(split, 24, configure("visual", **SIZES)).parts["visual"]
    assert (nowhere.memory["best"], nowhere.disk) == (0, nowhere.memory["parameters"])
    assert nowhere.checkpoint == once.parts["visual"].checkpoint
    monkeypatch.setattr("vbpr.training.plan.LARGE", 2**26)
    disk = plan(split, 24, configure("visual", **SIZES | {"memory_limit": 1e-6})).parts["visual"]
    assert (disk.memory["features"], disk.disk) == (0, once.parts["visual"].memory["features"])
    assert "go to nameless files" in told(dataclasses.replace(once, parts={"visual": disk}), 10**12)[1]
    assert "does not fit" in told(once, 0)[-1] and "does not fit" not in told(once, 10**12)[-1]


def test_other_models_have_none(shop):
    with pytest.raises(VbprError, match="--plan is for --model visual, vbpr and bprmf, and not als"):
        plan(shop[0], 0, configure("als"))


def test_the_command_prints_it_and_trains_nothing(cli, refused, board, board_features, tmp_path):
    out = tmp_path / "m.h5"
    code, text, _ = cli("train", "--data", board, "--features", board_features, "--plan", "--dim", 4, "--out", out)
    assert code == 0 and text.startswith("visual: ") and "GB at the highest" in text and not list(tmp_path.iterdir())
    assert "needs --features" in refused("train", "--data", board, "--plan")
