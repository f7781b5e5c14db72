import dataclasses
import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.sparse as sp

from commands import run
from small import made
from vbpr.answers.filters import groups_of
from vbpr.base.errors import VbprError
from vbpr.evaluation.evaluate import evaluate
from vbpr.stores.model.bounds import Bounds, extended
from vbpr.stores.model.factors import Factors
from vbpr.stores.model.topk import diversified


def random_factors(users=40, items=60, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    values = (rng.integers(-1, 2, (n, 3)) if ties else rng.standard_normal((n, 3)) for n in (users, items))
    u, i = (v.astype(np.float32) for v in values)
    bias = np.zeros(items, np.float32) if ties else rng.standard_normal(items).astype(np.float32)
    taken = rng.random((users, items)) < 0.2
    taken[0] = True  # a user who has everything
    train = sp.csr_matrix(taken, dtype=np.float32)
    empty = sp.csr_matrix((users, items), dtype=np.float32)
    names = (np.array([f"{what}{n}" for n in range(count)]) for what, count in (("u", users), ("i", items)))
    return Factors(u, i, bias, *names, train, empty, empty)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("across", [1, 2048])  # blocks of 23 (at least twice what is asked for), and all 45 at once
def test_many_at_once_are_each_one_alone_ties_included(ties, seen, across, monkeypatch):
    monkeypatch.setattr("vbpr.stores.model.topk.ACROSS", across)
    factors = random_factors(ties=ties)
    allowed = np.arange(60) % 4 > 0
    items, scores = factors.recommend_all(k=10, seen=seen, allowed=allowed, block=130)
    for user in range(40):
        wanted = factors.users[user] @ factors.items.T + factors.bias
        bad = ~allowed if seen else ~allowed | (factors.train[user].toarray()[0] > 0)
        order = [i for i in np.argsort(-wanted, kind="stable") if not bad[i]][:10]  # the naive twin
        assert items[user][items[user] >= 0].tolist() == order
        alone = factors.recommend(user, 10, seen, allowed=allowed)
        np.testing.assert_array_equal(alone[0], order)
        np.testing.assert_allclose(scores[user][: len(order)], wanted[order], rtol=1e-5, atol=1e-6)
    if not seen:
        assert (items[0] == -1).all() and np.isneginf(scores[0]).all()


@pytest.mark.parametrize("fall", [0.8, 1.0])  # of the axes' energy: few of them bound scores, or none but all
def test_bounds_lose_no_item_and_an_answer_hangs_on_no_other_user(fall):
    rng, (users, items, rank) = np.random.default_rng(1), (90, 5000, 24)
    turn = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    u, i = (
        (rng.standard_normal((n, rank)) * fall ** np.arange(rank) @ turn).astype(np.float32) for n in (users, items)
    )
    i[4000:4050] = i[3]  # alike, across blocks
    bias = rng.standard_normal(items).astype(np.float32)
    bias[4000:4050] = bias[3]
    bounds = Bounds.of(u, i, bias, 10)
    assert bounds.axes.shape[1] < rank or fall == 1
    exact, above = u.astype(np.float64) @ i.T + bias, np.linalg.norm(u, axis=1)[:, None] * bounds.longest * 1e-5
    above = above + extended(u, np.ones(users, np.float32), bounds.axes) @ bounds.rows.T
    assert (above >= exact).all()
    train = sp.csr_matrix(rng.random((users, items)) < 0.01, dtype=np.float32)
    empty = sp.csr_matrix((users, items), dtype=np.float32)
    names = (np.array([f"{what}{n:04}" for n in range(count)]) for what, count in (("u", users), ("i", items)))
    factors = Factors(u, i, bias, *names, train, empty, empty)
    found, scores = factors.recommend_all(k=20)
    for user in range(users):
        alone = factors.recommend(user, 20)
        np.testing.assert_array_equal(found[user], alone[0])
        np.testing.assert_allclose(scores[user], alone[1], rtol=1e-4, atol=1e-5)
    for part in (np.arange(17), np.arange(17, 90)):
        for one, whole in zip(factors.recommend_all(part, 20), (found, scores), strict=True):
            np.testing.assert_array_equal(one, whole[part])


@pytest.mark.parametrize("k", [1, 7, 25, 99])
def test_blocks_of_items_change_nothing(k, monkeypatch):
    factors = random_factors(ties=True)
    whole = factors.recommend_all(k=k)
    monkeypatch.setattr("vbpr.stores.model.topk.ACROSS", 1)
    monkeypatch.setattr("vbpr.stores.model.topk.ROWS", 16)
    for one, other in zip(whole, factors.recommend_all(k=k), strict=True):
        np.testing.assert_array_equal(one, other)
    nothing = factors.recommend_all(k=k, allowed=np.zeros(60, bool))
    assert (nothing[0] == -1).all() and np.isneginf(nothing[1]).all() and nothing[0].shape == (40, k)


def test_fold_in_recovers_tastes_that_are_linear_in_the_history():
    factors = random_factors(users=200)
    count = np.diff(factors.train.indptr)
    mean = np.asarray(factors.train @ factors.items) / np.sqrt(count)[:, None]
    turn = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    factors = dataclasses.replace(factors, users=(mean @ turn + 0.5).astype(np.float32))
    liked = np.array([4, 9, 30])
    wanted = factors.items[liked].sum(0) / np.sqrt(3) @ turn + 0.5
    np.testing.assert_allclose(factors.fold_in(factors.items[liked]), wanted, rtol=0.05, atol=0.05)


def test_diversity_follows_its_definition_and_zero_changes_nothing():
    rng = np.random.default_rng(2)
    scores, vectors = np.sort(rng.random(30))[::-1], rng.standard_normal((30, 4))
    assert diversified(scores, vectors, 8, 0.0).tolist() == list(range(8))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    gain = (scores - scores.min()) / (scores.max() - scores.min())
    naive = [0]
    while len(naive) < 8:
        rest = [i for i in range(30) if i not in naive]
        naive.append(max(rest, key=lambda i: 0.5 * gain[i] - 0.5 * max(unit[i] @ unit[j] for j in naive)))
    assert diversified(scores, vectors, 8, 0.5).tolist() == naive


def test_diversity_looks_beyond_a_hundred_items_of_one_kind():
    """300 shoes score best, three coats a little less: a varied list has coats in it."""
    shoes, coats = np.tile([1.0, 0.0], (300, 1)), np.tile([0.0, 1.0], (3, 1))
    items = np.vstack([shoes, coats]).astype(np.float32)
    nobody = sp.csr_matrix((1, 303), dtype=np.float32)
    ids = np.array([f"i{n}" for n in range(303)])
    taste = np.array([[1.0, 0.9]], np.float32)
    f = Factors(taste, items, np.zeros(303, np.float32), np.array(["u"]), ids, nobody, nobody, nobody, None, {})
    assert (f.recommend(0, 10)[0] < 300).all()
    assert (f.recommend(0, 10, diversity=0.6)[0] >= 300).any()


def test_a_table_of_some_users_is_in_their_order(tmp_path):
    factors = random_factors()
    rows = factors.write_recommendations(tmp_path / "r.parquet", 4, factors.user_indices(["u9", "u3"]), chunk=1)
    table = pyarrow.parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert rows == len(table) == 8
    assert [row["user_id"] for row in table] == ["u9"] * 4 + ["u3"] * 4
    assert [row["rank"] for row in table] == [1, 2, 3, 4] * 2
    assert [row["item_id"] for row in table[4:]] == [str(i) for i in factors.item_ids[factors.recommend("u3", 4)[0]]]
    factors.write_recommendations(tmp_path / "r.csv", 4, factors.user_indices(["u9", "u3"]), chunk=1)
    assert pyarrow.csv.read_csv(tmp_path / "r.csv").to_pylist() == [
        row | {"score": pytest.approx(row["score"])} for row in table
    ]
    with pytest.raises(VbprError, match=r"x\.txt: give a name that ends in \.parquet or \.csv"):
        factors.write_recommendations(tmp_path / "x.txt")
    every = factors.write_recommendations(tmp_path / "r.parquet", 10**9)  # no room is taken for more than there are
    assert every == len(factors.user_ids) * len(factors.item_ids) - factors.seen.nnz


def test_the_command_answers_one_user_a_file_of_users_and_someone_unknown(tmp_path, capsys):
    model = made() / "small.model.h5"
    assert run("recommend", model, "--user", "user/01", "-k", 3, "--category", "GREEN") == 0
    assert capsys.readouterr().out.count("green thing") == 3
    (tmp_path / "users").write_text("user/02\n\nuser/05\n")
    assert run("recommend", model, "--users", tmp_path / "users", "--out", tmp_path / "o.parquet") == 0
    assert set(pyarrow.parquet.read_table(tmp_path / "o.parquet")["user_id"].to_pylist()) == {"user/02", "user/05"}
    photo = made() / "data" / "images" / "item-05.png"
    assert run("recommend", model, "--liked", "item-02", "--image", photo, "-k", 2, "--diversity", 0.3) == 0
    assert "item-02" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--user", "user/01", "--all"], "give one of"),
        (["--all"], "--out"),
        (["--user", "user/1"], "did you mean user/"),
        (["--user", "user/01", "--category", "gren"], "did you mean green"),
        (["--liked", "item-99"], "no item 'item-99'"),
        (["--user", "user/01", "--allowed", "/nonexistent"], "cannot be read"),
    ],
)
def test_faults_say_what_to_do(words, said, capsys):
    assert run("recommend", made() / "small.model.h5", *words) == 2
    assert said in capsys.readouterr().err


