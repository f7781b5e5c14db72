import asyncio
import concurrent.futures
import contextlib
import dataclasses
import io
import shutil
import threading
import time
import weakref

import numpy as np
import pytest
from PIL import Image

from small import made

fastapi = pytest.importorskip("fastapi.testclient", reason="the serve extra is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")

from vbpr import Dataset, configure, train  # noqa: E402
from vbpr.base.errors import VbprError  # noqa: E402
from vbpr.pages.serve.answers import Answers, find  # noqa: E402
from vbpr.pages.serve.newest import Newest  # noqa: E402
from vbpr.pages.serve.serve import create_app, serve  # noqa: E402
from vbpr.stores.model.factors import Factors  # noqa: E402


@pytest.fixture(scope="module")
def client():
    app = create_app(Answers(made() / "small.model.h5"), max_upload=200_000, hosts=["testserver"])
    with fastapi.TestClient(app, raise_server_exceptions=False) as client:
        yield client


def png(width=40, height=30, colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_answers_are_the_model_s(client):
    factors = Factors.load(made() / "small.model.h5")
    items, scores = factors.recommend("user/03", 5)
    body = client.get("/users/user%2F03/recommendations?k=5").json()["items"]
    assert [item["item_id"] for item in body] == [str(i) for i in factors.item_ids[items]]
    assert [item["score"] for item in body] == pytest.approx(scores.tolist())
    near = client.get("/items/item-07/similar?k=5").json()["items"]
    assert [item["item_id"] for item in near] == [
        str(i) for i in factors.item_ids[factors.similar_items("item-07", 5)[0]]
    ]
    folded = client.post("/users/fold-in", json={"liked": ["item-01", "item-04"], "k": 3}).json()["items"]
    liked = factors.item_indices(["item-01", "item-04"])
    wanted = factors.choose(factors.fold_in(factors.items[liked]), 3, exclude=liked)[0]
    assert [item["item_id"] for item in folded] == [str(i) for i in factors.item_ids[wanted]]
    assert all(
        item["category"] == "blue" for item in client.get("/items/item-07/similar?category=Blue").json()["items"]
    )


def test_why_a_user_gets_an_item_is_told(client):
    told = client.get("/users/user%2F03/explanation?item=item-00&k=2").json()
    summands = [each["share"] for each in told["because"]] + [told[key] for key in ("constant", "bias", "rest")]
    factors = Factors.load(made() / "small.model.h5")
    wanted = factors.scores(factors.user_indices(["user/03"]))[0, factors.item_index("item-00")]
    assert sum(summands) + told["others"]["share"] == pytest.approx(float(wanted), rel=1e-4)
    assert told["because"][0]["category"] == "red" and told["item"]["title"] == "red thing <0>"
    assert client.get("/users/user%2F03/explanation?item=item-99").status_code == 404


def test_history_search_photo_and_description(client):
    user = client.get("/users/user%2F03").json()
    assert len(user["history"]) == 6 and not user["simulated"]
    assert client.get("/users?search=/03").json() == {"total": 1, "ids": ["user/03"]}
    photo = client.get("/items/item-02/photo?side=96")
    assert Image.open(io.BytesIO(photo.content)).size == (72, 96)
    paths = client.get("/openapi.json").json()["paths"]
    wanted = {"/users/{user_id}/recommendations", "/items/{item_id}/similar", "/similar", "/users/fold-in", "/health"}
    assert wanted <= set(paths)
    assert client.get("/health").json()["items"] == 30
    assert all(client.head(page).status_code == 200 for page in ("/", "/health"))  # as those ask who watch over it
    assert "<script>" in client.get("/").text


def test_a_photo_of_an_item_finds_it(client):
    photo = (made() / "data" / "images" / "item-11.png").read_bytes()
    found = client.post("/similar?k=3", files=[("photos", ("../../x.png", photo))]).json()["items"]
    assert found[0]["item_id"] == "item-11" and found[0]["score"] == pytest.approx(1, abs=1e-3)


JSON = {"headers": {"content-type": "application/json"}}
HOSTILE = [
    ("GET", "/users/nobody/recommendations", {}, 404),
    ("GET", "/users/user%2F03/recommendations?k=0", {}, 422),
    ("GET", "/users/user%2F03/recommendations?k=10000000", {}, 422),
    ("GET", "/users/user%2F03/recommendations?k=NaN", {}, 422),
    ("GET", "/users/user%2F03/recommendations?diversity=nan", {}, 422),
    ("GET", "/users/user%2F03/recommendations?category=puce", {}, 400),
    ("GET", "/users/" + "x" * 5000, {}, 422),
    ("GET", "/items/..%2F..%2F..%2Fetc%2Fpasswd/photo", {}, 404),
    ("GET", "/items/%00/similar", {}, 404),
    ("GET", "/items/%ff%fe/similar", {}, 404),
    ("GET", "/items/item-01/photo?side=100000", {}, 422),
    ("GET", "/templates/page.html", {}, 404),
    ("GET", "/users/user%2F03/recommendations?kk=3", {}, 422),
    ("GET", "/items?searhc=x", {}, 422),
    ("POST", "/users/fold-in", {"json": {"liked": ["item-01"], "categroy": "red"}}, 422),
    ("GET", "/users/user%2F03/recommendations?%ED%A0%80=3", {}, 422),
    ("DELETE", "/health", {}, 405),
    ("BREW", "/health", {}, 405),
    ("GET", "/users/user%2F03/recommendations?k=" + "9" * 400, {}, 422),
    ("GET", "/users/%F0%9F%92%A9%E2%80%AE/recommendations", {}, 404),
    ("GET", "/users/%ED%A0%80", {}, 404),
    ("GET", "/users/user%2F03/recommendations?category=%00", {}, 400),
    ("POST", "/users/fold-in", {"content": b'{"liked": ["item-01"], "k": NaN}', **JSON}, 422),
    ("POST", "/users/fold-in", {"content": b'{"liked": ["item-01"], "k": ' + b"9" * 5000 + b"}", **JSON}, 400),
    ("POST", "/users/fold-in", {"content": b'{"liked": ["\\ud800"]}', **JSON}, 422),
    ("POST", "/users/fold-in", {"content": b'{"liked": ["\xff"]}', **JSON}, 400),
    ("POST", "/users/fold-in", {"content": b"<a/>", "headers": {"content-type": "application/xml"}}, 422),
    ("POST", "/similar", {"data": {"photos": "text"}}, 422),
    ("POST", "/similar", {"files": [("photos", ("a.svg", b"<svg/>"))]}, 422),
    ("POST", "/similar", {"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400),
    ("POST", "/users/fold-in", {"content": b"{"}, 422),
    ("POST", "/users/fold-in", {"json": {"liked": []}}, 422),
    ("POST", "/users/fold-in", {"json": {"liked": ["item-01"] * 1000}}, 422),
    ("POST", "/users/fold-in", {"json": {"liked": ["none"]}}, 404),
    ("POST", "/users/fold-in", {"content": b"[" * 100_000, **JSON}, 400),
    ("POST", "/similar", {}, 422),
    ("POST", "/similar", {"content": b"zz", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
    ("POST", "/similar", {"files": [("photos", ("a.jpg", b"no image"))]}, 422),
    ("POST", "/similar", {"files": [("photos", ("a.png", png()[:60]))]}, 422),
    ("POST", "/similar", {"files": [("photos", ("a.png", png()))] * 9}, 422),
    ("POST", "/similar", {"files": [("photos", ("a.jpg", b"x" * 300_000))]}, 413),
]


@pytest.mark.parametrize(("method", "path", "given", "status"), HOSTILE)
def test_malformed_and_hostile_requests_get_a_4xx_with_a_sentence(client, method, path, given, status):
    answer = client.request(method, path, **given)
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text and answer.json()["detail"]


def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(client, monkeypatch):
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    assert client.post("/similar", files=[("photos", ("b.png", buffer.getvalue()))]).status_code == 422
    monkeypatch.setattr("vbpr.data.images.decode.MAX_PIXELS", 1000)
    answer = client.post("/similar", files=[("photos", ("a.png", png()))])
    assert answer.status_code == 422 and "pixels" in answer.json()["detail"]


def test_a_body_without_a_declared_length_is_cut_off_at_the_cap(client):
    sent = []

    def endless():
        for _ in range(100):
            sent.append(1)
            yield b"x" * 65_536

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/similar", content=endless(), headers=headers)
    assert answer.status_code == 413 and answer.headers["connection"] == "close"  # the rest is not waited for


def test_a_body_that_comes_drop_by_drop_is_given_up(client, monkeypatch):
    monkeypatch.setattr("vbpr.pages.serve.guard.BODY_SECONDS", 0.3)
    sent = []

    async def drops():
        for _ in range(100):
            sent.append(1)
            yield b" "
            await asyncio.sleep(0.02)

    async def ask():
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as asking:
            return await asking.post("/users/fold-in", content=drops())

    answer = asyncio.run(ask())
    assert answer.status_code == 408 and "did not arrive within" in answer.json()["detail"]
    assert len(sent) < 50 and answer.headers["connection"] == "close"


def test_another_name_for_the_server_is_refused(client):
    assert client.get("/health", headers={"host": "evil.example"}).status_code == 400


def test_an_internal_failure_is_a_plain_500(client, monkeypatch, capsys):
    monkeypatch.setattr(Factors, "seen_by", lambda *_: 1 / 0)
    answer = client.get("/users/user%2F03")
    assert answer.status_code == 500 and "Zero" not in answer.text
    said = capsys.readouterr()
    assert (
        "internal failure: GET '/users/user/03'" in said.out and "ZeroDivisionError" in said.err
    )  # where, for its log


def test_many_at_once_get_what_each_gets_alone(client):
    users = [f"user%2F{n:02}" for n in range(24)]
    photo = (made() / "data" / "images" / "item-11.png").read_bytes()
    alone = [client.get(f"/users/{u}/recommendations").json() for u in users]

    def ask(n):
        if n % 6 == 5:
            return client.post("/similar?k=1", files=[("photos", ("x.png", photo))]).json()["items"][0]["item_id"]
        return client.get(f"/users/{users[n % 24]}/recommendations").json()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(96)))
    assert all(a == ("item-11" if n % 6 == 5 else alone[n % 24]) for n, a in enumerate(answers))


def test_counts_are_of_what_was_asked(client):
    def count():
        text, wanted = client.get("/metrics").text, 'vbpr_requests_total{route="/items/{item_id:path}",status="200"} '
        return sum(int(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted))

    before = count()
    for n in range(5):
        client.get(f"/items/item-0{n}")
    assert count() == before + 5


def test_likes_said_twice_count_once_and_an_empty_category_is_none(client):
    def ask(liked):
        return client.post("/users/fold-in", json={"liked": liked}).json()

    assert ask(["item-01", "item-01", "item-04"]) == ask(["item-01", "item-04"])
    path = "/users/user%2F03/recommendations"
    assert client.get(f"{path}?category=").json() == client.get(path).json()


def test_recommendations_heed_category_variety_and_what_was_seen(client):
    factors = Factors.load(made() / "small.model.h5")
    blue = np.arange(30) % 3 == 2
    for words, options in (
        ("category=blue", {"allowed": blue}),
        ("diversity=0.9", {"diversity": 0.9}),
        ("seen=true", {"seen": True}),
        ("category=BLUE&diversity=0.5&seen=true", {"allowed": blue, "diversity": 0.5, "seen": True}),
    ):
        wanted = factors.recommend("user/03", 6, **options)[0]
        assert wanted.tolist() != factors.recommend("user/03", 6)[0].tolist()
        body = client.get(f"/users/user%2F03/recommendations?k=6&{words}").json()["items"]
        assert [item["item_id"] for item in body] == factors.item_ids[wanted].tolist()
    liked = factors.item_indices(["item-01", "item-04"])
    taste = factors.fold_in(factors.items[liked])
    for more in ({"category": "blue"}, {"diversity": 0.9}):
        options = {"allowed": blue} if "category" in more else more
        wanted = factors.choose(taste, 5, exclude=liked, **options)[0]
        body = client.post("/users/fold-in", json={"liked": ["item-01", "item-04"], "k": 5, **more}).json()["items"]
        assert [item["item_id"] for item in body] == factors.item_ids[wanted].tolist()


def test_photos_heed_category_and_count_and_are_asked_together(client):
    folder = made() / "data" / "images"
    photos = [("photos", (name, (folder / name).read_bytes())) for name in ("item-03.png", "item-05.png")]
    both = client.post("/similar?k=5", files=photos).json()["items"]
    alone = [client.post("/similar?k=5", files=[photo]).json()["items"] for photo in photos]
    assert len(both) == 5 and both not in alone
    blue = client.post("/similar?k=5&category=blue", files=photos).json()["items"]
    assert len(blue) == 5 and {item["category"] for item in blue} == {"blue"}
    assert len(client.get("/items/item-03/similar?k=4&category=red").json()["items"]) == 4


def test_searches_ignore_case_and_count_all_they_find(client):
    found = client.get("/items?search=ITEM-0&limit=3").json()
    assert found == {"total": 10, "ids": ["item-00", "item-01", "item-02"]}
    assert client.get("/items?limit=2").json() == {"total": 30, "ids": ["item-00", "item-01"]}
    assert find({"item-10": 0, "item-1": 1}, "item-1", 5)["ids"] == ["item-1", "item-10"]
    assert client.get("/users?limit=101").status_code == client.get("/items?limit=0").status_code == 422


def test_models_without_vectors_or_photos_say_so(tmp_path):
    train(Dataset.resolve(made() / "data"), [], configure("popularity"), tmp_path / "p.model.h5")
    factors = Factors.load(tmp_path / "p.model.h5")
    more = factors.extended(np.array(["new"]), np.zeros((1, 0)), np.zeros(1))
    more.save(tmp_path / "p.model.h5")
    with fastapi.TestClient(create_app(Answers(tmp_path / "p.model.h5"), hosts=["testserver"])) as client:
        assert client.get("/items/item-05/similar").status_code == 409
        answer = client.post("/users/fold-in", json={"liked": ["item-05"], "k": 3}).json()["items"]
        best = np.argsort(-Factors.load(tmp_path / "p.model.h5").bias, kind="stable")
        assert [item["item_id"] for item in answer] == [f"item-{i:02}" for i in best if i != 5][:3]
        assert client.get("/items/new/photo").status_code == 404 and client.get("/items/item-05/photo").is_success
        assert (
            client.get("/items/new").json()["photo"] is False and client.get("/items/item-05").json()["photo"] is True
        )


def test_every_answer_has_the_headers_that_keep_it_where_it_is(client):
    for path in ("/", "/health", "/users/nobody"):
        assert client.get(path).headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in client.get("/").headers["content-security-policy"]


def test_connections_send_at_once(monkeypatch):
    """Without TCP_NODELAY an answer waits for an acknowledgement, 40 ms on Linux; asyncio sets it by the protocol."""
    import socket

    import uvicorn

    def run(server, sockets):
        assert [s.proto for s in sockets] == [socket.IPPROTO_TCP]
        print("listened")

    monkeypatch.setattr(uvicorn.Server, "run", run)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        serve(made() / "small.model.h5", port=0)
    assert "listened" in said.getvalue()


def test_an_item_that_nothing_is_known_of_and_weights_that_are_not_there(tmp_path):
    factors = Factors.load(made() / "small.model.h5")
    items = factors.items.copy()
    items[4] = 0
    dataclasses.replace(factors, items=items).save(tmp_path / "m.model.h5")
    with fastapi.TestClient(create_app(Answers(tmp_path / "m.model.h5"), hosts=["testserver"])) as client:
        answer = client.get("/items/item-04/similar")
        assert answer.status_code == 409 and "no vector to compare" in answer.text
        assert client.get("/items/item-05/similar").status_code == 200
    with pytest.raises(VbprError, match="which is not there"):
        Answers(made() / "small.model.h5", weights=tmp_path / "none.safetensors")


def test_the_cap_is_the_last_size_that_is_taken_and_answers_are_counted_by_status(client):
    sizes = {200_000: 422, 200_001: 413}  # blanks are no JSON
    for size, status in sizes.items():
        assert client.post("/users/fold-in", content=b" " * size).status_code == status
    endless = {"content-length": "9" * 5000}
    assert client.post("/users/fold-in", content=b"{}", headers=endless).status_code == 413
    assert client.get("/items/none").status_code == 404
    assert 'route="/items/{item_id:path}",status="404"' in client.get("/metrics").text


def test_the_page_shows_names_and_runs_none(tmp_path):
    factors, script = Factors.load(made() / "small.model.h5"), "<script>alert(1)"
    dataclasses.replace(factors, about=factors.about | {"title": script}).save(tmp_path / "m.model.h5")
    with fastapi.TestClient(create_app(Answers(tmp_path / "m.model.h5"), hosts=["testserver"])) as client:
        page = client.get("/").text
    assert script not in page and "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(("host", "names", "allowed"), [
    ("127.0.0.1", [], ["127.0.0.1", "localhost", "[::1]"]),
    ("127.0.0.1", ["shop.example"], ["127.0.0.1", "localhost", "[::1]", "shop.example"]),
    ("0.0.0.0", [], None),
    ("0.0.0.0", ["shop.example"], ["127.0.0.1", "localhost", "[::1]", "shop.example"]),
])  # fmt: skip
def test_a_proxy_may_pass_a_name_on(monkeypatch, host, names, allowed):
    asked = {}
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    monkeypatch.setattr("vbpr.pages.serve.serve.create_app", lambda answers, **given: asked.update(given))
    serve(made() / "small.model.h5", host=host, port=0, names=names)
    assert asked["hosts"] == allowed


def test_only_names_that_are_allowed_are_answered():
    app = create_app(Answers(made() / "small.model.h5"), hosts=["shop.example"])
    with fastapi.TestClient(app, base_url="http://shop.example") as client:
        assert client.get("/health").is_success
    with fastapi.TestClient(app, base_url="http://other.example") as client:
        assert client.get("/health").status_code == 400


@pytest.mark.parametrize("name", ["https://shop.example", "shop.example:80", "a*b", "*", ""])
def test_names_that_no_host_has_are_refused(name):
    with pytest.raises(VbprError, match="--allow-host"):
        serve(made() / "small.model.h5", names=[name])


def test_what_is_excluded_does_not_come_back_and_others_take_its_place(client):
    def ids(answer):
        assert answer.status_code == 200, answer.text
        return [item["item_id"] for item in answer.json()["items"]]

    photo = [("photos", ("x.png", (made() / "data" / "images" / "item-11.png").read_bytes()))]
    for ask in (
        lambda k, out: client.get("/users/user%2F03/recommendations", params={"k": k, "exclude": out}),
        lambda k, out: client.get("/users/user%2F03/recommendations", params={"k": k, "exclude": out, "seen": True}),
        lambda k, out: client.get("/items/item-07/similar", params={"k": k, "exclude": out}),
        lambda k, out: client.post("/similar", params={"k": k, "exclude": out}, files=photo),
        lambda k, out: client.post("/users/fold-in", json={"liked": ["item-01"], "k": k, "exclude": out}),
    ):
        before = ids(ask(7, []))
        assert ids(ask(5, [before[0], before[3], "sold long ago"])) == [before[n] for n in (1, 2, 4, 5, 6)]
    for asked in ({"exclude": ["x"] * 201}, {"exclude": ["x" * 513]}):
        assert client.get("/items/item-07/similar", params=asked).status_code == 422


def test_only_allowed_items_are_answers(tmp_path):
    (tmp_path / "stock.txt").write_text("item-03\nitem-04\nitem-06\nitem-07\nnone\n")
    answers = Answers(made() / "small.model.h5", allowed=tmp_path / "stock.txt")
    with fastapi.TestClient(create_app(answers, hosts=["testserver"])) as client:
        for path in ("users/user%2F03/recommendations?seen=true", "items/item-03/similar", "items/item-00/similar"):
            found = {item["item_id"] for item in client.get(f"{path}{'&' if '?' in path else '?'}k=20").json()["items"]}
            assert found == {"item-03", "item-04", "item-06", "item-07"} - {path[6:13]}
        some = client.get("/users/user%2F03/recommendations?seen=true&category=green").json()["items"]
        assert {item["item_id"] for item in some} == {"item-04", "item-07"}  # by category, too
        assert client.get("/items/item-00").is_success  # it is known, and its neighbours may be asked for


def test_a_model_that_is_replaced_answers_and_one_that_cannot_be_read_does_not(tmp_path, capsys, monkeypatch):
    path = tmp_path / "m.model.h5"
    shutil.copy(made() / "small.model.h5", path)
    factors, loaded = Factors.load(path), []

    def load():
        answers = Answers(path)
        loaded.append(weakref.ref(answers))
        if len(loaded) == 2:  # replaced once more while it was read: that is not yet what shall answer
            dataclasses.replace(factors, bias=-factors.bias, items=-factors.items).save(path)
        return answers

    newest = Newest(load, [path, tmp_path / "stock.txt"])
    with fastapi.TestClient(create_app(lambda: newest.answers, hosts=["testserver"])) as client:
        ask = "/users/user%2F03/recommendations?k=30&seen=true"
        before, health = client.get(ask).json(), client.get("/health").json()
        newest.look()
        assert len(loaded) == 1  # nothing has changed
        dataclasses.replace(factors, bias=factors.bias + 1).save(path)
        newest.look()
        assert len(loaded) == 3
        after, now = client.get(ask).json(), client.get("/health").json()
        assert [i["item_id"] for i in after["items"]] == [i["item_id"] for i in before["items"]][::-1]
        assert now["digest"] != health["digest"] and now["loaded"] > health["loaded"]
        assert [answers() is None for answers in loaded] == [True, True, False]  # the memory is free again
        whole = path.read_bytes()
        path.write_bytes(whole[:-100])
        newest.look()
        newest.look()
        assert len(loaded) == 3
        monkeypatch.setattr(newest, "due", 0)  # a while later: tried again, and not told again
        newest.look()
        assert capsys.readouterr().out.count("not loaded anew, and the model of before goes on") == 1
        assert client.get(ask).json() == after
        (tmp_path / "stock.txt").write_text("item-01\n")
        shutil.copy(made() / "small.model.h5", path)
        newest.look()
        assert client.get(ask).json() == before
        assert 'route="/health",status="200"} 2' in client.get("/metrics").text  # counted on


def test_the_server_looks_by_itself(tmp_path, monkeypatch):
    looked = threading.Event()
    monkeypatch.setattr("vbpr.pages.serve.newest.WATCH_SECONDS", 0.01)
    monkeypatch.setattr("vbpr.pages.serve.newest.Newest.look", lambda self: looked.set())
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: looked.wait(10))
    serve(made() / "small.model.h5", port=0)
    assert looked.is_set()


