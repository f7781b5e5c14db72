"""Models of other trainings on one ground."""

import json

import numpy as np
import pytest

from oracles import random_factors
from vbpr import Interactions
from vbpr.base.errors import VbprError
from vbpr.evaluation.evaluate import evaluate
from vbpr.evaluation.holdout import on_one_ground
from vbpr.evaluation.metrics import mean_auc


def two():
    """A model, and one of other people, with items fewer and in another order, and other purchases."""
    return random_factors(0), random_factors(1, users=30, items=50)


def test_every_model_ranks_the_same_items_for_the_same_people():
    """AUC by hand: each held-out item against all items that both know and neither model knows the user to have."""
    a, b = two()
    rng = np.random.default_rng(5)
    users, items = rng.integers(0, 40, 300), rng.integers(0, 60, 300)
    held = Interactions.of(a.user_ids[users], a.item_ids[items])
    ground = on_one_ground([a, b], held, baselines=True)
    common = [i for i in a.item_ids if i in set(b.item_ids)]
    pairs = set(zip(a.user_ids[users].tolist(), a.item_ids[items].tolist(), strict=True))

    def has(model, user, item, parts):
        u, i = model.user_index(user), model.item_index(item)
        return any(getattr(model, part)[u, i] for part in parts)

    both = {(u, i) for u, i in pairs if u in set(b.user_ids) and i in set(common)}
    asked = {(u, i) for u, i in both if not any(has(m, u, i, ("train", "validation")) for m in (a, b))}
    assert ground.learned == len(both) - len(asked) and ground.unknown == len(pairs) - len(both)
    for model, cut in zip((a, b), ground.models, strict=False):
        ranks = evaluate(cut, device="cpu").ranks["all"]
        values = mean_auc(ranks)
        for user, value in zip(np.unique(ranks.users), values, strict=True):
            name = str(cut.user_ids[user])
            mine = [i for u, i in asked if u == name]
            out = [i for i in common if any(has(m, name, i, ("train", "validation", "test")) for m in (a, b))]
            scores = dict(zip(model.item_ids, model.scores(np.array([model.user_index(name)]))[0], strict=True))
            others = [i for i in common if i not in out and i not in mine]
            wanted = np.mean(
                [np.mean([(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for j in others]) for i in mine]
            )
            assert value == pytest.approx(wanted, abs=1e-6)
    assert ground.models[2].bias.tolist() == [
        a.train[:, a.item_index(i)].toarray()[[a.user_index(u) for u in ground.models[2].user_ids]].sum()
        for i in ground.models[2].item_ids
    ]


def test_what_was_learned_from_cannot_be_asked():
    a = two()[0]
    taken = a.train.tocoo()
    held = Interactions.of(a.user_ids[taken.row], a.item_ids[taken.col])
    with pytest.raises(VbprError, match="give purchases from after the trainings"):
        on_one_ground([a], held)


def test_the_command_compares_a_model_with_its_update(board_model, tmp_path, cli, refused):
    (tmp_path / "new.csv").write_text("user_id,item_id\nA00,red-new\nB01,blue-new\n")
    (tmp_path / "later.csv").write_text("user_id,item_id\nA01,red-new\nA02,red-new\nB02,blue-new\nnobody,red-new\n")
    new = tmp_path / "new.h5"
    assert cli("update", board_model, "--interactions", tmp_path / "new.csv", "--out", new)[0] == 0
    words = ["evaluate", board_model, new, "--holdout", tmp_path / "later.csv", "--baselines"]
    code, out, err = cli(*words, "--json", tmp_path / "e.json")
    assert code == 0 and "3 purchases on one ground of 32 users and 22 items" in out, err
    told = json.loads((tmp_path / "e.json").read_text())
    assert [each["all"]["users"] for each in told["models"]] == [3, 3, 3] and told["unknown"] == 1
    assert {(t["a"], t["b"]) for t in told["differences"]["auc"]} == {
        (str(board_model), str(new)),
        (str(board_model), "popularity"),
        (str(new), "popularity"),
    }
    assert "needs the timestamps" in refused("evaluate", board_model, "--holdout", "last-week")
    assert "leave out --held" in refused(*words, "--users", 3)
    assert "is for --holdout" in refused("evaluate", board_model, "--baselines")