def outputs(model, data, file):
    """Commands that write into a file, each with a name that its kind of file may have."""
    return {
        "answers": (["similar", model, "--items", file / "ids", "--out"], "near.csv"),
        "everyone": (["recommend", model, "--all", "--out"], "all.parquet"),
        "figures": (["evaluate", model, "--json"], "figures.json"),
        "pictures": (["similar", model, "--item", "item-01", "--data", data, "--grid"], "near.png"),
        "photograph": (["similar", model, "--item", "item-01", "--data", data, "--grid"], "near.jpg"),
        "page": (["report", model, "--data", data, "--out"], "page.html"),
    }


@pytest.mark.parametrize("what", ["answers", "everyone", "figures", "pictures", "photograph", "page"])
def test_only_what_a_command_wrote_is_written_over(what, tmp_path, capsys):
    data = made() / "data"
    (tmp_path / "ids").write_text("item-01\n")
    words, name = outputs(made() / "small.model.h5", data, tmp_path)[what]
    assert run(*words, tmp_path / name) == run(*words, tmp_path / name) == 0
    capsys.readouterr()
    table = pyarrow.csv.read_csv(data / "interactions.csv")
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    own = [data / "items.csv", data / "images" / "item-01.png", tmp_path / "table.parquet", tmp_path / "ids"]
    for theirs in own:
        target = tmp_path / f"own-{name}"
        target.write_bytes(theirs.read_bytes())
        assert run(*words, target) == 2
        assert f"own-{name} is there and holds something else" in capsys.readouterr().err
        assert target.read_bytes() == theirs.read_bytes()


