"""Bestsellers, a share of new items, exclusions, and the table of many lists."""

import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.sparse as sp

from small import made
from vbpr.answers.lists import Wishes, best_of
from vbpr.stores.model.factors import Factors


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """A data set of the small catalogue's items in which `old` sold to ten people long ago, `late` to three of late."""
    folder = tmp_path_factory.mktemp("dated")
    lines = ["user_id,item_id,timestamp"]
    lines += [f"user/{u:02},item-00,2024-01-{u + 1:02}" for u in range(10)]
    lines += [f"user/{u:02},item-01,2024-06-{u + 1:02}" for u in range(3)]
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    (folder / "items.csv").write_text("item_id,title,image\nitem-00,old,https://shop.example/0.jpg\n")
    return folder


def test_bestsellers_are_counted_in_the_window(dated, tmp_path, cli):
    model = made() / "small.model.h5"
    code, out, err = cli("recommend", model, "--anyone", "--since", "4w", "--data", dated, "--json", tmp_path / "j")
    assert code == 0 and "of the last 4w in the data set" in " ".join(out.split()), err
    assert json.loads((tmp_path / "j").read_text())["items"] == [{"item_id": "item-01", "people": 3.0}]
    assert cli("recommend", model, "--anyone", "--since", "200d", "--data", dated, "--json", tmp_path / "j")[0] == 0
    found = json.loads((tmp_path / "j").read_text())["items"]
    assert [(each["item_id"], each["people"]) for each in found] == [("item-00", 10), ("item-01", 3)]
    code, out, err = cli("recommend", model, "--anyone", "-k", 30, "--since", "4w", "--json", tmp_path / "j")
    factors = Factors.load(model)
    counts = np.bincount(factors.seen.indices, minlength=30)
    found = json.loads((tmp_path / "j").read_text())["items"]
    assert code == 0 and "no times to go by" in err
    assert [each["people"] for each in found] == sorted(counts[counts > 0].tolist(), reverse=True)


def test_every_customer_that_is_named_gets_a_row(dated, tmp_path, cli):
    model, table = made() / "small.model.h5", tmp_path / "t.csv"
    (tmp_path / "users").write_text("nobody\nuser/02\n")
    words = ["recommend", model, "--users", tmp_path / "users", "-k", 2, "--data", dated, "--out", table]
    assert cli(*words)[0] == 0
    assert {row["user_id"] for row in pyarrow.csv.read_csv(table).to_pylist()} == {"user/02"}
    code, out, err = cli(*words, "--fallback", "popularity", "--since", "4w", "--column", "Title", "--column", "image")
    assert code == 0 and "bestsellers for 1 user whom" in out, err
    rows = pyarrow.csv.read_csv(table).to_pylist()
    assert [(row["user_id"], row["fallback"]) for row in rows] == [("nobody", True)] + [("user/02", False)] * 2
    assert rows[0]["item_id"] == "item-01" and rows[0]["score"] == 3 and set(rows[0]) >= {"title", "image"}
    (tmp_path / "users").write_text("nobody\n")
    assert cli(*words, "--fallback", "popularity")[0] == 0
    for whom in (["--user", "nobody"], ["--liked", "nothing"]):
        code, out, err = cli("recommend", model, *whom, "--fallback", "popularity", "--json", tmp_path / "j")
        assert code == 0 and "bestsellers of all time" in " ".join(out.split()), err
        assert ".0000" not in out  # people are whole
        assert json.loads((tmp_path / "j").read_text())["fallback"] is True


def test_a_row_a_user_holds_what_a_row_an_item_does(dated, tmp_path, cli):
    model, words = made() / "small.model.h5", ["--data", dated, "--column", "image", "--allowed", tmp_path / "ids"]
    (tmp_path / "ids").write_text("item-00\nitem-01\nitem-02\n")  # some have fewer left than others
    for name, more in (("long.parquet", []), ("wide.parquet", ["--wide"]), ("wide.parquet", ["--wide"])):
        code, _, err = cli("recommend", model, "--all", "-k", 3, *words, *more, "--out", tmp_path / name)
        assert code == 0, err
    long, wide = (pyarrow.parquet.read_table(tmp_path / name).to_pylist() for name in ("long.parquet", "wide.parquet"))
    assert len(wide) == 24 and list(wide[0])[:4] == ["user_id", "item_1", "score_1", "image_1"]
    again = [
        (row["user_id"], n, row[f"item_{n}"], row[f"score_{n}"], row[f"image_{n}"])
        for row in wide
        for n in (1, 2, 3)
        if row[f"item_{n}"] is not None
    ]
    assert again == [tuple(row[key] for key in ("user_id", "rank", "item_id", "score", "image")) for row in long]
    assert {row["image"] for row in long} == {"", "https://shop.example/0.jpg"}