def test_thumbnails_are_drawn_a_few_at_a_time(client, monkeypatch):
    """Each may hold a few hundred MB."""
    running, most = 0, 0

    def slow(self, image, side, quality):
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        time.sleep(0.05)
        running -= 1

    monkeypatch.setattr("vbpr.pages.photos.Photos.thumbnail", slow)
    app = create_app(Answers(made() / "small.model.h5"), hosts=["testserver"])
    with fastapi.TestClient(app) as asking, concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: asking.get(f"/items/item-{n:02}/photo").status_code, range(8)))
    assert found == [404] * 8 and most == 2


def test_fields_and_parameters_that_would_do_nothing_are_refused(client):
    photo = [("photos", ("x.png", png()))]
    answer = client.post("/similar", files=photo, data={"k": "2"})
    assert answer.status_code == 422 and "no field 'k'" in answer.json()["detail"]
    answer = client.get("/items/item-07/similar?k=1&k=2")
    assert answer.status_code == 422 and "'k' is given 2 times" in answer.json()["detail"]
    answer = client.post("/users/fold-in", json={"liked": ["item-01"], "x" * 100_000: 1})
    assert answer.status_code == 422 and len(answer.json()["detail"]) <= 1000


def test_the_description_tells_of_faults_as_they_are(client):
    described = client.get("/openapi.json").json()
    fault = described["components"]["schemas"]["Fault"]
    assert fault["required"] == ["detail"] and fault["properties"]["detail"]["type"] == "string"
    for path, methods in described["paths"].items():
        for method in methods.values():
            assert set(method["responses"]) == {"200", "4XX"}, path
            assert method["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"].endswith("/Fault")