def test_a_model_says_of_which_part_its_best_epoch_is_and_two_of_a_kind_are_told_apart(tmp_path, capsys):
    model = tmp_path / "two.model.h5"
    small = ["--data", made() / "data", "--dim", 4, "--epochs", 2]
    assert (
        run("train", "--features", made() / "small.h5", "--model", "vbpr", *small, "--factors", 4, "--out", model) == 0
    )
    assert "best epoch of the visual part: " in capsys.readouterr().out
    assert run("train", "--features", made() / "small.h5", *small, "--out", tmp_path / "one.h5") == 0
    assert "best epoch: " in capsys.readouterr().out
    assert run("evaluate", tmp_path / "one.h5", made() / "small.model.h5", model, "--json", tmp_path / "e.json") == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'one.h5'}"[:20] in out.replace("\n", "") and "vbpr: " not in out
    told = json.loads((tmp_path / "e.json").read_text())
    assert [summary["file"] for summary in told] == [
        str(p) for p in (tmp_path / "one.h5", made() / "small.model.h5", model)
    ]


def test_an_item_that_nothing_is_known_of_is_said_to_be_so(tmp_path, capsys):
    factors = Factors.load(made() / "small.model.h5")
    items = factors.items.copy()
    items[4] = 0
    dataclasses.replace(factors, items=items).save(tmp_path / "m.model.h5")
    assert run("similar", tmp_path / "m.model.h5", "--item", "item-04") == 2
    assert "item-04 has no vector to compare" in capsys.readouterr().err
    (tmp_path / "ids").write_text("item-04\nitem-05\n")
    assert (
        run("similar", tmp_path / "m.model.h5", "--items", tmp_path / "ids", "-k", 3, "--out", tmp_path / "n.csv") == 0
    )
    rows = (tmp_path / "n.csv").read_text().splitlines()[1:]
    assert len(rows) == 3 and all("item-05" in row for row in rows)


