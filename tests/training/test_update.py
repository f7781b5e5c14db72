"""A model that takes in what was bought since."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from conftest import board_pairs
from small import made
from vbpr import MODELS, Interactions, configure, train
from vbpr.base.errors import VbprError
from vbpr.stores.model.factors import Factors
from vbpr.training.update import fold, steps
from vbpr.training.update.update import update

NEW = [("A00", "red-new"), ("fresh", "red-00"), ("fresh", "red-03"), ("fresh", "red-04"), ("B03", "blue-new")]


def read(pairs):
    return Interactions.of(*zip(*pairs, strict=True))


@pytest.fixture(scope="module")
def without(board, board_features, tmp_path_factory):
    """Each model of the checkerboard without some of its pairs, when it is first asked for; and the pairs."""
    folder = tmp_path_factory.mktemp("old")
    rows = [pair for pair in board_pairs() if not (pair[1].endswith("-09") and pair[0] in ("A00", "A01", "B00"))]
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id", *map(",".join, rows)]) + "\n")
    sizes = {"dim": 6, "factors": 4, "epochs": 8}

    class Made(dict):
        def __missing__(self, name):
            model = MODELS[name]
            own = {key: n for key, n in sizes.items() if key in model.reads and model.defaults.get(key, 1)}
            train(folder, [board_features] if model.visual else [], configure(name, **own), folder / name)
            self[name] = folder / name
            return self[name]

    return Made()


@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if not m.images and n != "random"])
def test_new_purchases_users_and_items_are_in_the_model(without, board_features, tmp_path, name):
    """Someone new who took red things is ranked like the others who take red, and what nobody told of stays."""
    old = Factors.load(without[name])
    pairs = [*NEW, ("A00", "red-09")]
    done = update(without[name], read(pairs), out=tmp_path / "new.h5")
    now = Factors.load(tmp_path / "new.h5")
    assert done.pairs + done.known == len(pairs) and done.users == ["fresh"]
    expected = [] if MODELS[name].visual else ["blue-new", "red-new"]
    assert done.items == expected and now.digest() == done.factors.digest()
    taken = now.seen
    for user, item in pairs:
        assert taken[now.user_index(user), now.item_index(item)]
    np.testing.assert_array_equal(now.user_ids[: len(old.user_ids)], old.user_ids)
    for part in ("validation", "test"):
        assert (getattr(now, part).nnz, getattr(now, part).shape) == (getattr(old, part).nnz, now.train.shape)
    assert now.about["updates"][0] | {"interactions": ""} == {
        "interactions": "",
        "pairs": done.pairs,
        "users": 1,
        "items": len(expected),
    }
    scores = now.scores(now.user_indices(["fresh"]))[0]
    red = np.char.startswith(now.item_ids, "red-0")
    if name != "popularity":
        assert scores[red].mean() > scores[np.char.startswith(now.item_ids, "blue-0")].mean()
    # twice is once
    with pytest.raises(VbprError, match="none of these interactions is new"):
        update(tmp_path / "new.h5", read(pairs))
    assert update(without[name], read(pairs), out=tmp_path / "b.h5").factors.digest() == done.factors.digest()


@pytest.mark.parametrize("name", ["knn", "popularity"])
def test_closed_forms_are_what_a_training_gives(without, tmp_path, name):
    done = update(without[name], read([("A00", "red-09"), ("B00", "blue-09")]), out=tmp_path / "n.h5").factors
    if name == "popularity":
        np.testing.assert_array_equal(done.bias, done.train.getnnz(axis=0))
    else:
        wanted = (done.train @ done.items) / np.maximum(1, done.train.getnnz(axis=1))[:, None]
        np.testing.assert_allclose(done.users, wanted, rtol=1e-5, atol=1e-6)


def test_a_user_moves_by_the_regression_of_tastes_on_histories():
    """Written out with dense matrices; whoever took nothing new stays."""
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((30, 3)).astype(np.float32), rng.standard_normal((20, 3)).astype(np.float32)
    before = rng.random((30, 20)) < 0.2
    now = before.copy()
    now[4, :3] = now[29, 5] = True
    before[29] = False
    moved = fold.moved_users(
        users, items, sp.csr_matrix(before, dtype=np.float32), sp.csr_matrix(now, dtype=np.float32), 29
    )
    x = lambda t: np.c_[t @ items / np.sqrt(np.maximum(1, t.sum(1)))[:, None], np.ones(30)]  # noqa: E731
    some = before.any(1)
    gram = x(before)[some].T @ x(before)[some]
    turn = np.linalg.solve(gram + np.eye(4) * fold.USERS * np.trace(gram) / 4, x(before)[some].T @ users[some])
    wanted = users + (x(now) - x(before)) @ turn
    wanted[29] = (x(now) @ turn)[29]
    np.testing.assert_allclose(moved, wanted, rtol=1e-3, atol=1e-4)
    same = (before == now).all(1)
    np.testing.assert_array_equal(moved[same], users[same])


def test_a_step_is_the_gradient_of_the_loss_s():
    """Adagrad's first step goes by the sign of each derivative, which finite differences have as well."""
    import torch

    rng = np.random.default_rng(1)
    tables = [torch.from_numpy(rng.standard_normal((n, 3))) for n in (4, 6)]
    bias, u, i, j = (
        torch.from_numpy(rng.standard_normal(6)),
        np.array([0, 2, 2]),
        np.array([1, 1, 3]),
        np.array([4, 5, 1]),
    )
    keys = np.sort(np.array([0 * 6 + 1, 2 * 6 + 1, 2 * 6 + 3, 0 * 6 + 4]))

    def loss(users, items, b):
        total = 0.0
        for user, item in zip(u, i, strict=True):
            for other in j:
                if user * 6 + other not in keys:
                    gap = users[user] @ items[item] + b[item] - users[user] @ items[other] - b[other]
                    total += np.log1p(np.exp(-gap)) / len(u)
        return total

    before = [table.numpy().copy() for table in (*tables, bias)]
    three = [(tables[0], 0.1), (tables[1], 0.1), (bias[:, None], 0.1)]
    steps.step(three, [torch.zeros_like(table) for table, _ in three], bias, u, i, j, keys)
    for n, after in enumerate((*tables, bias)):
        for at in np.ndindex(*before[n].shape):
            moved = [each.copy() for each in before]
            moved[n][at] += 1e-6
            slope = (loss(*moved) - loss(*before)) / 1e-6
            assert float(after[at]) - before[n][at] == pytest.approx(
                -0.1 * np.sign(slope) * (abs(slope) > 1e-4), abs=1e-3
            )


