"""Ranks by workers are those of one process, to the bit."""

import dataclasses

import numpy as np
import pytest

from vbpr import Factors, VbprError
from vbpr.evaluation import workers
from vbpr.evaluation.evaluate import evaluate
from vbpr.executors.job import Place
from vbpr.executors.local import Local


@pytest.mark.parametrize("users", [None, 7])
def test_the_figures_are_those_of_one_process(board_model, monkeypatch, users):
    given = []

    class Here(Local):
        """In the place of a cluster; it gives the last part first."""

        def run(self, parts, stopping=lambda: False):
            done = list(super().run(parts, stopping))
            given.extend(part.tolist() for _, part, _ in done)
            yield from reversed(done)

    monkeypatch.setattr(workers, "hired", lambda cluster, job: Here(cluster, job))
    monkeypatch.setattr(workers, "RANGE", 5)
    factors = Factors.load(board_model)
    alone = evaluate(factors, device="cpu", users=users)
    shared = evaluate(factors, device="cpu", users=users, cluster="local", path=board_model)
    assert shared.summary() == alone.summary() and len(given) > 1
    assert [user for part in given for user in part] == np.unique(alone.ranks["all"].users).tolist()
    for name in (field.name for field in dataclasses.fields(workers.Ranks)):
        assert np.array_equal(getattr(shared.ranks["all"], name), getattr(alone.ranks["all"], name))


def test_a_worker_that_sees_another_model_is_no_help(board_model):
    with pytest.raises(VbprError, match="it sees another model"):
        workers.RanksJob(str(board_model), "other", "test", "cpu").begin(Place())
    with pytest.raises(VbprError, match="give its path as well"):
        evaluate(Factors.load(board_model), cluster="local")
