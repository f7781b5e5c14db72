"""What a trainer keeps: the best epoch of a curve, patience, and a checkpoint of this very run."""

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from vbpr import VbprError
from vbpr.compute import keeper
from vbpr.compute.checkpoint import read_checkpoint, write_checkpoint
from vbpr.compute.keeper import Keeper, adam_state, restore_adam


def keeper_of(path=None, identity="x", seed=0, minutes=0.0):
    return Keeper(path, identity, torch.Generator().manual_seed(seed), minutes)


@pytest.mark.parametrize(
    ("aucs", "best"), [([0.5, 0.7, 0.7], 2), ([0.0, 0.0], 1), ([None, None], 2), ([0.4, 0.3, 0.6], 3), ([], 0)]
)
def test_the_first_of_equal_epochs_is_the_best_and_without_validation_the_latest(aucs, best):
    kept, value = keeper_of(), torch.zeros(2)
    for epoch, auc in enumerate(aucs, 1):
        value.fill_(epoch)
        kept.record({"epoch": epoch, "loss": 1.0} | ({} if auc is None else {"auc": auc}), {"value": value})
    assert kept.best_epoch == best
    assert not best or kept.best["value"].tolist() == [best, best]  # a copy: what is trained on does not change it
    assert [kept.out_of_patience(epoch, 2) for epoch in range(best, best + 3)] == [False, False, True]
    assert not kept.out_of_patience(10**6, 0)


def test_a_checkpoint_restores_curve_best_groups_and_random_numbers(tmp_path):
    before = keeper_of(tmp_path / "c")
    before.record({"epoch": 3, "loss": 0.1, "auc": 1 / 3}, {"t": torch.arange(3.0)})
    torch.rand(7, generator=before.generator)
    words = before.save({"layer": {"a.weight": torch.ones(2, 2), "0/step": torch.tensor(5.0)}}, step=12)
    assert words.endswith("run the same command again to resume")
    after = keeper_of(tmp_path / "c", seed=9)
    groups, progress = after.resume()
    assert progress == {"step": 12} and after.curve == before.curve and after.best_epoch == 3
    assert after.best["t"].tolist() == [0, 1, 2] and groups["layer"].keys() == {"a.weight", "0/step"}
    assert torch.equal(*(torch.rand(5, generator=kept.generator) for kept in (before, after)))


def test_another_runs_checkpoint_or_none_is_not_resumed(tmp_path, monkeypatch):
    keeper_of(tmp_path / "c").save({})
    write_checkpoint(tmp_path / "old", {}, "x", curve=[])  # of an earlier layout
    others = [keeper_of(tmp_path / "c", "y"), keeper_of(tmp_path / "old"), keeper_of(tmp_path / "none"), keeper_of()]
    assert all(other.resume() is None and other.curve == [] for other in others)
    assert keeper_of().save({}) == ""
    monkeypatch.setattr(keeper, "LAYOUT", keeper.LAYOUT + 1)
    assert keeper_of(tmp_path / "c").resume() is None


def test_it_is_due_after_its_minutes(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(keeper.time, "monotonic", lambda: clock[0])
    kept, due = keeper_of(tmp_path / "c", minutes=1.5), []
    for clock[0] in (60.0, 91.0, 92.0):
        due.append(kept.due())
        if due[-1]:
            kept.save({})
    assert due == [False, True, False]


def test_checkpoints_cost_a_small_share_of_the_time(tmp_path, monkeypatch):
    """Of what they take, once that is known; before, of what their size suggests."""
    clock = [0.0]
    monkeypatch.setattr(keeper.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(keeper, "write_checkpoint", lambda *_, **__: clock.__setitem__(0, clock[0] + 9))
    kept, size, spent = keeper_of(tmp_path / "c", minutes=1.5), int(2.9e9), 0.0
    due = []
    for clock[0] in range(100, 1100, 100):
        due.append(kept.due(size))
    assert due == [False] * 9 + [True] and kept.due()  # 14.5 s of 1,000; a small one after its minutes
    for _ in range(400):
        clock[0] += 25
        if kept.due(size):
            kept.save({})
            spent += 9
    assert 0.01 < spent / clock[0] < 0.02
    always = keeper_of(tmp_path / "c")
    clock[0] += 0.1
    assert always.due(size)  # with no minutes between them, at every chance


def test_a_checkpoint_is_a_file_of_safetensors(tmp_path):
    g = torch.Generator().manual_seed(0)
    tensors = {
        "params/t": torch.randn(5, 3, generator=g).T,  # not contiguous
        "params/x": torch.randn(7, generator=g).bfloat16(),
        "n": torch.tensor(5, dtype=torch.int64),
        "none": torch.zeros(0, 4, dtype=torch.float64),
        "generator": g.get_state(),
    }
    write_checkpoint(tmp_path / "c", tensors, ["é", 1], step=2)
    read = safetensors.torch.load_file(tmp_path / "c")
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in tensors)
    again, about = read_checkpoint(tmp_path / "c", ["é", 1])
    assert about == {"step": 2} and all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_adam_goes_on_as_if_it_had_not_stopped():
    def steps(layer, adam, seeds):
        for seed in seeds:
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
            adam.zero_grad()
            F.linear(x, layer).square().sum().backward()
            adam.step()

    ones = [torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2)]
    adams = [torch.optim.Adam([layer], 0.1) for layer in ones]
    steps(ones[0], adams[0], range(6))
    steps(ones[1], adams[1], range(3))
    resumed = torch.optim.Adam([ones[1]], 0.1)
    restore_adam(resumed, {name: value.clone() for name, value in adam_state(adams[1]).items()})
    steps(ones[1], resumed, range(3, 6))
    assert torch.equal(*ones)
    restore_adam(fresh := torch.optim.Adam([ones[0]], 0.1), {})
    assert not fresh.state[ones[0]]


def test_large_best_tensors_lie_in_a_nameless_file(tmp_path, monkeypatch):
    """With the same values, also after they were let go, saved and resumed; where the disk is full, in memory."""
    monkeypatch.setattr(keeper, "LARGE", 100)
    large, small = torch.arange(50.0).view(10, 5), torch.ones(3)

    def twice(kept):
        for epoch, auc in ((1, 0.5), (2, 0.7), (3, 0.6)):
            kept.record({"epoch": epoch, "auc": auc}, {"large": large * epoch, "small": small * epoch})
        return kept

    kept = twice(keeper_of(tmp_path / "c"))
    assert len(kept.mapped) == 1 and not list(tmp_path.iterdir())
    kept.save({})
    again = keeper_of(tmp_path / "c")
    assert again.resume() is not None and len(again.mapped) == 1
    full = lambda *_: (_ for _ in ()).throw(VbprError("no room"))  # noqa: E731
    monkeypatch.setattr(keeper, "memory_on_disk", full)
    unlucky, nowhere = twice(keeper_of(tmp_path / "c")), twice(keeper_of())
    assert not unlucky.mapped and not nowhere.mapped
    for each in (kept, again, unlucky, nowhere):
        assert torch.equal(each.best["large"], large * 2) and torch.equal(each.best["small"], small * 2)
