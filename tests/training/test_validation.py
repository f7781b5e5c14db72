"""The learning curve's sample: as many users as it may cost, and in a large catalogue a sample of items."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from oracles import brute_auc, case, scores_of
from vbpr.training.models.bpr import validation
from vbpr.training.models.bpr.progress import fell
from vbpr.training.models.bpr.validation import CurveSample


@pytest.mark.parametrize(
    ("users", "items", "taken"), [(6000, 10, 5000), (300, 10, 300), (5000, 60_000, 5000), (6000, 10**6, 4577)]
)
def test_the_curves_users_are_as_many_as_they_may_cost(users, items, taken):
    one = sp.csr_matrix((np.ones(users), np.zeros(users, int), np.arange(users + 1)), shape=(users, items))
    sample = CurveSample(SimpleNamespace(train=one, validation=one, observed=one))
    assert len(sample.users) == len(np.unique(sample.users)) == sample.held.shape[0] == taken
    assert taken == users or sample.users.tolist() != list(range(taken))


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("candidates", [40, 11])
def test_the_auc_is_that_among_the_candidates(monkeypatch, ties, candidates):
    """Of all items, or of those drawn: the definition, over the columns that compete and the pair's own."""
    monkeypatch.setattr(validation, "CANDIDATES", candidates)
    monkeypatch.setattr(validation, "BLOCK", 4)
    monkeypatch.setattr(validation, "WIDTH", 3)
    factors, train, held = case(seed=3, ties=ties)
    split = SimpleNamespace(
        train=sp.csr_matrix(train.astype(np.float32)),
        validation=sp.csr_matrix(held.astype(np.float32)),
        observed=sp.csr_matrix((train | held).astype(np.float32)),
    )
    sample = CurveSample(split)
    compete = np.ones(train.shape[1], bool)
    if candidates < train.shape[1]:
        compete[:] = False
        compete[sample.items[sample.candidates]] = True
        assert compete.sum() == candidates
    scores, outside = scores_of(factors), ~compete[None] & ~held
    expected = brute_auc(scores, train | outside, held, strict=False)
    users, items = (slice(None) if rows is None else rows for rows in sample.wanted(torch.device("cpu")))
    told = sample.auc(factors[0][users], factors[1][items], factors[2][items])
    np.testing.assert_allclose(sample.each.numpy(), expected, atol=1e-12)
    assert told == pytest.approx(expected.mean())


def test_a_fall_is_one_that_chance_does_not_explain():
    rng = np.random.default_rng(0)
    best = torch.from_numpy(rng.uniform(0.4, 1, 4000))
    noise = torch.from_numpy(rng.normal(0, 0.1, 4000))
    noise -= noise.mean()
    standard_error = float(noise.std()) / 4000**0.5
    assert not fell(best, best + noise) and not fell(best, best + noise - 2.9 * standard_error)
    assert fell(best, best + noise - 3.1 * standard_error) and not fell(best, best + noise + 1)
    assert not fell(None, best) and not fell(best, best) and not fell(best[:0], best[:0])