def naive(scores, barred, allowed, unseen, groups, k, new):
    """The definition: the best new ones are sure of their places, the best others beside them have the rest."""
    order = [int(i) for i in np.lexsort((np.arange(len(scores)), -scores)) if allowed[i] and not barred[i]]
    gone = {groups[i] for i in np.flatnonzero(barred)}

    def fill(row, pool, most):
        for i in pool:
            if len(row) < most and groups[i] not in gone | {groups[j] for j in row}:
                row.append(i)
        return row

    row = fill([], [i for i in order if unseen[i]], new)
    return sorted(fill(row, order, k), key=order.index)


@pytest.mark.parametrize("kinds", [60, 30])
@pytest.mark.parametrize("new", [0, 2, 5])
def test_a_share_of_new_items_is_the_definition_s(kinds, new):
    rng = np.random.default_rng(3)
    users, items = rng.standard_normal((20, 4)), rng.standard_normal((60, 4))
    train = rng.random((20, 60)) < 0.1
    train[:, 45:] = False
    out = sp.csr_matrix(rng.random((20, 60)) < 0.05, dtype=np.float32)
    none, ids = sp.csr_matrix((20, 60), dtype=np.float32), np.arange(60).astype(str)
    bias = np.where(np.arange(60) < 45, 1.0, -1.0)  # new ones score low
    factors = Factors(users, items, bias, np.arange(20).astype(str), ids, sp.csr_matrix(train), none, none)
    groups = np.arange(60) if kinds == 60 else rng.integers(0, kinds, 60)
    allowed, unseen = rng.random(60) < 0.9, ~train.any(0)
    wishes = Wishes(10, allowed=allowed, groups=groups, new=new, exclude=out)
    found, scores = best_of(factors, np.arange(20), wishes)
    for user in range(20):
        wanted = factors.scores(np.array([user]))[0]
        barred = train[user] | (out[user].toarray()[0] > 0)
        row = naive(wanted, barred, allowed, unseen, groups, 10, new)
        assert found[user][found[user] >= 0].tolist() == row
        np.testing.assert_allclose(scores[user][: len(row)], wanted[row], rtol=1e-5)
        fresh = len(
            {groups[i] for i in np.flatnonzero(unseen & allowed & ~barred)}
            - {groups[i] for i in np.flatnonzero(barred)}
        )
        assert unseen[row].sum() >= min(new, fresh)


def test_what_is_excluded_for_a_customer_does_not_come(tmp_path, cli, refused):
    model, table, out = made() / "small.model.h5", tmp_path / "t.parquet", tmp_path / "out.csv"
    assert cli("recommend", model, "--all", "-k", 1, "--out", table)[0] == 0
    first = {row["user_id"]: row["item_id"] for row in pyarrow.parquet.read_table(table).to_pylist()}
    out.write_text(f"user_id,item_id\nuser/03,{first['user/03']}\nuser/99,item-01\n")
    code, _, err = cli("recommend", model, "--all", "-k", 1, "--exclude", out, "--out", table)
    assert code == 0 and "not in this model: 1 pairs (user/99, item-01)" in err
    now = {row["user_id"]: row["item_id"] for row in pyarrow.parquet.read_table(table).to_pylist()}
    assert {user for user in first if now[user] != first[user]} == {"user/03"}
    out.write_text("user_id,item_id\nuser/99,item-01\n")
    assert "none of its 1 pair" in refused("recommend", model, "--all", "--exclude", out, "--out", table)


def test_the_summary_tells_of_items_that_nobody_took(board_model, tmp_path, cli, refused):
    said = [cli("recommend", board_model, "--all", "-k", 4, "--new", n, "--out", tmp_path / "t.csv")[1] for n in (0, 1)]
    assert "items that nobody took in training: 2 in the catalogue" in said[0]
    assert "with 32 of 128 places" in said[1] or int(said[1].split("with ")[1].split()[0]) >= 32
    code, out, err = cli("recommend", board_model, "--user", "A00", "-k", 4, "--new", 1)
    assert code == 0 and "red-new" in out, err
