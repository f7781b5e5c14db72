"""The command line: each command on the checkerboard, and every error that a user can make."""

import csv
import gzip
import inspect
import json
import os
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import vbpr.sample
from conftest import ROOT, TINY, board_items, board_pairs, environment, run_python, write_catalogue
from vbpr import Factors, FeatureStore, VbprError
from vbpr.base.files import read_bytes
from vbpr.cli.stages import train
from vbpr.data.dataset import Dataset
from vbpr.training.config import OPTIONS


@pytest.mark.slow
def test_the_whole_job_from_a_shell(board, tmp_path):
    """Both of the user's commands and those after them, each in a process of its own; three ways to start the app."""
    starts = [["-m", "vbpr"], [ROOT / "cli.py"], ["-c", "from vbpr.cli import app; app()"]]
    commands = [
        ["extract", "--backbone", TINY, "--random-weights", "--engine", "torch", "--data", board],
        ["train", "--features", f"artifacts/{TINY}.h5", "--dim", "8"],
        ["evaluate", f"artifacts/{TINY}.model.h5", "--json", "out.json"],
    ]
    for start, command in zip(starts, commands, strict=True):
        done = run_python(*start, *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["all"]["auc"] > 0.9
    assert "next: vbpr evaluate" not in done.stdout and "AUC" in done.stdout


def test_evaluate_prints_a_table_and_json(cli, board_model, tmp_path):
    out = tmp_path / "e.json"
    code, text, _ = cli("evaluate", board_model, "--json", out)
    summary = json.loads(out.read_text())
    assert code == 0 and f"{summary['all']['auc']:.4f}" in text and "RANDOM" in text
    assert {"all", "cold", "unseen", "model", "data"} <= summary.keys()
    code, text, table = cli("evaluate", board_model, board_model, "--held", "validation", "--json", "-")
    assert code == 0 and len(json.loads(text)) == 2 and "validation items of board, exact" in table
    code, text, table = cli("evaluate", board_model, "--users", 5, "--json", "-")
    assert code == 0 and json.loads(text)["all"]["users"] == 5 and "test items of board, users drawn at random" in table


def test_evaluate_takes_cut_offs_and_writes_a_row_a_user(cli, refused, board_model, tmp_path):
    out = tmp_path / "users.csv"
    code, text, table = cli("evaluate", board_model, "-k", 3, "-k", 20, "--per-user", out, "--json", "-")
    part = json.loads(text)["all"]
    assert code == 0 and "ndcg@3" in table and "ndcg@10" not in table
    assert cli("evaluate", board_model, "-k", 3, "-k", 20, "--per-user", out)[0] == 0  # and again, over its own
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == part["users"]
    for name in ("auc", "hr@3", "recall@20"):
        assert sum(float(row[name]) for row in rows) / len(rows) == pytest.approx(part[name])
    assert "--per-user users.txt: give a name" in refused("evaluate", board_model, "--per-user", "users.txt")
    assert "--per-user is for one model" in refused("evaluate", board_model, board_model, "--per-user", out)


def test_recommend_names_the_items_of_the_users_colour(cli, board, board_model, tmp_path):
    code, text, _ = cli(
        "recommend", board_model, "--user", "A03", "-k", 3, "--json", tmp_path / "r.json", "--grid", tmp_path / "r.png"
    )
    items = json.loads((tmp_path / "r.json").read_text())["items"]
    factors = Factors.load(board_model)
    expected, scores = factors.recommend(factors.user_index("A03"), 3)
    assert code == 0 and [i["item_id"] for i in items] == factors.item_ids[expected].tolist()
    assert [i["score"] for i in items] == pytest.approx(scores.tolist())
    assert items[0]["item_id"] == "red-new" and "red new" in text
    with Image.open(tmp_path / "r.png") as image:
        assert image.width > 400


def test_similar_to_an_item_and_to_a_photo(cli, board, board_model, board_features, tmp_path):
    code, text, _ = cli("similar", board_features, "--item", "red-02", "-k", 4, "--json", tmp_path / "s.json")
    found = json.loads((tmp_path / "s.json").read_text())["items"]
    assert code == 0 and len(found) == 4 and all(i["item_id"].startswith("red") for i in found)
    photo = next((board / "images").glob("*/blue-05.png"))
    code, text, err = cli("similar", board_model, "--image", photo, "--grid", tmp_path / "s.png")
    assert code == 0 and "blue" in text, err


def test_info_says_what_a_file_is(cli, board_features, board_model):
    code, text, _ = cli("info", board_features, "--failures")
    assert code == 0 and "22 items" in text and TINY in text and "random" in text
    code, text, _ = cli("info", board_model)
    assert code == 0 and "32 users" in text and "leave one out" in text


@pytest.mark.parametrize("model", ["popularity", "random", "bprmf"])
def test_models_without_features_train_without_them(cli, board, tmp_path, model):
    out = tmp_path / "m.h5"
    code, text, err = cli("train", "--model", model, "--data", board, "--out", out)
    assert code == 0 and out.exists() and "next: vbpr evaluate" in text, err


def test_version_and_help(cli):
    import importlib.metadata

    assert cli("--version")[1].strip() == f"vbpr {importlib.metadata.version('vbpr')}"
    for command in ("extract", "train", "evaluate", "recommend", "similar", "info", "demo"):
        code, text, _ = cli(command, "--help")
        assert code == 0 and re.search(rf"Usage: .*\b{command}\b", text) and "--help" in text


def test_data_may_come_from_the_environment(cli, board, tmp_path, monkeypatch):
    monkeypatch.setenv("VBPR_DATA", str(board))
    code, text, _ = cli("train", "--model", "popularity", "--out", tmp_path / "m.h5")
    assert code == 0 and "32 users" in text


def test_a_folder_that_is_gone_from_the_environment_hides_no_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("VBPR_DATA", str(tmp_path / "gone"))
    assert Dataset.behind("sample").simulated
    monkeypatch.setenv("VBPR_DATA", str(tmp_path))
    assert Dataset.behind("sample").path == tmp_path
    with pytest.raises(VbprError, match="does not exist"):
        Dataset.behind("sample", str(tmp_path / "gone"))


def test_the_sample_is_known_under_any_path(monkeypatch):
    monkeypatch.chdir(vbpr.sample.PATH.parent)
    assert Dataset.resolve("sample/../sample").simulated and Dataset.resolve("./sample").name == "sample"


def test_titles_alone_list_no_images(cli, board_model, monkeypatch):
    monkeypatch.setattr("vbpr.pages.photos.open_images", lambda _: pytest.fail("the images were listed"))
    assert cli("recommend", board_model, "--user", "A00")[0] == 0
    assert cli("similar", board_model, "--item", "red-00")[0] == 0


# ---------------------------------------------------------------------------------------------- errors


def test_a_field_is_called_by_its_option_where_it_has_one():
    options = inspect.signature(train).parameters
    assert not [name for name, declared in OPTIONS.items() if declared.file_only and name in options]
    assert {OPTIONS[name].called for name in ("dim", "reg_head", "axes")} == {"--dim", "--reg-head", "axes"}


def test_a_file_that_is_longer_than_it_says_or_has_nothing_to_say(tmp_path):
    assert read_bytes("/proc/self/status", 2**20).startswith(b"Name:")  # 0 bytes, it says
    for path, most in (("/proc/self/status", 10), (tmp_path / "sparse", 2**20)):
        (tmp_path / "sparse").touch()
        os.truncate(tmp_path / "sparse", 2**33)
        with pytest.raises(OSError, match=f"more than {most:,} bytes"):
            read_bytes(path, most)


def test_pipes_and_devices_are_not_read(refused, cli, board_model, board_features, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for asked in (
        ("similar", board_model, "--image"),
        ("recommend", board_model, "--image"),
        ("similar", board_model, "--item", "red-00", "--allowed"),
        ("train", "--features", board_features, "--out", tmp_path / "m.h5", "--config"),
    ):
        for path in (pipe, "/dev/zero"):  # which would be waited for, and never end
            assert f"{path} cannot be read (not a regular file)" in refused(*asked, path)
    end, begin = os.pipe()
    os.write(begin, b"red-01\n")
    os.close(begin)
    assert "red-01" in cli("similar", board_model, "--item", "red-00", "--allowed", f"/dev/fd/{end}")[1]  # <(command)
    os.close(end)


def test_the_same_features_twice_are_refused(refused, board_features, tmp_path):
    (tmp_path / "link.h5").symlink_to(board_features)
    assert "link.h5 is given twice" in refused(
        "train", "--features", board_features, "--features", tmp_path / "link.h5"
    )


def test_what_cannot_be_written_is_refused_before_the_work(refused, board_model, tmp_path, monkeypatch):
    for module in ("vbpr.answers.nearest.Nearest.open", "vbpr.stores.model.factors.Factors.load"):
        monkeypatch.setattr(module, lambda *_: pytest.fail("work was done"))
    (tmp_path / "ids.txt").write_text("red-00")
    listed = ("similar", board_model, "--items", tmp_path / "ids.txt")
    assert "ends in .parquet or .csv" in refused(*listed, "--out", tmp_path / "x.txt")
    assert "--items writes a table" in refused(*listed)
    assert "--out is for --items" in refused("similar", board_model, "--item", "red-00", "--out", tmp_path / "x.csv")
    for asked in (("similar", board_model, "--item", "red-00"), ("recommend", board_model, "--user", "A00")):
        assert "ends in .png, .jpg" in refused(*asked, "--grid", tmp_path / "x.gif")
        assert "--weights are for the backbone" in refused(*asked, "--weights", tmp_path / "w.safetensors")


def test_missing_column(refused, tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,thing\na,b\n")
    message = refused("train", "--model", "popularity", "--data", tmp_path, "--out", tmp_path / "m.h5")
    assert "interactions.csv has no item_id column; it has user_id, thing" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("user_id,item_id\na,b\n".encode("utf-16"), "interactions.csv is not UTF-8 text, or packed"),
        (gzip.compress(b"user_id,item_id\na,b\n", mtime=0), "interactions.csv is not UTF-8 text, or packed"),
        (b"user_id,\x1b[31mX\x1b]0;evil\x07\n1,2\n", r"it has user_id, \x1b[31mX\x1b]0;evil\x07; rename one"),
    ],
)
def test_what_is_no_table_of_commas(refused, tmp_path, content, said):
    (tmp_path / "interactions.csv").write_bytes(content)
    assert said in refused("train", "--model", "popularity", "--data", tmp_path, "--out", tmp_path / "m.h5")


def test_empty_file(refused, tmp_path):
    (tmp_path / "interactions.csv").write_text("")
    assert "interactions.csv is empty" in refused("train", "--model", "random", "--data", tmp_path)


def test_no_interactions_file(refused, tmp_path):
    assert "no interactions file" in refused("train", "--model", "random", "--data", tmp_path)


def test_unknown_user_and_item(refused, board_model):
    assert "did you mean" in refused("recommend", board_model, "--user", "A3")
    assert "did you mean red-02" in refused("similar", board_model, "--item", "red-2")


@pytest.mark.parametrize(
    ("item", "mend"),
    [("0{}", "write both ids alike (here 0blue-00, there blue-00)"), ("other-{}", "or give its --data")],
)
def test_features_of_other_ids(refused, board_features, tmp_path, item, mend):
    rows = [f"{user},{item.format(name)}" for user, name in board_pairs()]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id, item_id", *rows]))
    message = refused("train", "--features", board_features, "--data", tmp_path, "--out", tmp_path / "m.h5")
    assert "features for only 0 of the 20 items" in message and mend in message


def test_features_of_ids_with_blanks_around_them(cli, board_features, tmp_path):
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id, item_id", *map(", ".join, board_pairs())]))
    code, out, _ = cli("train", "--features", board_features, "--data", tmp_path, "--out", tmp_path / "m.h5")
    assert code == 0 and "32 users, 22 items" in out


def test_features_that_lack_items(refused, board_features, tmp_path):
    images = board_items() | {"extra": board_items()["red-00"]}
    folder = write_catalogue(tmp_path / "d", images, [*board_pairs(), ("A00", "extra")])
    message = refused("train", "--features", board_features, "--data", folder, "--out", tmp_path / "m.h5")
    assert "lacks 1 of 23 images (first: extra), of which 1 are of items in the interactions; run vbpr" in message


def test_features_of_some_items_are_enough_where_they_are_of_this_data_set(cli, refused, board, tmp_path):
    """Shops have photographs of some of their goods; as many without any are another shop's, or named otherwise."""
    some = dict(list(board_items().items())[:8])
    folder = write_catalogue(tmp_path / "d", some, board_pairs())
    options = ("--backbone", TINY, "--random-weights", "--engine", "torch", "--out", tmp_path / "f.h5")
    assert cli("extract", "--data", folder, *options)[0] == 0
    code, text, _ = cli("train", "--features", tmp_path / "f.h5", "--dim", 4, "--epochs", 1, "--out", tmp_path / "m.h5")
    assert code == 0 and "12 items without features, given the mean" in text
    (folder / "images").rename(tmp_path / "kept")
    message = refused("train", "--features", tmp_path / "f.h5", "--data", board, "--out", tmp_path / "m.h5")
    assert "features for only 8 of the 20 items" in message


def test_an_unfinished_feature_file(refused, board, board_features, tmp_path):
    path = tmp_path / "half.h5"
    path.write_bytes(board_features.read_bytes())
    offset = FeatureStore(path).offsets["state"]
    with path.open("r+b") as handle:
        handle.seek(offset + 3)
        handle.write(b"\0\0")
    assert "lacks 2 of 22 items" in refused("train", "--features", path, "--data", board, "--out", tmp_path / "m.h5")


def test_wrong_backbone_name(refused, board, tmp_path):
    message = refused("extract", "--backbone", "incepton", "--data", board, "--out", tmp_path / "x.h5")
    assert "did you mean inception" in message and not list(tmp_path.glob("*.h5"))


def test_no_images(refused, tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,item_id\na,b\n")
    assert "no images found" in refused("extract", "--backbone", TINY, "--random-weights", "--data", tmp_path)


def test_output_that_cannot_be_written(refused, board, board_features, tmp_path):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "x.h5"
    for command in (
        ["extract", "--backbone", TINY, "--random-weights"],
        ["train", "--features", board_features],
    ):
        assert "is not writable" in refused(*command, "--data", board, "--out", out)
    assert "is a folder" in refused("train", "--features", board_features, "--data", board, "--out", tmp_path)


def test_model_and_features_that_do_not_match(refused, board, board_model, board_features, tmp_path):
    """A file of one kind where the other belongs, and a photo through weights that the model does not know."""
    assert "holds features, not model" in refused("evaluate", board_features)
    assert "holds model, not features" in refused("train", "--features", board_model)
    path = tmp_path / "m.h5"
    path.write_bytes(board_model.read_bytes())
    with h5py.File(path, "r+") as handle:
        about = json.loads(handle.attrs["about"])
        about["features"][0]["weights_digest"] = "0" * 32
        handle.attrs["about"] = json.dumps(about)
    photo = next((board / "images").glob("*/red-00.png"))
    assert "give those weights with --weights" in refused("similar", path, "--image", photo)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["evaluate", "none.h5"], "does not exist"),
        (["info", "none.h5"], "does not exist"),
        (["train", "--model", "visual", "--data", "sample"], "--features"),
        (["train", "--model", "vsual", "--data", "sample"], "did you mean visual"),
        (["train", "--model", "random", "--data", "nowhere"], "does not exist"),
        (["extract", "--backbone", TINY, "--random-weights", "--data", "sample", "--precision", "half"], "--precision"),
        (["similar", "a.h5"], "one of --item ID"),
        (["extract", "--backbone", f"{TINY}.bogus", "--random-weights", "--data", "sample"], "its tags are r160_in1k"),
        (["extract", "--backbone", TINY, "--random-weights", "--data", "sample", "--out", "x.jpg"], "like an image"),
        (["extract", "--data", "x" * 300], "File name too long"),
        (["extract", "--backbone", TINY, "--data", "sample", "--out", "x" * 300], "File name too long"),
        (["extract", "--backbone", TINY, "--data", "sample", "--weights", "x" * 300], "File name too long"),
        (["info", "x" * 300], "File name too long"),
        (["evaluate", "x" * 300], "File name too long"),
        (["train", "--model", "bprmf", "--factors", "1" * 30], "must be under 2^31"),
        (["train", "--model", "bprmf", "--lr", "1e300"], "must be from 0 to 3e38"),
    ],
)
def test_other_mistakes(refused, tmp_path, monkeypatch, command, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(*command)


def test_names_that_are_no_utf_8(cli, board, tmp_path):
    folder = tmp_path / os.fsdecode(b"b\xff")
    shutil.copytree(board, folder)
    features, model, table = folder / "f.h5", folder / "m.h5", folder / "t.parquet"
    for command in (
        ["extract", "--backbone", TINY, "--random-weights", "--engine", "torch", "--data", folder, "--out", features],
        ["train", "--features", features, "--dim", "8", "--epochs", "1", "--out", model],
        ["info", model],
        ["recommend", model, "--user", "A00"],
        ["recommend", model, "--all", "--out", table],
        ["report", model],
    ):
        code, _, err = cli(*command)
        assert code == 0, err
    assert table.stat().st_size and "\\udcff" in (folder / "m.html").read_text()


def test_where_it_cannot_speak(board_features, tmp_path):
    """A terminal without the letter, a full disk behind standard error, and a folder that is gone."""
    path = tmp_path / "é.h5"
    shutil.copy(board_features, path)
    done = run_python("-m", "vbpr", "info", path, env=environment() | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and r"\xe9.h5: features" in done.stdout
    with Path("/dev/full").open("w") as full:
        assert run_python("-m", "vbpr", "info", "none", capture_output=False, stderr=full).returncode == 2
    code = "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\nfrom vbpr.cli import app; app()"
    done = run_python("-c", code, "info", path, cwd=tmp_path)
    assert done.returncode == 2 and "is gone" in done.stderr


def test_an_item_query_of_a_model_without_vectors(refused, board, cli, tmp_path):
    cli("train", "--model", "popularity", "--data", board, "--out", tmp_path / "p.h5")
    assert "no item vectors" in refused("similar", tmp_path / "p.h5", "--item", "red-00")


def test_a_failure_of_our_own_is_one_line_with_code_1(cli, monkeypatch, board_model):
    monkeypatch.setattr(Factors, "load", classmethod(lambda cls, path: 1 / 0))
    monkeypatch.delenv("VBPR_TRACEBACK", raising=False)
    code, _, err = cli("evaluate", board_model)
    assert code == 1 and "internal failure: ZeroDivisionError" in err and "Traceback" not in err


def test_nothing_is_lost_when_a_command_is_refused(refused, board, board_model, tmp_path):
    path = tmp_path / "m.h5"
    path.write_bytes(board_model.read_bytes())
    refused("train", "--model", "visual", "--data", board, "--out", path)
    assert path.read_bytes() == board_model.read_bytes() and os.listdir(tmp_path) == ["m.h5"]  # noqa: PTH208
    assert np.isfinite(Factors.load(path).users).all()


@pytest.mark.parametrize("command", [("recommend", "--user", "A03"), ("similar", "--item", "red-02")])
def test_json_on_standard_output_is_all_there_is(cli, board_model, command):
    code, text, table = cli(command[0], board_model, *command[1:], "--json", "-")
    assert code == 0 and len(json.loads(text)["items"]) == 10 and "red-new" in table


def test_titles_and_ids_are_shown_as_they_are(cli, catalogue, tmp_path):
    odd = "[/b] [new] :shoe: dress"
    folder = catalogue(pairs=[(u.replace("A03", "[/A03]"), i) for u, i in board_pairs()], name="[b]d")
    titles = ["item_id,title", *(f"{name},{odd}" for name in board_items())]
    (folder / "items.csv").write_text("\n".join(titles))
    model = tmp_path / "m.h5"
    assert cli("train", "--model", "knn", "--features", extracted(cli, folder, tmp_path), "--out", model)[0] == 0
    code, text, _ = cli("recommend", model, "--user", "[/A03]", "-k", 2)
    assert code == 0 and text.count(odd) == 2 and "for [/A03]" in text
    assert "items of [b]d, exact" in cli("evaluate", model)[1]


def extracted(cli, folder, tmp_path):
    out = tmp_path / "f.h5"
    words = ("--backbone", TINY, "--random-weights", "--engine", "torch", "--data", folder, "--out", out)
    assert cli("extract", *words)[0] == 0
    return out


def test_extract_knows_the_data_set_on_record_and_its_repair_can_be_typed(cli, catalogue, tmp_path):
    out = extracted(cli, catalogue(), tmp_path)
    code, text, _ = cli("extract", "--backbone", TINY, "--random-weights", "--engine", "torch", "--out", out)
    assert code == 0 and "22 of 22 items of data have features; 0 written now" in text
    store = FeatureStore(out)
    with out.open("r+b") as file:
        file.seek(store.offsets["features"] + 3)
        file.write(b"\xff")
    code, _, error = cli("info", out, "--verify")
    repair = re.search(r"vbpr (extract .*--verify) encodes these anew", error)
    assert code == 2 and repair is not None
    code, text, _ = cli(*repair[1].split())
    assert code == 0 and "22 written now" in text and cli("info", out, "--verify")[0] == 0


def test_models_on_other_ground_are_told_apart(cli, board, board_model, tmp_path):
    other = tmp_path / "p.h5"
    cli("train", "--model", "popularity", "--data", board, "--out", other, "--split-seed", 1)
    code, text, _ = cli("evaluate", board_model, other)
    assert code == 0 and "figures do not compare" in text and "seed 1" in text
    assert "do not compare" not in cli("evaluate", other, other)[1]


def test_models_of_a_data_set_that_changed_under_its_name_are_told_apart(cli, tmp_path):
    folder = write_catalogue(tmp_path / "day", board_items(), board_pairs())
    for name in ("monday.h5", "tuesday.h5"):
        cli("train", "--model", "popularity", "--data", folder, "--out", tmp_path / name)
        table = folder / "interactions.csv"
        table.write_text(
            re.sub("red-|blue-", lambda colour: {"red-": "blue-", "blue-": "red-"}[colour[0]], table.read_text())
        )
    code, text, _ = cli("evaluate", tmp_path / "monday.h5", tmp_path / "tuesday.h5", "--json", tmp_path / "x.json")
    assert code == 0 and "figures do not compare" in text
    one, other = json.loads((tmp_path / "x.json").read_text())
    assert one["split"] == other["split"] and one["split_digest"] != other["split_digest"] and one["held"] == "test"


def test_a_model_without_features_ranks_every_item_with_an_image_too(cli, board, tmp_path):
    cli("train", "--model", "popularity", "--data", board, "--out", tmp_path / "p.h5")
    assert {"red-new", "blue-new"} <= set(Factors.load(tmp_path / "p.h5").item_ids)
    (tmp_path / "bare" / "plots").mkdir(parents=True)
    shutil.copy(board / "interactions.csv", tmp_path / "bare")
    (tmp_path / "bare" / "plots" / "roc.png").write_bytes(b"not of the catalogue")
    cli("train", "--model", "popularity", "--data", tmp_path / "bare", "--out", tmp_path / "p.h5")
    assert len(Factors.load(tmp_path / "p.h5").item_ids) == 20


def test_the_core_is_said_and_its_users_counted(cli, catalogue, tmp_path):
    folder = catalogue(pairs=[*board_pairs(), *(("one", f"red-{n:02}") for n in range(6))])
    code, text, _ = cli("train", "--model", "popularity", "--data", folder, "--out", tmp_path / "p.h5", "--k-core", 8)
    assert code == 0 and "split: 8-core; leave one out" in text and "(1 user)" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recommend", "MODEL", "--user", "A03", "--out", "x.parquet"), "--out is for --users and --all"),
        (("info", "MODEL", "--verify"), "are for feature files"),
        (("extract", "--backbone", TINY, "--random-weights", "--epochs", 3), "are for training --backbone cae"),
        (("extract", "--backbone", "cae", "--random-weights", "--epochs", 3), "are for training --backbone cae"),
        (("train", "--model", "popularity", "--negatives", "nonsense"), "--negatives nonsense is not known"),
        (
            ("train", "--model", "popularity", "--backbone", "foo"),
            "--backbone does nothing for --model popularity, which",
        ),
        (
            ("train", "--model", "als", "--lr", 1),
            "--lr does nothing for --model als, which has --factors, --epochs, --seed",
        ),
        (("train", "--model", "bprmf", "--reg-head", 1), "--reg-head does nothing for --model bprmf"),
        (("train", "--model", "dvbpr", "--shared-negatives", 8), "--shared-negatives does nothing for --model dvbpr"),
        (("train", "--model", "dvbpr", "--weights", "w.pt"), "--weights are for --backbone"),
        (("train", "--model", "dvbpr", "--backbone", "lite0", "--image-size", 64), "--image-size is for the published"),
        (("compare", "--models", "popularity", "--weights", "inceptoin=x"), "no backbone of --models is called so"),
        (
            ("compare", "--models", "popularity", "--image-size", 64),
            "--image-size is for dvbpr, which --models does not",
        ),
        (("compare", "--models", "popularity", "--recipe", "report"), "--recipe is for cae, which --models does not"),
        (
            ("compare", "--models", "dvbpr", "--backbone", "lite0", "--image-size", 64),
            "--image-size is for the published",
        ),
        (("compare", "--models", "cae", "--weights", "cae=x", "--cae-epochs", 3), "--cae-epochs is for training the"),
        (("compare", "--models", "lite0,popularity", "--weights", "popularity=x"), "no backbone of --models is called"),
        (("train", "--model", "bprmf", "--precision", "float32"), "--precision does nothing for --model bprmf"),
    ],
)
def test_options_that_would_do_nothing_are_refused(refused, board_model, words, said):
    assert said in refused(*(board_model if word == "MODEL" else word for word in words))


