"""Comparison: from an original file to the table in one go, statistics against their definitions, cells kept."""

import csv
import dataclasses
import importlib.util
import io
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy import stats

import vbpr.studies.compare.cells
import vbpr.studies.compare.compare
from conftest import ROOT, TINY
from vbpr.base.errors import VbprError
from vbpr.base.locks import locked
from vbpr.base.stopping import Stopped
from vbpr.cli.study_tables import print_comparison
from vbpr.data.converters import convert
from vbpr.data.converters.published import PUBLISHED
from vbpr.data.dataset import Dataset
from vbpr.data.split import SplitConfig
from vbpr.evaluation.evaluate import evaluate
from vbpr.stores.model.factors import Factors
from vbpr.studies.compare.cells import USERS, sampled_auc, spending
from vbpr.studies.compare.compare import compare
from vbpr.studies.compare.methods import Options, methods_of
from vbpr.studies.compare.plot import draw_bars
from vbpr.studies.compare.table import differences, escaped, markdown, table_of
from vbpr.studies.compare.tests import told_apart
from vbpr.training.configure import configure
from vbpr.training.fit import fit
from vbpr.training.train import train

TOOL = ROOT / "tools" / "make_original.py"
spec = importlib.util.spec_from_file_location("make_original", TOOL)
assert spec is not None and spec.loader is not None
make_original = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_original)


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Dataset:
    """24 users who each take one of three colours, 48 items, through the original's file format."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    items = {}
    for i in range(48):
        pixels = rng.integers(0, 60, (32, 32, 3), np.uint8)
        pixels[..., i % 3] += 180
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
        items[i] = {b"asin": b"B%03d" % i, b"imgs": buffer.getvalue()}
    parts = [{}, {}, {}]
    for u in range(24):
        taken = rng.choice(np.arange(u % 3, 48, 3), 8, replace=False).tolist()
        for part, some in zip(parts, (taken[2:], taken[:1], taken[1:2]), strict=True):
            part[u] = [{"reviewerID": f"A{u:02}", "unixReviewTime": 1, b"productid": i} for i in some]
    source = folder / "AmazonMenWithImgPartitioned.npy"
    make_original.write_original(source, parts, items)
    convert(source, folder / "men")
    return Dataset.resolve(str(folder / "men"))


@pytest.fixture
def small(monkeypatch) -> Options:
    monkeypatch.setattr("vbpr.training.models.dvbpr.network.WIDE", 16)
    dvbpr = {"epochs": 1, "image_size": 32, "dim": 4, "precision": "float32"}
    return Options(dvbpr=dvbpr, cae={"epochs": 1, "image_size": 32}, published=True, device="cpu")


@pytest.mark.slow
def test_from_the_original_file_to_the_table_and_again_for_nothing(converted, small, tmp_path, monkeypatch, capsys):
    names = ["dvbpr", "cae", "popularity", "knn", "dvbpr-efficient"]
    result = compare([converted], names, tmp_path, small)
    told = result["data"][0]
    assert (told["users"], told["items"], told["interactions"]) == (24, 48, 24 * 8)
    assert told["split"] == "the file's own split column" and told["recognised"] is None
    rows = {row["method"]: row for row in told["methods"]}
    assert list(rows) == names
    assert rows["knn"]["all"]["auc"] > 0.8 > rows["popularity"]["all"]["auc"]  # colour is all there is to know
    assert rows["dvbpr"]["images_encoded"] == 2 * 128 * (24 * 6 // 128) + 48
    assert rows["cae"]["images_encoded"] == 48 + 46  # two are held out
    assert set(rows["cae"]["published_protocols"]) == {"sampled-100", "sampled-1", "best-epoch-on-test"}
    assert {t["measure"] for t in told["tests"]} == {"all", "cold", "ndcg@10"}
    assert len([t for t in told["tests"] if t["measure"] == "all"]) == 10
    page = (tmp_path / "compare.md").read_text()
    assert all(f"| {name} |" in page for name in names)
    assert json.loads((tmp_path / "compare.json").read_text()) == result
    assert Image.open(tmp_path / "compare.png").size[0] > 300
    print_comparison(result)
    assert "dvbpr-efficient" in capsys.readouterr().out

    def never(*_a, **_k):
        raise AssertionError("a finished cell was computed again")

    monkeypatch.setattr("vbpr.studies.compare.cells.fit", never)
    assert compare([converted], names, tmp_path, small) == result


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (["popularity", "inceptoin"], {}, "did you mean inception"),
        (["popularity", "lite0"], {"weights": {"lite0": Path("/gone")}}, "/gone is no file"),
        (["popularity", "cae"], {"cae": {"recipe": "best"}}, "--recipe best"),
        (["popularity", "dvbpr"], {"dvbpr": {"image_size": 100}}, "multiple of 32"),
    ],
)
def test_what_a_later_method_lacks_is_said_before_the_first_is_trained(converted, tmp_path, names, options, said):
    with pytest.raises(VbprError, match=said):
        compare([converted], names, tmp_path, Options(device="cpu", **options))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.slow
def test_published_protocols_are_added_to_finished_cells(converted, small, tmp_path, monkeypatch):
    names, fitted = ["cae", "knn"], []
    compare([converted], names, tmp_path, dataclasses.replace(small, published=False))
    fit = vbpr.studies.compare.cells.fit

    def counted(split, matrix, config, *rest):
        fitted.append(config)
        return fit(split, matrix, config, *rest)

    monkeypatch.setattr("vbpr.studies.compare.cells.fit", counted)
    rows = compare([converted], names, tmp_path, small)["data"][0]["methods"]
    assert [config.identity.endswith(" oracle") for config in fitted] == [True]  # whose epoch the test items choose
    assert set(rows[0]["published_protocols"]) == {"sampled-100", "sampled-1", "best-epoch-on-test"}
    assert set(rows[1]["published_protocols"]) == {"sampled-100", "sampled-1"}
    assert not list(tmp_path.rglob("*checkpoint*"))
    compare([converted], names, tmp_path, small)
    assert len(fitted) == 1


def test_train_makes_a_model_file_of_dvbpr_without_features(converted, small, tmp_path):
    config = configure("dvbpr", device="cpu", **small.dvbpr)
    made = train(converted, [], config, tmp_path / "dvbpr.model.h5")
    loaded = Factors.load(tmp_path / "dvbpr.model.h5")
    assert np.array_equal(loaded.items, made.factors.items) and loaded.items.shape == (48, 4)
    assert loaded.item_ids.tolist() == [f"B{i:03}" for i in range(48)]
    assert 0 < evaluate(loaded, device="cpu").summary()["all"]["auc"] < 1
    assert loaded.about["parameters"] > 2_000_000 and loaded.about["without_pictures"] == 0


def test_a_model_of_dvbpr_has_neighbours_and_says_why_it_reads_no_photo(converted, small, tmp_path, cli):
    model, photo = tmp_path / "dvbpr.model.h5", tmp_path / "new" / "new.png"
    train(converted, [], configure("dvbpr", device="cpu", **small.dvbpr), model)
    photo.parent.mkdir()
    Image.new("RGB", (32, 32), "red").save(photo)
    assert cli("similar", model, "--item", "B000")[0] == 0
    for command in (("similar", model, "--image", photo), ("recommend", model, "--image", photo)):
        code, _, said = cli(*command)
        assert code == 2 and "does not keep (dvbpr)" in said
    code, _, said = cli("add-items", model, photo.parent)
    assert code == 2 and "does not keep (dvbpr)" in said


def factors_of(rng, users=40, items=30) -> Factors:
    held = sp.csr_matrix(
        (np.ones(users, np.float32), (np.arange(users), rng.integers(items, size=users))), (users, items)
    )
    train = sp.random(users, items, 0.2, "csr", np.float32, random_state=1)
    train = train - train.multiply(held > 0)
    train.eliminate_zeros()
    train = train.tocsr()
    train.data[:] = 1
    train.sort_indices()
    empty = sp.csr_matrix((users, items), dtype=np.float32)
    ids = np.array([f"{n:03}" for n in range(60)])
    u, i = (rng.standard_normal((n, 4)).astype(np.float32) for n in (users, items))
    return Factors(u, i, np.zeros(items, np.float32), ids[:users], ids[:items], train, empty, held)


def test_sampled_auc_estimates_the_exact_one():
    """Within three standard errors of the exact figure."""
    factors = factors_of(np.random.default_rng(0))
    exact = evaluate(factors, device="cpu").summary()["all"]["auc"]
    estimates = [sampled_auc(factors, 100, seed) for seed in range(40)]
    assert abs(np.mean(estimates) - exact) < 3 * np.std(estimates) / 40**0.5
    single = [sampled_auc(factors, 1, seed) for seed in range(200)]
    assert abs(np.mean(single) - exact) < 3 * np.std(single) / 200**0.5


def test_sampled_auc_is_a_mean_over_users_however_many_items_they_have_held_out():
    rng = np.random.default_rng(0)
    factors = factors_of(rng)
    held = factors.test.toarray()
    worst = factors.choose(factors.users[0], 30)[0][-9:]
    held[0, worst] = factors.train[[0]].toarray()[0, worst] == 0  # of one user, much
    held = sp.csr_matrix(held)
    factors = dataclasses.replace(factors, test=held)
    exact = evaluate(factors, device="cpu").summary()["all"]["auc"]
    estimates = [sampled_auc(factors, 100, seed) for seed in range(40)]
    assert abs(np.mean(estimates) - exact) < 3 * np.std(estimates) / 40**0.5


def test_a_tie_is_not_a_win_in_the_published_protocols():
    factors = factors_of(np.random.default_rng(0))
    factors.items[:] = factors.items[0]
    assert sampled_auc(factors, 100) == 0 and evaluate(factors, device="cpu").summary()["all"]["auc"] == 0.5


def test_names_become_methods():
    made = {m.name: (m.model, m.backbone) for m in methods_of(["dvbpr", "cae", "lite0", "vbpr", "bprmf"])}
    assert made == {
        "dvbpr": ("dvbpr", ""), "cae": ("visual", "cae"), "lite0": ("visual", "lite0"), "vbpr": ("vbpr", "cae"),
        "bprmf": ("bprmf", ""),
    }  # fmt: skip
    for names, words in ((["vbpr"], "backbone"), ([], "distinct"), (["cae", "cae"], "distinct")):
        with pytest.raises(VbprError, match=words):
            methods_of(names)


def test_a_recognised_data_set_has_the_reports_figures_beside_ours(tmp_path):
    part = {"users": 3, "auc": 0.7, "auc_interval": [0.6, 0.8], "ndcg@10": 0.1, "hr@10": 0.2, "coverage@10": 0.1}
    row = {
        "method": "inception", "all": part, "cold": part, "unseen": {"users": 0}, "seconds_once": 1, "seconds": 2,
        "images_encoded": 5, "published_protocols": {"sampled-1": 0.69}, "report": 0.764, "random_weights": True,
    }  # fmt: skip
    told = {
        "title": "x", "recognised": "Amazon Fashion", "users": 1, "items": 2, "interactions": 3, "split": "s",
        "published_protocols": True, "methods": [row], "tests": [],
    }  # fmt: skip
    page = markdown({"protocol": "p", "seeds": 1, "data": [told]})
    assert "| 0.764 |" in page and "inception (RANDOM weights)" in page and "the published Amazon Fashion" in page
    draw_bars({"data": [told]}, tmp_path / "bars.png")
    pixels = np.asarray(Image.open(tmp_path / "bars.png"))
    assert (pixels == [0x2B, 0x5C, 0x8A]).all(-1).sum() > 1000
    assert all(p.auc["inception"] > p.auc["cae"] for p in PUBLISHED.values())


def test_a_gpu_that_is_not_there_is_said(converted, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(VbprError, match="--device cuda"):
        compare([converted], ["dvbpr"], tmp_path, Options(device="cuda", dvbpr={"image_size": 32}))


@pytest.mark.slow
def test_other_test_items_or_photographs_are_measured_anew(tmp_path, monkeypatch):
    """A cell is kept for this very data, and not for what looks the same in training."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / "images" / f"i{k:02}.png")

    def write(test):
        lines = ["user_id,item_id,split"]
        for u in range(16):
            lines += [f"u{u:02},i{(u + k) % 12:02},{part}" for k, part in enumerate(["train"] * 3 + ["validation"])]
            lines.append(f"u{u:02},i{(u + test) % 12:02},test")
        (folder / "interactions.csv").write_text("\n".join(lines))

    def aucs():
        monkeypatch.setattr("vbpr.training.models.dvbpr.network.WIDE", 16)
        dvbpr = {"epochs": 1, "image_size": 32, "dim": 4, "batch": 4, "precision": "float32"}
        options = Options(dvbpr=dvbpr, published=False, device="cpu")
        told = compare([Dataset.resolve(str(folder))], ["bprmf", "dvbpr"], tmp_path / "out", options)
        return [row["all"]["auc"] for row in told["data"][0]["methods"]]

    write(5)
    first = aucs()
    assert aucs() == first
    (cell,) = (tmp_path / "out").glob("*/bprmf.0.*.json")
    for damaged in ("{", "[" * 10**5, json.dumps({"identity": json.loads(cell.read_text())["identity"]})):
        cell.write_text(damaged)
        assert aucs() == first
    with locked(cell), pytest.raises(VbprError, match=r"bprmf\.0\.\w+\.json is in use by pid"):
        aucs()
    write(7)
    second = aucs()
    assert second[0] != first[0]
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (33, 33, 3), np.uint8)).save(folder / "images" / f"i{k:02}.png")
    assert aucs()[0] == second[0]
    known = [json.loads(path.read_text())["identity"] for path in (tmp_path / "out").glob("*/dvbpr.0.*.json")]
    write(5)
    aucs()
    assert known != [json.loads(path.read_text())["identity"] for path in (tmp_path / "out").glob("*/dvbpr.0.*.json")]