def test_what_the_model_does_not_know_of_someone_s_likes_is_told_and_left_out(client):
    asked = client.post("/users/fold-in", json={"liked": ["retired", "item-01", "item-04"], "k": 3}).json()
    known = client.post("/users/fold-in", json={"liked": ["item-01", "item-04"], "k": 3}).json()
    assert asked["items"] == known["items"] and (asked["unknown"], known["unknown"]) == (["retired"], [])
    assert client.post("/users/fold-in", json={"liked": ["retired", "gone"]}).status_code == 404


def test_a_photo_that_was_away_for_a_moment_is_shown_when_it_is_back(tmp_path):
    shutil.copytree(made() / "data", tmp_path / "data")
    with fastapi.TestClient(
        create_app(Answers(made() / "small.model.h5", str(tmp_path / "data")), hosts=["testserver"])
    ) as client:
        assert client.get("/items/item-03/photo").status_code == 200
        (tmp_path / "data" / "images").rename(tmp_path / "away")
        answer = client.get("/items/item-02/photo")
        assert answer.status_code == 404 and answer.headers["cache-control"] == "no-store"
        (tmp_path / "away").rename(tmp_path / "data" / "images")
        assert client.get("/items/item-02/photo").status_code == 200


def test_without_photos_no_backbone_is_loaded(monkeypatch):
    def absent(*_):
        raise ImportError("No module named 'torch'", name="torch")

    monkeypatch.setattr("vbpr.pages.serve.answers.PhotoEncoder", absent)
    for answers, why in (
        (Answers(made() / "small.model.h5", by_photo=False), "started without"),
        (Answers(made() / "small.model.h5"), "that needs torch, which is not installed here"),
    ):
        with fastapi.TestClient(create_app(answers, hosts=["testserver"])) as client:
            answer = client.post("/similar", files=[("photos", ("x.png", png()))])
            assert answer.status_code == 409 and why in answer.json()["detail"]
            assert client.get("/health").json()["photos"] is False and client.get("/items/item-01/similar").is_success
            assert client.get("/health").json()["file"] == "small.model.h5"