def test_where_json_goes_is_looked_at_before_the_work(cli, board_model, tmp_path):
    (tmp_path / "file").touch()
    code, text, err = cli("evaluate", board_model, "--json", tmp_path / "file" / "e.json")
    assert code == 2 and "choose another place with --json" in err and "AUC" not in text


def test_everything_can_be_trained_on(cli, board, board_features, tmp_path):
    """For use rather than for figures: users with one purchase are there too."""
    folder = write_catalogue(tmp_path / "shop", board_items(), [*board_pairs(), ("newcomer", "red-00")])
    for split, known in (("auto", False), ("none", True)):
        out = tmp_path / f"{split}.h5"
        code, said, _ = cli("train", "--model", "bprmf", "--data", folder, "--out", out, "--split", split)
        assert code == 0 and ("vbpr evaluate" in said) != known and ("--all" in said) == known
        code, said, error = cli("recommend", out, "--user", "newcomer")
        assert (code == 0) == known and (
            known or ("left out users with too few items (1)" in error and "--split none" in error)
        )
    code, _, error = cli("evaluate", out)
    assert code == 2 and "no test items" in error
    options = ("--models", "popularity", "--split", "none", "--out", tmp_path / "c")
    code, _, error = cli("compare", "--data", folder, *options)
    assert code == 2 and "holds nothing out" in error


def test_tables_cut_no_id_and_pass_no_control_on(cli, tmp_path):
    long = "a-very-long-id-" * 12
    folder = write_catalogue(
        tmp_path / "shop", board_items(), [*board_pairs(), *((f"A{u:02}", long) for u in range(9))]
    )
    (folder / "items.csv").write_text(f"item_id,title\n{long},red \x1b[31malert \u202e\n")
    assert cli("train", "--model", "popularity", "--data", folder, "--out", tmp_path / "m.h5")[0] == 0
    code, said, _ = cli("recommend", tmp_path / "m.h5", "--user", "B00", "-k", 60)
    assert code == 0 and long in said and "red \ufffd[31malert \ufffd" in said and "\x1b" not in said
