"""What long steps tell: how far they are, on a terminal and elsewhere, one step at a time."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

import vbpr.base.progress
from conftest import PROVENANCE
from oracles import random_factors
from vbpr import FeatureStore, evaluate
from vbpr.base.progress import Progress
from vbpr.stores.features.layout import BLOCK


@pytest.fixture
def told(monkeypatch, capsys):
    """What was told on standard error since it was asked last; a line each time, however short a step is."""
    monkeypatch.setattr(vbpr.base.progress, "LINE_EVERY", 0)
    monkeypatch.setattr(vbpr.base.progress, "BRIEF", 0)
    return lambda: capsys.readouterr().err.splitlines()


def counts(lines, label, unit):
    """The numbers in `label: NUMBER of TOTAL unit`."""
    found = [re.match(rf"{label}: ([\d,]+) of ([\d,]+) {unit}, .*/s, .* s left", line) for line in lines]
    assert found and all(found), lines
    return [int(m[1].replace(",", "")) for m in found], {int(m[2].replace(",", "")) for m in found}


def test_a_brief_step_says_nothing_where_there_is_no_terminal(capsys):
    with Progress("extract", 10) as bar:
        bar.advance(10)
    assert capsys.readouterr().err == ""


def test_a_step_within_another_is_silent(told):
    with Progress("outer", 2) as bar:
        with Progress("inner", 5) as inner:
            inner.advance(5)
        bar.advance(2)
    assert counts(told(), "outer", "items") == ([2], {2})
    with pytest.raises(KeyError), Progress("outer", 2), Progress("inner", 5):
        raise KeyError
    with Progress("after", 2) as bar:
        bar.advance(1)
    assert counts(told(), "after", "items") == ([1], {2})


def test_one_bar_is_on_the_terminal(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(vbpr.base.progress, "console", Console(file=terminal, force_terminal=True, width=100))
    with Progress("outer", 2) as bar, Progress("inner", 5) as inner:
        inner.advance(5)
        bar.advance(2)
    assert "outer" in terminal.getvalue() and "2/2" in terminal.getvalue() and "inner" not in terminal.getvalue()


def test_slow_rates_are_not_rounded_to_nothing(told, monkeypatch):
    monkeypatch.setattr(Progress, "rate", 0.25)
    with Progress("singular values", 50, "sweeps") as bar:
        bar.advance(1)
    assert told()[0] == "singular values: 1 of 50 sweeps, 0.25/s, 196 s left"


def test_evaluation_tells_how_many_users_are_ranked(told):
    evaluate(random_factors(users=2000))
    done, total = counts(told(), "evaluate", "users")
    assert total == {2000} and done == sorted(done) and done[-1] == 2000 and len(set(done)) > 1


def test_recommending_tells_how_many_users_are_done(told, tmp_path):
    random_factors(users=70).write_recommendations(tmp_path / "r.parquet", chunk=30)
    assert counts(told(), "recommend", "users") == ([30, 60, 70], {70})


def test_comparing_with_digests_tells_how_many_blocks_are_done(told, tmp_path):
    n = 2 * BLOCK + 1
    ids = np.array([f"i{k}" for k in range(n)])
    with FeatureStore.create(tmp_path / "f.h5", ids, np.ones(n, np.uint64), 3, PROVENANCE) as store:
        store.write(np.arange(n), np.zeros((n, 3), np.float32))
        assert store.verify() == []
    assert counts(told(), "compare with digests", "blocks") == ([1, 2, 3], {3})
