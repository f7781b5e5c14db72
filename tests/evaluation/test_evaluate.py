"""Evaluation of a fitted model: parts, intervals, coverage, and the page of numbers."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from oracles import random_factors
from vbpr import Factors, VbprError, evaluate
from vbpr.evaluation.evaluate import write_users
from vbpr.evaluation.intervals import interval


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


def test_some_users_are_ranked_as_among_all():
    factors = random_factors()
    whole, some = evaluate(factors), evaluate(factors, users=7)
    ranks, chosen = whole.ranks["all"], np.unique(some.ranks["all"].users)
    assert len(chosen) == 7 and some.summary()["all"]["users"] == 7
    mine = np.isin(ranks.users, chosen)
    for name in ("users", "items", "above", "ties", "candidates", "rank"):
        np.testing.assert_array_equal(getattr(some.ranks["all"], name), getattr(ranks, name)[mine])
    assert np.unique(evaluate(factors, users=7, seed=1).ranks["all"].users).tolist() != chosen.tolist()
    assert evaluate(factors, users=10**9).summary() == whole.summary()
    first = [set(factors.recommend(int(user), 10)[0].tolist()) for user in chosen]
    assert some.coverage == len(set().union(*first)) / len(factors.item_ids)  # of those users, too
    assert evaluate(factors, users=1).summary()["all"]["auc_interval"] == [0.0, 1.0]
    with pytest.raises(VbprError, match="users is 0; it must be at least 1"):
        evaluate(factors, users=0)


def test_summary_is_what_its_names_say():
    """By hand, user by user: of those who have test items, nothing that they took competes."""
    factors = random_factors()
    found = {name: [] for name in ("auc", "auc_strict", "ndcg@3", "recall@7", "hr@3", "mrr", "map")}
    for u in range(40):
        scores, held = factors.scores(np.array([u]))[0], set(factors.test[u].indices.tolist())
        others = [i for i in range(60) if i not in held and not factors.seen[u, i]]
        assert len(others) == 50
        auc = np.mean([[scores[h] > scores[i] for i in others] for h in held])
        order = sorted([*held, *others], key=lambda i: -scores[i])
        hits = np.array([i in held for i in order])
        places = np.flatnonzero(hits) + 1
        gain = 1 / np.log2(np.arange(2, 5))
        found["auc"].append(auc)
        found["auc_strict"].append(auc)
        found["ndcg@3"].append((hits[:3] * gain).sum() / gain.sum())
        found["recall@7"].append(hits[:7].sum() / 3)
        found["hr@3"].append(hits[:3].any())
        found["mrr"].append(1 / places[0])
        found["map"].append(np.mean([(n + 1) / place for n, place in enumerate(places)]))
    told = evaluate(factors).summary(3, 7)["all"]
    assert told["users"] == 40 and len({round(float(np.mean(v)), 6) for v in found.values()}) == 6
    for name, values in found.items():
        assert told[name] == pytest.approx(np.mean(values)), name
    assert told["auc_interval"] == pytest.approx(interval(np.array(found["auc"])))
    assert told["auc_interval"][0] < told["auc"] < told["auc_interval"][1]
    assert told["coverage@10"] == evaluate(factors).coverage


def test_ties_count_half_for_the_auc_and_nothing_for_the_strict_one():
    factors = random_factors()
    alike = dataclasses.replace(factors, items=np.zeros_like(factors.items), bias=np.zeros_like(factors.bias))
    told = evaluate(alike).summary()["all"]
    assert (told["auc"], told["auc_strict"]) == (0.5, 0)


def test_interval_is_the_normal_one_for_many_users():
    values = np.random.default_rng(0).random(4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    low, high = interval(values, 8000)
    assert low == pytest.approx(values.mean() - half, abs=half / 15)
    assert high == pytest.approx(values.mean() + half, abs=half / 15)


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


def test_a_part_that_is_none_is_refused():
    for held in ("tst", "train", "users"):
        with pytest.raises(VbprError, match=f"--held {held} is not known; choose test or validation"):
            evaluate(known(), held)


def test_a_row_a_user_has_what_the_summary_is_the_mean_of(tmp_path):
    metrics = evaluate(known())
    summary, rows = metrics.summary(k=(3, 7), recall_k=5), metrics.of_users(k=(7, 3), recall_k=5)
    assert {"ndcg@3", "ndcg@7", "hr@3", "hr@7", "recall@5"} < rows.keys() and "ndcg@10" not in rows
    assert summary["all"]["intervals"].keys() == rows.keys() - {"user", "held_out", "auc", "cold_auc", "unseen_auc"}
    for name in rows.keys() & summary["all"].keys():
        assert summary["all"][name] == pytest.approx(rows[name].mean()), name
    for part in ("cold", "unseen"):
        has = ~np.isnan(rows[f"{part}_auc"])
        assert rows["user"][has].tolist() == np.unique(metrics.ranks[part].users).tolist()
        assert rows[f"{part}_auc"][has].mean() == pytest.approx(summary[part]["auc"])
    assert np.isnan(dataclasses.replace(metrics, scores_unseen=False).of_users()["unseen_auc"]).all()
    names = np.array([f"0{n}" for n in range(30)])
    write_users(tmp_path / "users.parquet", rows, names)
    table = pq.read_table(tmp_path / "users.parquet")
    assert table["user_id"].to_pylist() == names[rows["user"]].tolist()
    assert table["auc"].to_pylist() == rows["auc"].tolist()
    assert table["unseen_auc"].null_count == np.isnan(rows["unseen_auc"]).sum() > 0
