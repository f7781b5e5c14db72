import numpy as np
import pytest

from small import made

fastapi = pytest.importorskip("fastapi.testclient", reason="the serve extra is not installed")

from vbpr.pages.serve.answers import Answers  # noqa: E402
from vbpr.pages.serve.browse import FEWEST, along_hilbert  # noqa: E402
from vbpr.pages.serve.serve import create_app  # noqa: E402
from vbpr.stores.model.factors import Factors  # noqa: E402


@pytest.fixture(scope="module")
def client():
    with fastapi.TestClient(create_app(Answers(made() / "small.model.h5"))) as client:
        yield client


@pytest.fixture(scope="module")
def factors():
    return Factors.load(made() / "small.model.h5")


def taken(factors):
    return np.asarray(factors.seen.sum(axis=0)).ravel().astype(int)


def test_hilbert_s_curve_visits_every_place_once_by_steps_of_one():
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(1024), np.arange(1024)))
    place = along_hilbert(x, y)
    order = np.argsort(place)
    assert np.array_equal(place[order], np.arange(1024 * 1024))
    assert (np.abs(np.diff(x[order])) + np.abs(np.diff(y[order])) == 1).all()


def test_the_popular_come_in_pages_and_each_with_its_count(client, factors):
    pages = [client.get(f"/wall?limit=7&offset={offset}").json() for offset in range(0, len(factors.item_ids), 7)]
    items = [item for page in pages for item in page["items"]]
    counts = dict(zip(factors.item_ids.tolist(), taken(factors).tolist(), strict=True))
    assert [item["count"] for item in items] == sorted(counts.values(), reverse=True)
    assert {item["item_id"]: item["count"] for item in items} == counts
    assert {page["total"] for page in pages} == {len(counts)}


def test_words_are_looked_for_in_every_column_and_all_must_be_there(client, factors):
    answers = Answers(made() / "small.model.h5")
    for words in ("blue", "BLUE 1", "item-11", "thing <11>", "no such word"):
        wanted = [
            str(item)
            for item in factors.item_ids
            if all(
                w in " ".join([str(item), *(c[str(item)] for c in answers.meta.values())]).lower()
                for w in words.lower().split()
            )
        ]
        body = client.get("/wall", params={"search": words, "limit": 100}).json()
        assert sorted(item["item_id"] for item in body["items"]) == sorted(wanted) and body["total"] == len(wanted)
    only = client.get("/wall", params={"category": "Blue", "limit": 100}).json()["items"]
    assert only and {item["category"] for item in only} == {"blue"}
    assert client.get("/wall", params={"search": "a " * 9}).status_code == 400


def test_what_nobody_took_is_new(client, factors):
    body = client.get("/wall?order=new&limit=100").json()
    assert {item["item_id"] for item in body["items"]} == set(factors.item_ids[taken(factors) == 0].tolist())


def test_the_walk_shows_every_item_once_and_neighbours_look_alike(client, factors):
    seen = [
        item["item_id"]
        for offset in range(0, 80, 10)
        for item in client.get(f"/wall?order=looks&limit=10&offset={offset}").json()["items"]
    ]
    assert set(seen) == set(factors.item_ids.tolist())
    walk = Answers(made() / "small.model.h5").browse.walk
    rows = factors.items / np.linalg.norm(factors.items, axis=1, keepdims=True)
    along = (rows[walk[1:]] * rows[walk[:-1]]).sum(axis=1).mean()
    assert np.array_equal(np.sort(walk), np.arange(len(walk))) and along > 2 * abs((rows @ rows.T).mean()) + 0.1


def test_people_who_took_enough_come_once_each_with_things_of_theirs(client, factors):
    body = client.get("/people?limit=100").json()
    names = [person["user_id"] for person in body["people"]]
    enough = factors.user_ids[factors.seen.getnnz(axis=1) >= FEWEST].tolist()
    assert sorted(names) == sorted(enough) and names != sorted(names) and body["total"] == len(enough)
    for person in body["people"]:
        mine = factors.item_ids[factors.seen_by(factors.user_index(person["user_id"]))].tolist()
        assert {item["item_id"] for item in person["items"]} <= set(mine) and person["count"] == len(mine)


def test_people_show_what_they_took_last(tmp_path, factors):
    lines = ["user_id,item_id,timestamp"]
    rng = np.random.default_rng(3)
    order = {}
    for u, user in enumerate(factors.user_ids.tolist()):
        mine = rng.permutation(factors.item_ids[factors.seen_by(u)]).tolist()
        order[user] = mine
        lines += [f"{user},{item},{1_600_000_000 + 9 * n}" for n, item in enumerate(reversed(mine))]
    absent = order[str(factors.user_ids[0])][-1]  # taken in by an update, so not in the data set: newest
    lines = [line for line in lines if not line.startswith(f"{factors.user_ids[0]},{absent},")]
    order[str(factors.user_ids[0])] = [absent, *order[str(factors.user_ids[0])][:-1]]
    (tmp_path / "interactions.csv").write_text("\n".join([*lines, "stranger,item-01,1600000000"]) + "\n")
    with fastapi.TestClient(create_app(Answers(made() / "small.model.h5", str(tmp_path)))) as client:
        people = client.get("/people?limit=100").json()["people"]
    shown = {person["user_id"]: [item["item_id"] for item in person["items"]] for person in people}
    assert shown and shown == {user: order[user][:4] for user in shown}


def test_a_model_without_vectors_has_no_map(tmp_path, factors):
    import dataclasses

    flat = dataclasses.replace(factors, users=factors.users[:, :0], items=factors.items[:, :0], head=None)
    flat.save(tmp_path / "flat.model.h5")
    with fastapi.TestClient(create_app(Answers(tmp_path / "flat.model.h5"))) as client:
        refused = client.get("/wall?order=looks")
        assert refused.status_code == 400 and "no item vectors" in refused.json()["detail"]
        assert client.get("/wall").json()["total"] == len(factors.item_ids)
        assert "#wall/looks" not in client.get("/").text