def test_what_stopped_runs_took_is_counted(board, tmp_path, monkeypatch):
    clock, fit, options = (
        [0.0],
        vbpr.studies.compare.cells.fit,
        Options(random_weights=True, published=False, device="cpu"),
    )
    monkeypatch.setattr(vbpr.studies.compare.cells.time, "monotonic", lambda: clock[0])

    def row():
        return compare([Dataset.resolve(str(board))], ["bprmf"], tmp_path / "out", options)["data"][0]["methods"][0]

    def stopped(*_):
        clock[0] += 100
        raise Stopped("asked to")

    def slow(*given):
        clock[0] += 10
        return fit(*given)

    for training in (stopped, stopped, slow):
        monkeypatch.setattr(vbpr.studies.compare.cells, "fit", training)
        if training is slow:
            assert row()["seconds"] == row()["seconds"] == 210
        else:
            with pytest.raises(Stopped):
                row()
    assert not list((tmp_path / "out").glob("*/*.spent.json"))


def test_an_extractions_time_is_that_of_all_its_runs_with_work(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(vbpr.studies.compare.cells.time, "monotonic", lambda: clock[0])
    note, known = tmp_path / "a.spent.json", []
    for seconds, worked, kind in ((5, True, "a"), (7, False, "a"), (2, True, "a"), (1, True, "b")):
        with spending(note, {"identity": kind}) as spent:
            clock[0] += seconds
            spent["worked"] = worked
        known.append(json.loads(note.read_text())["seconds"])
    assert known == [5, 5, 7, 1]


def test_its_models_know_their_data_and_that_weights_were_random(board, tmp_path, cli):
    options = Options(random_weights=True, published=False, device="cpu")
    compare([Dataset.resolve(str(board))], ["test_vit", "vbpr", "popularity"], tmp_path, options)
    (model,) = tmp_path.glob("*/vbpr.0.*.model.h5")  # whose K is cut to the width of the features
    about = Factors.load(model).about
    assert (about["data_title"], about["title"]) == ("board", "vbpr (RANDOM weights: test_vit)")
    assert about["features"][0]["backbone"] == "test_vit"
    (model,) = tmp_path.glob("*/popularity.0.*.model.h5")
    assert Factors.load(model).about["title"] == "popularity"


def test_bars_of_one_are_labelled(tmp_path):
    told = {"title": "t", "methods": [{"method": "m", "cold": {}, "unseen": {}}]}
    told["methods"][0]["all"] = {"auc": 0.998, "auc_interval": [0.99, 1.0]}
    written = []

    class Pen:
        def __getattr__(self, name):
            return lambda *args: written.append(args[1]) if name == "text" else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("PIL.ImageDraw.Draw", lambda *_: Pen())
        draw_bars({"data": [told]}, tmp_path / "bars.png")
    assert "1.00" in written


@pytest.mark.slow
def test_seeds_are_averaged(board, tmp_path):
    """Users' AUCs, summaries and seconds; a method that has nothing random runs once."""
    options = Options(seeds=2, random_weights=True, published=False, device="cpu")
    told = compare([Dataset.resolve(str(board))], ["bprmf", "popularity"], tmp_path, options)["data"][0]
    ours, popularity = told["methods"]
    cells = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/bprmf.?.*.json"))]
    assert len(cells) == 2 == ours["seeds"] and popularity["seeds"] == 1 and told["items"] == 22
    assert cells[0]["users"] != cells[1]["users"]
    for key in ("auc", "mrr"):
        assert ours["all"][key] == pytest.approx(np.mean([cell["summary"]["all"][key] for cell in cells]))
    assert ours["seconds"] == pytest.approx(np.mean([cell["seconds"] for cell in cells]))
    other = json.loads(next(tmp_path.glob("*/popularity.0.*.json")).read_text())["users"]["all"]
    difference = np.mean([cell["users"]["all"] for cell in cells], 0) - other
    assert told["tests"][0]["difference"] == pytest.approx(difference.mean())


def test_more_seeds_after_published_protocols_without_them(board, tmp_path):
    with_them = Options(random_weights=True, published=True, device="cpu")
    compare([Dataset.resolve(board)], [TINY], tmp_path, with_them)
    more = dataclasses.replace(with_them, published=False, seeds=2)
    row = compare([Dataset.resolve(board)], [TINY], tmp_path, more)["data"][0]["methods"][0]
    assert row["seeds"] == 2 and row["published_protocols"] == {}


def test_cold_and_unseen_figures_say_of_how_many_users_they_are(board, tmp_path):
    options = Options(random_weights=True, published=False, device="cpu")
    data = compare([Dataset.resolve(board)], [TINY, "random"], tmp_path, options)["data"][0]
    for row, cells in zip(data["methods"], table_of(data)[1], strict=True):
        for part, cell in (("cold", cells[3]), ("unseen", cells[4])):
            assert cell == (f"{row[part]['auc']:.4f} ({row[part]['users']:,})" if "auc" in row[part] else "-")


def test_verdicts_go_by_the_corrected_p():
    test = {"a": "a", "b": "b", "difference": 0.1, "interval": [0.0, 0.2], "p": 0.01}
    tests = [test | {"measure": "all", "p_holm": 0.04}, test | {"measure": "ndcg@10", "p_holm": 0.06}]
    header, rows = differences({"tests": tests})
    assert header == ["difference of means", "AUC, all", "NDCG@10"]
    assert rows == [["a - b", "+0.1000, p 0.04 *", "+0.1000, p 0.06"]]
    assert differences({"tests": tests}, intervals=True)[1][0][1] == "+0.1000 (+0.0000 to +0.2000), p 0.04 *"


def test_methods_are_told_apart_by_each_measure_that_they_have():
    """Each measure of the right users' figures, a family of its own for Holm."""
    rng = np.random.default_rng(0)
    users = {name: {part: rng.random(n) for part, n in zip(USERS, (50, 9, 4, 50), strict=True)} for name in "abc"}
    some, none = {"auc": 0.5}, {"users": 4}
    rows = [{"method": name, "all": some, "cold": some, "unseen": none if name == "b" else some} for name in "abc"]
    tests = told_apart(rows, users)
    assert [(t["measure"], t["a"] + t["b"]) for t in tests] == [
        *itertools.product(("all", "cold"), ("ab", "ac", "bc")), ("unseen", "ac"),
        *itertools.product(("ndcg@10",), ("ab", "ac", "bc")),
    ]  # fmt: skip
    for t in tests:
        a, b = (users[t[side]][t["measure"]] for side in "ab")
        assert t["difference"] == pytest.approx(a.mean() - b.mean())
        assert t["p"] == pytest.approx(max(stats.ttest_rel(a, b).pvalue, 2.0 ** (1 - len(a))))
    assert [t["p_holm"] for t in tests if t["measure"] == "unseen"] == [
        t["p"] for t in tests if t["measure"] == "unseen"
    ]


@pytest.mark.slow
def test_cells_are_of_their_features_and_the_oracle_chooses_on_test(board, tmp_path, monkeypatch):
    """Other weights, other features, another figure; and where the protocol chooses by the test items, it does."""
    fitted = []

    def spy(split, *rest):
        fitted.append((split.validation.indices.tolist(), split.test.indices.tolist()))
        return fit(split, *rest)

    monkeypatch.setattr("vbpr.studies.compare.cells.fit", spy)
    data, out = [Dataset.resolve(str(board))], tmp_path / "out"
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(timm.create_model(TINY, num_classes=0).state_dict(), tmp_path / f"{seed}.safetensors")

    def run(seed, published):
        options = Options(weights={TINY: tmp_path / f"{seed}.safetensors"}, published=published, device="cpu")
        compare(data, [TINY], out, options)

    run(0, False)
    run(0, False)
    assert len(fitted) == 1
    for features in out.glob("*/*.h5"):
        if not features.name.endswith(".model.h5"):
            features.unlink()
    run(1, False)
    assert len(fitted) == 2
    run(1, True)
    assert len(fitted) == 3 and fitted[2] == fitted[1][::-1]


def test_without_images_what_needs_none_is_compared(board, tmp_path, cli, refused):
    (tmp_path / "data").mkdir()
    shutil.copy(board / "interactions.csv", tmp_path / "data")
    options = ("compare", "--data", tmp_path / "data", "--out", tmp_path / "out")
    code, text, _ = cli(*options, "--models", "popularity,bpr", "--seeds", 1)
    assert code == 0 and "popularity" in text
    whole = compare([Dataset.resolve(board)], ["popularity"], tmp_path / "whole")["data"][0]
    told = json.loads((tmp_path / "out" / "compare.json").read_text())["data"][0]
    assert told["users"] == whole["users"] and told["items"] <= whole["items"]
    assert "no images found" in refused(*options, "--models", "popularity,lite0", "--random-weights")
    assert "--random-weights is for backbones" in refused(*options, "--models", "popularity", "--random-weights")


def test_tables_are_written_for_others_to_read_and_those_of_another_split_beside_them(board, tmp_path):
    data = Dataset.resolve(board)
    for seed in (0, 1):
        compare([data], ["popularity"], tmp_path, Options(split=SplitConfig(seed=seed), device="cpu"))
    found = {seed: json.loads((tmp_path / name).read_text())["data"][0]["methods"][0] for seed, name in NAMES.items()}
    assert found[0]["all"]["auc"] != found[1]["all"]["auc"]
    with (tmp_path / "compare.csv").open() as file:
        rows = {row["part"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"all", "cold", "unseen"} and rows["all"]["method"] == "popularity"
    assert float(rows["all"]["auc"]) == found[0]["all"]["auc"]
    assert [float(rows["all"][name]) for name in ("auc_low", "auc_high")] == found[0]["all"]["auc_interval"]
    lines = (tmp_path / "compare-split-1.tex").read_text().splitlines()
    row = next(line for line in lines if line.startswith("popularity & "))
    assert row.endswith(r" \\") and f"{found[1]['all']['auc']:.4f}" in row
    header = next(line for line in lines if line.startswith("method & "))
    assert header.count("&") == row.count("&")
    assert lines[-1] == r"\end{tabular}"
    assert escaped("a_b & 5%") == r"a\_b \& 5\%"


NAMES = {0: "compare.json", 1: "compare-split-1.json"}


def test_one_method_twice_is_refused(tmp_path):
    with pytest.raises(VbprError, match="--models visual and lite0 are one method; leave one out"):
        methods_of(["visual", "lite0", "cae"])


def test_one_data_set_twice_is_refused_however_it_is_written(board, tmp_path):
    twice = [Dataset.resolve(board), Dataset.resolve(board.parent / "." / board.name)]
    with pytest.raises(VbprError, match="one of them is given twice"):
        compare(twice, ["popularity"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_split_leaves_finished_cells_alone(board, tmp_path, monkeypatch):
    def run(seed):
        options = Options(published=False, device="cpu", split=SplitConfig(seed=seed))
        return compare([Dataset.resolve(str(board))], ["bprmf"], tmp_path / "out", options)["data"][0]["methods"]

    first, other = run(0), run(1)
    monkeypatch.setattr(vbpr.studies.compare.cells, "fit", lambda *_: pytest.fail("trained again"))
    assert run(0) == first != other == run(1)


def test_model_files_of_the_same_split_stand_beside_the_methods(board, board_features, tmp_path, cli, refused):
    """One that vbpr trained and one from elsewhere; kept until the file changes; of another split refused."""
    own, other = tmp_path / "own.model.h5", tmp_path / "other.model.h5"
    train(board, [board_features], configure("visual", dim=4, epochs=2, device="cpu"), own)
    factors, rng = Factors.load(own), np.random.default_rng(0)
    scores = rng.normal(size=factors.train.shape)
    parts = (factors.user_ids, factors.item_ids, factors.train, factors.validation, factors.test)
    Factors(scores, np.eye(scores.shape[1]), np.zeros(scores.shape[1]), *parts).save(other)
    words = ("compare", "--data", board, "--out", tmp_path / "out", "--json", tmp_path / "told.json")
    given = ("--fitted", f"tuned={own}", "--fitted", f"elsewhere={other}")
    code, said, err = cli(*words, "--models", "popularity", *given)
    assert code == 0, err
    told = json.loads((tmp_path / "told.json").read_text())["data"][0]
    rows = {row["method"]: row for row in told["methods"]}
    assert list(rows) == ["popularity", "tuned", "elsewhere"] and rows["tuned"]["model"] == "visual"
    for name, path in (("tuned", own), ("elsewhere", other)):
        summary = evaluate(Factors.load(path), device="cpu").summary()
        assert rows[name]["all"]["auc"] == summary["all"]["auc"] and rows[name]["file"] == str(path)
    assert rows["tuned"]["config"]["dim"] == 4 and rows["tuned"]["seconds"] > 0 and rows["elsewhere"]["seconds"] is None
    assert "popularity - tuned" in said and "tuned - elsewhere" in said
    code, _, err = cli(*words, *given, "--models", "popularity")
    assert code == 0 and "measuring" not in err
    shutil.copy(own, other)
    code, _, err = cli(*words, *given)  # of files alone, too
    assert code == 0 and "measuring elsewhere" in err and "measuring tuned" not in err
    told = json.loads((tmp_path / "told.json").read_text())["data"][0]
    assert [row["all"]["auc"] for row in told["methods"]] == [rows["tuned"]["all"]["auc"]] * 2

    assert "is of another data set or split" in refused(*words, *given, "--split-seed", 5)
    assert "give it a name that no method has" in refused(*words, "--models", "knn,tuned", "--fitted", f"tuned={own}")
    assert "each name once" in refused(*words, *given, "--fitted", f"tuned={own}")
    assert "give NAME=FILE" in refused(*words, "--fitted", own)
    assert "does not exist" in refused(*words, "--fitted", f"gone={tmp_path}/gone.h5")
    assert "is for one --data" in refused(*words, "--data", "sample", *given)
    assert "give --models" in refused(*words)
    assert "give NAME=FILE" in refused(*words, "--fitted", "a=")