def test_fold_in_is_the_ridge_regression_that_it_says():
    """Of users who took something, on the sums of what they took; the others teach nothing."""
    f, rng = random_factors(users=200), np.random.default_rng(5)
    train = f.train.toarray()
    train[5:60] = 0
    tastes = rng.standard_normal((200, 3)) + np.arange(200)[:, None] % 2
    f = dataclasses.replace(f, train=sp.csr_matrix(train), users=tastes.astype(np.float32))
    count = train.sum(1)
    some = count > 0
    x = np.c_[(train @ f.items)[some] / np.sqrt(count[some])[:, None], np.ones(some.sum())].astype(np.float64)
    gram = x.T @ x
    weights = np.linalg.solve(gram + 1e-3 * np.trace(gram) / 4 * np.eye(4), x.T @ f.users[some])
    wanted = np.r_[f.items[[1, 2]].sum(0) / 2**0.5, 1] @ weights
    np.testing.assert_allclose(f.fold_in(f.items[[1, 2]]), wanted, rtol=1e-3, atol=1e-4)


def test_all_items_are_similar_to_one_but_itself():
    f = random_factors()
    unit = f.items / np.linalg.norm(f.items, axis=1, keepdims=True)
    at, cosines = f.similar_items("i7", 10**6)
    assert len(at) == 59 and 7 not in at and (np.diff(cosines) <= 0).all()
    np.testing.assert_allclose(cosines, (unit @ unit[7])[at], atol=1e-6)


def test_lists_to_be_measured_elsewhere_may_hold_what_was_held_out(board_model, tmp_path, cli):
    """Hits of the first ten, counted from the table, are those of the evaluation, where the same items compete."""
    summary = evaluate(Factors.load(board_model), device="cpu").summary()["all"]
    hits = []
    for more in ([], ["--held-out", "test"], ["--held-out", "all"]):
        code, _, err = cli("recommend", board_model, "--all", "-k", 10, *more, "--out", tmp_path / "t.parquet")
        assert code == 0, err
        rows = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()
        factors = Factors.load(board_model)
        held = factors.test.tocoo()
        wanted = set(zip(factors.user_ids[held.row].tolist(), factors.item_ids[held.col].tolist(), strict=True))
        hits.append(len(wanted & {(row["user_id"], row["item_id"]) for row in rows}) / len(wanted))
    assert hits[0] == 0 and hits[1] == pytest.approx(summary["hr@10"]) and hits[2] <= hits[1]
    validation = evaluate(factors, "validation", device="cpu").summary()["all"]["hr@10"]
    listed = factors.before_holding_out("validation").recommend_all(k=10)[0]
    held = [np.isin(factors.validation[user].indices, listed[user]).any() for user in range(len(factors.user_ids))]
    assert np.mean(held) == pytest.approx(validation)


