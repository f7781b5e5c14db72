import dataclasses
import html.parser
import importlib.util
import re
import shutil
import types

import numpy as np
import pytest

from small import made
from vbpr import Dataset, Factors, evaluate, extract
from vbpr.pages.photos import Photos
from vbpr.pages.report.plots import curve, plane
from vbpr.pages.report.report import report
from vbpr.stores.model.about import About
from vbpr.stores.model.head import unit_rows


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    shutil.copy(made() / "small.model.h5", folder / "small.model.h5")
    return report(folder / "small.model.h5", users=3, map_items=25).read_text(encoding="utf-8")


def test_the_page_is_whole_and_asks_for_nothing_from_outside(page):
    stack, void = [], {"meta", "link", "line", "polyline", "circle", "rect", "br", "img"}

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in void:
                stack.append(tag)
            for name, value in attributes:
                assert name not in ("src", "href") or value.startswith(("data:", "#")), (tag, value)

        def handle_endtag(self, tag):
            if tag not in void:
                assert stack.pop() == tag

    Parser().feed(page)
    assert not stack
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "thing <" not in page.replace("thing \\u003c", "")  # titles with markup in them are only text


def test_its_figures_are_those_of_evaluate(page):
    summary = evaluate(Factors.load(made() / "small.model.h5")).summary()["all"]
    low, high = summary["auc_interval"]
    text = re.sub(r"<[^>]+>", "", page)
    assert f"{summary['auc']:.3f} ({low:.3f} to {high:.3f})" in text
    for name in ("knn (baseline)", "popularity (baseline)", "random (baseline)"):
        assert name in text
    for part in ("Learning curve", "The best served", "The worst served", "Neighbours", "Axis 1", "Map of styles"):
        assert part in text
    assert "25 of 30 items" in text and "first ten of every user" in text and "drawn" not in text


def test_shares_of_a_reason_sum_to_the_score_and_are_of_what_the_user_took(page):
    factors = Factors.load(made() / "small.model.h5")
    section = page[page.index('<section id="reasons">') :].split("</section>")[0]
    articles = section.split("<article>")[1:]
    assert len(articles) == 3
    for article in articles:
        user = factors.user_index(re.search(r"User (\S+)</strong>", article)[1])
        got, *because = re.findall(r'data-alt="[^"]*?&lt;(\d+)&gt;"', article)
        item = factors.item_index(f"item-{int(got):02}")
        score = float(factors.scores(np.array([user]))[0, item])
        terms = re.search(r"Score (\S+) = (.+?)\. <span", article)
        numbers = [float(n) for n in re.findall(r"-?\d+\.\d{3}", terms[2])]
        assert float(terms[1]) == pytest.approx(score, abs=6e-4) and sum(numbers) == pytest.approx(score, abs=4e-3)
        adds = [float(n) for n in re.findall(r"adds (-?\d+\.\d{3})", article)]
        assert sum(adds) == pytest.approx(numbers[0], abs=5e-3) and len(adds) == len(because)
        mine = set(factors.item_ids[factors.train[user].indices].tolist())
        assert {f"item-{int(n):02}" for n in because} == mine


def test_a_sample_of_users_has_the_figures_of_that_sample(tmp_path):
    text = report(made() / "small.model.h5", tmp_path / "r.html", map_items=0, rank_users=7, seed=3).read_text()
    sample = evaluate(Factors.load(made() / "small.model.h5"), users=7, seed=3).summary()["all"]
    text = re.sub(r"<[^>]+>", "", text)
    assert f"{sample['auc']:.3f} ({sample['auc_interval'][0]:.3f} to" in text
    assert "Test users: 7, drawn at random" in text and "first ten of 7 users, drawn at random, cover" in text


def test_neighbours_of_another_network_are_no_baseline(tmp_path):
    shutil.copytree(made(), tmp_path / "shop")
    model, features = tmp_path / "shop" / "small.model.h5", tmp_path / "shop" / "small.h5"
    factors = Factors.load(model)
    about = factors.about | {"features": [factors.about["features"][0] | {"path": str(features)}]}
    dataclasses.replace(factors, about=about).save(model)
    assert "knn (baseline)" in report(model, map_items=0).read_text()
    features.unlink()
    extract(Dataset.resolve(tmp_path / "shop" / "data"), "test_vit", features, random_weights=True, engine="torch")
    text = report(model, map_items=0).read_text()
    assert "knn (baseline)" not in text and "made anew, by another network, since the model was trained" in text


def test_a_rank_is_among_all_that_compete(tmp_path):
    """The other held-out items of a user do, too."""
    factors = Factors.load(made() / "small.model.h5")
    test = factors.train + factors.test
    train = factors.train - factors.train
    dataclasses.replace(factors, train=train, test=test).save(tmp_path / "m.h5")
    text = re.sub(r"<[^>]+>", "", report(tmp_path / "m.h5", users=2, map_items=0).read_text())
    ranks = re.findall(r"rank (\d+) of (\d+)", text)
    assert len(ranks) > 5 and all(0 < int(rank) <= int(of) for rank, of in ranks)
    assert {int(of) for _, of in ranks} == {30 - 1}  # the one in validation does not compete


def test_a_thumbnail_is_made_once_however_often_it_is_shown(tmp_path, monkeypatch):
    asked = []
    real = Photos.thumbnail
    monkeypatch.setattr(Photos, "thumbnail", lambda self, item, *a: asked.append(item) or real(self, item, *a))
    text = report(made() / "small.model.h5", tmp_path / "r.html", map_items=0).read_text()
    assert len(asked) == len(set(asked))
    assert text.count('<span class="photo"') > 2 * len(asked)
    assert "Map of styles" not in text


def test_without_opentsne_the_map_is_of_principal_axes_and_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((200, 2)) * [3, 1] @ np.linalg.qr(rng.standard_normal((6, 6)))[0][:2]
    places, words = plane(flat)
    assert "hold 100% of the differences" in words and "pip install openTSNE" in words
    near = np.argsort(((flat[:1] - flat) ** 2).sum(1))[1]
    assert places.min() == 0 and places.max() == 1
    assert np.abs(places[0] - places[near]).max() < 0.2


def test_an_item_that_looks_like_nothing_has_a_place_too():
    """An item without features has a vector of zeros, which has no cosine to any other."""
    vectors = unit_rows(np.random.default_rng(0).standard_normal((200, 8)))
    vectors[7] = 0
    places, words = plane(vectors)
    assert "t-SNE" in words and np.isfinite(places).all()


def test_the_curve_is_of_one_part():
    parts = [("visual", 0.8, 3), ("latent", 0.7, 12)]
    points = [{"epoch": e, "auc": auc + e / 1000, "part": part} for part, auc, n in parts for e in range(1, n + 1)]
    factors = types.SimpleNamespace(record=About(curve=points))
    assert [mark["auc"] for mark in curve(factors)["marks"]] == [0.801, 0.802, 0.803]
    factors.record = About(curve=points[:1] * 2)
    assert curve(factors) is None


def test_a_model_with_no_data_set_on_record_is_not_of_the_sample(tmp_path):
    model = tmp_path / "m.h5"
    factors = Factors.load(made() / "small.model.h5")
    about = {key: value for key, value in factors.about.items() if not key.startswith("data")}
    dataclasses.replace(factors, about=about).save(model)
    assert "sample" not in report(model, users=2, map_items=0).read_text(encoding="utf-8")