def test_answers_of_one_item_of_each_value_of_a_column():
    answers = Answers(made() / "small.model.h5", one_per="category")
    with fastapi.TestClient(create_app(answers, hosts=["testserver"])) as client:
        photo = [("photos", ("x.png", (made() / "data" / "images" / "item-11.png").read_bytes()))]
        for answer, colours in (
            (client.get("/users/user%2F03/recommendations?seen=true"), 3),
            (client.get("/items/item-07/similar"), 2),  # of other colours than its own
            (client.post("/similar", files=photo), 3),
            (client.post("/users/fold-in", json={"liked": ["item-01"]}), 2),
        ):
            found = [item["category"] for item in answer.json()["items"]]
            assert len(found) == len(set(found)) == colours


def test_a_file_that_never_rests_keeps_no_server_from_starting(tmp_path):
    stock, loads = tmp_path / "stock.txt", []

    def load():
        loads.append(None)
        stock.write_text("x" * len(loads))

    Newest(load, [stock])
    assert len(loads) == 3


def test_weights_that_no_photo_will_need_are_refused(refused):
    model = made() / "small.model.h5"
    assert "leave them out, or --no-photos" in refused("serve", model, "--no-photos", "--weights", "x.safetensors")


def test_a_prefix_stands_before_every_address_and_the_page_works_below_it():
    app = create_app(Answers(made() / "small.model.h5"), prefix="/looks")
    with fastapi.TestClient(app) as client:
        assert client.get("/looks/health").json()["status"] == "ok" and client.get("/health").status_code == 404
        assert client.get("/looks").url.path == "/looks/"  # so that the page's own addresses are below it
        page = client.get("/looks/").text
        assert 'fetch("/' not in page and 'href="/' not in page and "`/" not in page
        assert all(path.startswith("/looks/") for path in client.get("/looks/openapi.json").json()["paths"])