@pytest.mark.parametrize("allowed", [None, np.arange(60) % 4 > 0])
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize(("kinds", "ties"), [(7, False), (25, True), (60, False)])
def test_one_item_of_each_group_and_none_of_a_group_that_was_taken(kinds, ties, seen, allowed):
    """Against the definition, user by user: go down the list, and take what is of a group that is not there yet."""
    factors = random_factors(ties=ties)
    groups = np.random.default_rng(1).integers(0, kinds, 60)
    many, values = factors.recommend_all(None, 5, seen, allowed=allowed, groups=groups)
    for user in range(len(factors.user_ids)):
        scores, chosen = factors.scores(np.array([user]))[0], []
        gone = set() if seen else set(groups[factors.seen_by(user)])
        for item in np.lexsort((np.arange(60), -scores)):
            if groups[item] not in gone and (allowed is None or allowed[item]):
                chosen.append(int(item))
                gone.add(groups[item])
        one, own = factors.recommend(user, 5, seen, allowed=allowed, groups=groups)
        np.testing.assert_allclose(own, scores[chosen[:5]], rtol=1e-5)
        np.testing.assert_allclose(values[user][many[user] >= 0], scores[chosen[:5]], rtol=1e-5)
        if not ties:
            assert one.tolist() == chosen[:5] == many[user][many[user] >= 0].tolist()
        assert len(set(groups[one])) == len(one) == min(5, len(chosen))


def test_groups_that_may_not_be_answers_take_no_place():
    """A user took items of two groups that are not allowed; the best eight items are of one group."""
    groups, allowed = np.repeat(np.arange(5), 10), np.repeat([True, True, True, False, False], 10)
    taken = sp.csr_matrix(([1, 1], ([0, 0], [30, 40])), shape=(1, 50), dtype=np.float32)
    none = sp.csr_matrix((1, 50), dtype=np.float32)
    names = np.arange(50).astype(str)
    factors = Factors(np.ones((1, 1)), -np.arange(50.0)[:, None], np.zeros(50), ["u"], names, taken, none, none)
    assert factors.recommend_all(k=2, allowed=allowed, groups=groups)[0].tolist() == [[0, 10]]


def test_the_command_takes_one_item_of_each_value_of_a_column(tmp_path, cli, refused):
    model = made() / "small.model.h5"
    code, said, err = cli("recommend", model, "--user", "user/01", "--seen", "--one-per", "Category", "-k", 9)
    assert code == 0, err
    assert [said.count(f"{colour} thing") for colour in ("red", "green", "blue")] == [1, 1, 1]
    code, _, err = cli("recommend", model, "--all", "--one-per", "category", "--out", tmp_path / "t.csv")
    assert code == 0, err
    rows = pyarrow.csv.read_csv(tmp_path / "t.csv").to_pylist()
    assert len(rows) == 24 * 2  # each has taken items of one colour, and gets one of each of the others
    assert "it has title, category" in refused("recommend", model, "--user", "user/01", "--one-per", "product")


def test_what_does_nothing_for_a_list_is_refused(board_model, refused):
    for more in (["--liked", "red-01"], ["--user", "A00", "--seen"]):
        assert "--held-out is for" in refused("recommend", board_model, "--held-out", "test", *more)
    for more, said in (
        (["--user", "A00", "--held-out", "both"], "choose test, validation or all"),
        (["--user", "A00", "--wide"], "--wide is for --users and --all"),
        (["--all", "--out", "t.csv", "--since", "30d"], "give that as well"),
        (["--all", "--out", "t.csv", "--fallback", "random"], "there is popularity"),
        (["--anyone", "--since", "last week"], "give hours, days or weeks"),
        (["--user", "A00", "--new", 2, "--diversity", 0.4], "leave one out"),
        (["--all", "--out", "t.csv", "--column", "colour"], "it has title"),
    ):
        assert said in refused("recommend", board_model, *more)


def test_groups_have_numbers_of_their_own():
    """By the whole text, and items of which nothing is said stand alone."""
    ids = np.array(["a", "b", "c", "d", "e"])
    texts = {"a": "x", "b": "x\0", "c": "x", "d": ""}
    assert groups_of(ids, {"product": texts}, " Product ").tolist() == [0, 1, 0, 2, 3]
