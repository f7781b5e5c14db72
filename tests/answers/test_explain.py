"""Why: shares that add up to the score, for every model, and that are what they are said to be."""

import json

import numpy as np
import pytest

from small import made
from vbpr import MODELS, Dataset, configure, train
from vbpr.answers.explain import explanation, weights_of
from vbpr.stores.model.factors import Factors

SMALL = {"dim": 8, "factors": 6, "epochs": 2}
FITTED = [name for name, model in MODELS.items() if not model.images]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Every model, of the small catalogue, when it is first asked for."""
    folder = tmp_path_factory.mktemp("models")

    class Made(dict):
        def __missing__(self, name):
            model = MODELS[name]
            sizes = {key: n for key, n in SMALL.items() if key in model.reads and model.defaults.get(key, 1)}
            features = [made() / "small.h5"] if model.visual else []
            train(Dataset.resolve(made() / "data"), features, configure(name, **sizes), folder / name)
            self[name] = Factors.load(folder / name)
            return self[name]

    return Made()


@pytest.mark.parametrize("name", FITTED)
def test_the_summands_are_the_score_and_come_from_the_train_items(models, name):
    factors = models[name]
    for user, item in ((0, 3), (7, 20), (23, 11)):
        told = explanation(factors, user, item)
        total = sum(told.shares) + told.constant + told.bias + told.rest
        assert total == pytest.approx(factors.scores(np.array([user]))[0, item], rel=1e-4, abs=1e-5)
        took = factors.item_ids[factors.train[user].indices] if factors.items.shape[1] else []
        assert set(told.history) == set(took) or not factors.items.shape[1]
        assert told.shares == sorted(told.shares, reverse=True)
        if told.exact:
            assert told.rest == pytest.approx(0, abs=1e-3 * max(1, abs(told.score)))
        else:
            assert 0 <= told.explained <= 1
    assert told.exact == (name in ("knn", "spectral", "popularity"))


def test_exact_shares_are_those_of_the_definition(models):
    """knn: the mean cosine, written out; an item's share is its cosine over the number of train items."""
    factors, user, item = models["knn"], 5, 9
    told = explanation(factors, user, item)
    unit = factors.items / np.linalg.norm(factors.items, axis=1, keepdims=True)
    took = factors.item_indices(told.history)
    np.testing.assert_allclose(told.shares, unit[took] @ unit[item] / len(took), rtol=1e-3, atol=1e-5)


def test_weights_find_a_taste_that_is_a_sum(models, monkeypatch):
    monkeypatch.setattr("vbpr.answers.explain.RIDGE", 1e-9)
    factors, rng = models["visual"], np.random.default_rng(0)
    directions = rng.standard_normal((3, factors.items.shape[1]))
    wanted = np.array([2.0, 0.0, 1.0])
    np.testing.assert_allclose(weights_of(factors, directions, wanted @ directions), wanted, atol=1e-3)


def test_the_parts_of_a_blend_are_the_columns_on_record(models):
    factors = models["vbpr"]
    told = explanation(factors, 2, 5)
    assert [part["part"] for part in told.parts] == ["visual", "latent"]
    assert sum(part["share"] for part in told.parts) + told.bias == pytest.approx(told.score, rel=1e-4)
    by_hand = factors.users[2, : SMALL["dim"]] @ factors.items[5, : SMALL["dim"]]
    columns = factors.record.columns[0]["columns"]
    rest = factors.users[2, SMALL["dim"] : columns] @ factors.items[5, SMALL["dim"] : columns]
    assert told.parts[0]["share"] == pytest.approx(by_hand + rest, rel=1e-4, abs=1e-6)
    assert {part["part"] for part in explanation(models["hybrid"], 2, 5).parts} >= {"ease", "visual"}


def test_place_and_popularity_are_counted(models):
    factors = models["popularity"]
    counts = np.asarray(factors.train.sum(0))[0]
    taken = factors.seen_by(0)
    item = next(i for i in np.argsort(-counts) if i not in taken)
    told = explanation(factors, 0, int(item))
    scores = factors.scores(np.array([0]))[0]
    better = [i for i in range(30) if i not in taken and scores[i] > scores[item]]
    assert told.place == 1 + len(better)
    assert (told.bought, told.popularity_place) == (counts[item], 1 + (counts > counts[item]).sum())
    assert explanation(factors, 0, int(taken[0])).place is None


def test_the_command_says_why_and_draws_it(tmp_path, cli, refused):
    model = made() / "small.model.h5"
    words = ["--user", "user/03", "--item", "item-00", "-k", 2]
    code, out, err = cli("explain", model, *words, "--json", tmp_path / "w.json", "--grid", tmp_path / "w.png")
    assert code == 0, err
    told = json.loads((tmp_path / "w.json").read_text())
    assert len(told["because"]) == 2 and told["others"]["items"] == 2 and (tmp_path / "w.png").stat().st_size > 1000
    assert "why user/03 gets item-00 red thing <0>" in out and "shares are approximate" in out
    assert "did you mean item-" in refused("explain", model, "--user", "user/03", "--item", "item-0")
