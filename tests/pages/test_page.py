"""The page and the report in a real browser. Nothing is installed: without Chromium these tests say so."""

import socket
import threading
import time

import pytest

from browser import AXE, CHROMIUM, Browser
from small import made

uvicorn = pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium runs these"),
]


@pytest.fixture(scope="module")
def address():
    from vbpr.pages.serve.answers import Answers
    from vbpr.pages.serve.serve import create_app

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = create_app(Answers(made() / "small.model.h5"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


ANSWERS = "document.querySelectorAll('#answers li').length"


def test_by_keyboard_from_a_user_to_an_item_and_back(address):
    with Browser() as page:
        page.open(address)
        page.press("Tab")
        assert page.run("document.activeElement.id") == "search"
        for _ in range(9):
            page.press("Tab")
            if page.run("document.activeElement.id") == "user":
                break
        page.type("user/04")
        page.press("Enter")
        page.wait(f"{ANSWERS} === 24")
        assert page.run("document.querySelectorAll('#history li').length") == 6
        shown = page.run("[...document.querySelectorAll('#answers .name')].map(e => e.textContent)")
        assert all("green" in name for name in shown[:4])  # this user takes green things, and has all but four
        page.wait("[...document.images].every(i => !i.complete || i.naturalWidth > 0)")
        page.run("document.querySelector('#answers button').focus()")
        page.press("Enter")
        page.wait("location.hash.startsWith('#item/') && document.querySelector('#asked img')")
        page.run("history.back()")
        page.wait("document.querySelector('#heading').textContent.includes('user/04')")
        assert page.faults() == []
        assert all(url.startswith((address, "data:", "blob:", "about:")) for url in page.requests())


WALL = "document.querySelectorAll('#tiles li').length"


def test_it_opens_on_items_and_people_and_the_address_keeps_what_is_looked_at(address):
    with Browser() as page:
        page.open(address)
        page.wait(f"{WALL} > 10 && document.querySelectorAll('#few li').length === 4")
        page.run("document.querySelector('#search').value = 'BLUE 11'; document.querySelector('#find').requestSubmit()")
        page.wait(f"{WALL} === 1 && location.hash === '#wall/popular?search=BLUE+11'")
        page.run("document.querySelector('#tiles button').click()")
        page.wait("location.hash === '#item/item-11' && !document.querySelector('#out').hidden")
        page.run("history.back()")
        page.wait(f"!document.querySelector('#wall').hidden && {WALL} === 1")
        assert page.run("document.querySelector('#search').value") == "BLUE 11"
        page.run("location.hash = 'people/'")
        page.wait("document.querySelectorAll('#people li').length > 4")
        page.run("document.querySelector('#people button').click()")
        page.wait(f"location.hash.startsWith('#user/') && {ANSWERS} > 0")
        page.run(
            "document.querySelector('#category').value = 'blue';"
            "document.querySelector('#category').dispatchEvent(new Event('change'))"
        )
        page.wait(
            "location.hash.endsWith('?category=blue') && document.querySelector('#sub').textContent.includes('blue')"
        )
        page.run("location.hash = 'wall/looks'")
        page.wait(f"!document.querySelector('#wall').hidden && {WALL} > 10")
        assert page.faults() == []


def test_a_recommended_item_says_why_and_the_sum_is_its_score(address):
    with Browser() as page:
        page.open(f"{address}/#user/user%2F04")
        page.wait(f"{ANSWERS} > 0")
        page.run("document.querySelector('#answers button').click()")
        page.wait("location.hash.includes('for=user') && document.querySelector('#asked p')")
        score, shares, others, own, rest = page.run(
            "document.querySelectorAll('#asked p')[1].textContent.match(/-?[0-9]+[.][0-9]+/g).map(Number)"
        )
        assert score == pytest.approx(shares + others + own + rest, abs=0.004)
        assert "Because user/04 took" in page.run("document.querySelector('#asked p').textContent")
        shown = page.run("[...document.querySelectorAll('#history li')].map(e => e.textContent)")
        assert shown and all("adds" in text for text in shown)
        page.run("document.querySelector('#history button').click()")
        page.wait("!location.hash.includes('for=') && !document.querySelector('#asked p')")
        assert page.faults() == []


def test_a_photo_finds_its_item_and_an_unknown_user_is_told(address):
    with Browser() as page:
        page.open(address)
        page.choose_files("#photo", made() / "data" / "images" / "item-11.png")
        page.wait(f"{ANSWERS} > 0")
        assert "item-11" in page.run("document.querySelector('#answers li').textContent")
        page.run("location.hash = 'user/nobody'")
        page.wait("document.querySelector('#status').textContent.includes('no such user')")
        assert page.run("document.querySelector('#out').hidden")


def test_titles_with_markup_are_text(address):
    with Browser() as page:
        page.open(f"{address}/#item/item-11")
        page.wait(f"{ANSWERS} > 0")
        assert "blue thing <11>" in page.run("document.querySelector('#heading').textContent")


@pytest.mark.parametrize("where", ["/", "/#people/", "/#user/user%2F04", "/#item/item-11"])
def test_a_phone_shows_it_without_scrolling_sideways(address, where):
    with Browser(390, 844, mobile=True) as page:
        page.open(address + where)
        page.wait("!document.querySelector('#out').hidden || !document.querySelector('#wall').hidden")
        assert page.run("document.documentElement.scrollWidth") <= 390


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core here: npm install --no-save axe-core runs this")
def test_no_serious_finding_of_axe(address, tmp_path):
    from vbpr.pages.report.report import report

    path = report(made() / "small.model.h5", tmp_path / "r.html", users=2, map_items=20)
    with Browser() as page:
        for where in (
            address,
            f"{address}/docs",
            f"{address}/#people/",
            f"{address}/#user/user%2F04",
            f"{address}/#item/item-11",
            path.as_uri(),
        ):
            page.open("about:blank")  # so that another fragment is another page
            page.open(where)
            page.wait("!document.querySelector('#out[hidden]') || !document.querySelector('#wall[hidden]')")
            assert page.axe() == [], where


def test_the_report_draws_its_map_and_zooms_by_keyboard(tmp_path):
    from vbpr.pages.report.report import report

    path = report(made() / "small.model.h5", tmp_path / "r.html", users=2)
    with Browser() as page:
        page.open(path.as_uri())
        ink = "(() => { const c = document.getElementById('canvas'); return c.toDataURL() })()"
        page.run("document.getElementById('canvas').scrollIntoView()")
        page.wait("document.getElementById('canvas').width > 300")
        page.run("document.getElementById('canvas').focus()")
        time.sleep(0.3)
        before = page.run(ink)
        page.press("+", "+")
        time.sleep(0.3)
        assert page.run(ink) != before
        assert page.faults() == []
        assert page.run("document.querySelectorAll('.photo img').length > 20")