@pytest.mark.parametrize("prefix", ["looks", "/looks/", "/a b", "/../x?"])
def test_a_prefix_that_is_no_path_is_refused(prefix):
    with pytest.raises(VbprError, match="--prefix"):
        serve(made() / "small.model.h5", prefix=prefix)


def test_docs_name_every_route_and_every_parameter(client):
    text, described = client.get("/docs").text, client.get("/openapi.json").json()["paths"]
    for path, methods in described.items():
        for method, route in methods.items():
            assert f"{method.upper()} {path}" in text
            assert all(f"<dt>{p['name']}</dt>" in text for p in route.get("parameters", []))
    assert "://" not in text.split("<style>")[1]  # nothing from elsewhere


def test_whoever_the_model_knows_nothing_of_gets_bestsellers_where_that_is_asked_for(client):
    factors = Factors.load(made() / "small.model.h5")
    counts = np.bincount(factors.seen.indices, minlength=30)
    wanted = factors.item_ids[np.argsort(-counts, kind="stable")][:3].tolist()
    told = client.get("/users/nobody/recommendations?k=3&fallback=popularity").json()
    assert told["fallback"] and [item["item_id"] for item in told["items"]] == wanted
    assert client.get("/users/nobody/recommendations").status_code == 404
    body = {"liked": [], "k": 2, "fallback": "popularity", "exclude": wanted[:1]}
    told = client.post("/users/fold-in", json=body).json()
    assert told["fallback"] and [item["item_id"] for item in told["items"]] == wanted[1:3]
    refused = client.post("/users/fold-in", json={"liked": []})
    assert refused.status_code == 422 and "give at least one item" in refused.json()["detail"]