def test_what_cannot_be_taken_in_is_refused_and_the_file_is_as_it_was(tmp_path, cli, refused):
    model, table = tmp_path / "m.h5", tmp_path / "new.csv"
    model.write_bytes((made() / "small.model.h5").read_bytes())
    factors, before = Factors.load(model), model.read_bytes()
    table.write_text("user_id,item_id\n" + "".join(f"user/{u:02},item-{i:02}\n" for u in range(24) for i in range(30)))
    assert "train again" in refused("update", model, "--interactions", table)
    user, item = factors.train.tocoo().row[0], factors.train.tocoo().col[0]
    table.write_text(f"user_id,item_id\n{factors.user_ids[user]},{factors.item_ids[item]}\n")
    assert "none of these interactions is new" in refused("update", model, "--interactions", table)
    random = tmp_path / "random.h5"
    dataclasses.replace(factors, about=factors.about | {"model": "random"}).save(random)
    assert "cannot be updated" in refused("update", random, "--interactions", table)
    assert model.read_bytes() == before
    table.write_text("user_id,item_id\nsomeone,item-01\nsomeone,other\n")
    code, out, err = cli("update", model, "--interactions", table)
    assert code == 0 and "2 new purchases" in out and "1 new item without features" in out, err
    assert cli("recommend", model, "--user", "someone")[0] == 0
