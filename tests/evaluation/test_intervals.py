"""Paired tests find real differences and no others, whatever the number of methods and users."""

import itertools
import math

import numpy as np
import pytest

from vbpr.evaluation.intervals import holm, interval, intervals, paired_tests


def test_holm_is_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_paired_tests_find_real_differences_and_no_others():
    rng = np.random.default_rng(0)
    base = rng.random(500)
    tests = paired_tests({"a": base, "b": base + rng.normal(0.05, 0.1, 500), "c": base + rng.normal(0, 0.1, 500)})
    found = {(t["a"], t["b"]): t for t in tests}
    assert found["a", "b"]["p_holm"] < 0.01 and found["a", "b"]["interval"][1] < 0
    assert found["a", "c"]["p_holm"] > 0.01
    half = 1.96 * 0.1 / 500**0.5  # of the difference's mean, by theory
    for test in (found["a", "b"], found["a", "c"]):
        low, high = test["interval"]
        assert (high - low) / 2 == pytest.approx(half, rel=0.12)
    near = paired_tests({"a": base, "b": base + rng.normal(0, 0.1, 500) + half / 1.96})[0]
    z = abs(near["difference"]) / (half / 1.96)
    assert near["p"] == pytest.approx(math.erfc(z / 2**0.5), abs=0.05)  # of both tails
    same = paired_tests({"a": base, "b": base})[0]
    assert same["difference"] == 0 and same["p"] == 1


def test_eleven_methods_can_be_told_apart():
    """With 55 pairs, a p-value must not end where the resamples do."""
    rng = np.random.default_rng(0)
    base = rng.random(500)
    tests = paired_tests({str(n): base + 0.05 * n + rng.normal(0, 0.1, 500) for n in range(11)})
    assert all(test["p_holm"] < 1e-6 for test in tests)


@pytest.mark.parametrize(("users", "least"), [(1, 1.0), (2, 0.5), (3, 0.25), (5, 0.0625)])
def test_few_users_prove_little(users, least):
    a = np.linspace(0.5, 0.9, users)
    test = paired_tests({"a": a + 0.1, "b": a})[0]
    assert test["p"] == least and (users > 1 or test["interval"] == [-1, 1])


def test_pairs_are_all_pairs():
    names = ["a", "b", "c", "d"]
    rng = np.random.default_rng(1)
    tests = paired_tests({n: rng.random(20) for n in names})
    assert [(t["a"], t["b"]) for t in tests] == list(itertools.combinations(names, 2))


def test_intervals_of_several_measures_are_those_of_each():
    rng = np.random.default_rng(0)
    values = {"a": rng.random(200), "b": rng.random(200) < 0.3, "c": np.zeros(200)}
    together = intervals(values)
    for name, each in values.items():
        assert together[name] == pytest.approx(interval(np.asarray(each, float)))
    assert intervals({"a": np.array([0.4])}) == {"a": [0.0, 1.0]}
