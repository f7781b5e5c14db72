"""Evaluation of a fitted model: parts, intervals, coverage, and the page of numbers."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from vbpr import Factors, VbprError, evaluate
from vbpr.evaluate import interval


def known(seed=0, users=30, items=25):
    """Random factors, one test item a user, items 0-2 unseen and 3-5 cold in training."""
    rng = np.random.default_rng(seed)
    train, test = np.zeros((users, items)), np.zeros((users, items))
    for u in range(users):
        train[u, 6 + rng.permutation(items - 6)[:5]] = 1
        test[u, rng.choice(np.flatnonzero(train[u] == 0))] = 1
    train[:3, 3:6] = 1 - test[:3, 3:6]
    parts = [sp.csr_matrix(m.astype(np.float32)) for m in (train, np.zeros_like(train), test)]
    factors = (rng.standard_normal(s).astype(np.float32) for s in ((users, 4), (items, 4), items))
    return Factors(*factors, np.arange(users).astype(str), np.arange(items).astype(str), *parts)


def test_parts_are_by_train_count():
    factors = known()
    metrics = evaluate(factors)
    count, test = np.asarray(factors.train.sum(0)).ravel(), factors.test.indices
    assert metrics.ranks["all"].items.tolist() == test.tolist()
    assert metrics.ranks["cold"].items.tolist() == test[count[test] < 5].tolist()
    assert metrics.ranks["unseen"].items.tolist() == test[count[test] == 0].tolist()
    assert 0 < len(metrics.ranks["unseen"].items) < len(metrics.ranks["cold"].items) < len(test)


def test_summary_holds_means_and_an_interval_around_them():
    summary = evaluate(known()).summary()
    part = summary["all"]
    assert part["users"] == 30 and part["auc_interval"][0] < part["auc"] < part["auc_interval"][1]
    assert {"auc_strict", "ndcg@10", "recall@20", "hr@10", "mrr", "map", "coverage@10"} <= part.keys()


def test_interval_is_the_normal_one_for_many_users():
    values = np.random.default_rng(0).random(4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    low, high = interval(values)
    assert low == pytest.approx(values.mean() - half, abs=half / 5)
    assert high == pytest.approx(values.mean() + half, abs=half / 5)


def test_coverage_counts_what_anyone_is_shown():
    factors = known()
    shown = {int(i) for u in range(30) for i in factors.recommend(u, 10)[0]}
    assert evaluate(factors).coverage == pytest.approx(len(shown) / 25)


def test_coverage_leaves_out_what_everyone_has_where_fewer_than_ten_are_left():
    rng = np.random.default_rng(0)
    train, test = np.ones((5, 12), np.float32), np.zeros((5, 12), np.float32)
    train[:, 8:], test[:, 8:10] = 0, 1  # ten of twelve are taken, and nobody is shown more than the last two
    parts = [sp.csr_matrix(m) for m in (train, np.zeros_like(train), test)]
    values = (rng.standard_normal(s).astype(np.float32) for s in ((5, 4), (12, 4), 12))
    factors = Factors(*values, np.arange(5).astype(str), np.arange(12).astype(str), *parts)
    shown = factors.recommend_all()[0]
    assert evaluate(factors).coverage == pytest.approx(len(np.unique(shown[shown >= 0])) / 12) == 2 / 12


def test_models_that_cannot_score_unseen_items_leave_that_part_out():
    factors = dataclasses.replace(known(), about={"scores_unseen": False})
    assert evaluate(factors).summary()["unseen"].keys() == {"users"}


def test_a_part_that_the_split_lacks_is_refused():
    with pytest.raises(VbprError, match="no validation items"):
        evaluate(known(), "validation")
