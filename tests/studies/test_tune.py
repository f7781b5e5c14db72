"""`vbpr tune`: every search space, resuming, pruning, and the file that training takes."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import optuna
import pytest
import sqlalchemy.exc
import torch

from conftest import board_pairs
from vbpr import MODELS, Dataset, Factors, FeatureStore, VbprError, configure, evaluate, train, tune
from vbpr.base.locks import locked
from vbpr.base.progress import listening, report_epoch
from vbpr.base.stopping import Stopped, stop_signals
from vbpr.studies.tune.spaces import defaults
from vbpr.studies.tune.tune import OBJECTIVES
from vbpr.training.model import factors_of
from vbpr.training.models.entry import Model

QUICK = {"device": "cpu", "trials": 2}
SMALL = {"epochs": (2, 4), "factors": (1, 4)}
TUNABLE = [name for name, model in MODELS.items() if model.space]


@pytest.fixture(autouse=True)
def small_spaces(monkeypatch):
    """As shipped, but for sizes that fit the checkerboard."""
    for name in TUNABLE:
        monkeypatch.setitem(MODELS, name, smaller(MODELS[name]))


def smaller(model):
    return dataclasses.replace(model, space=model.space | {k: v for k, v in SMALL.items() if k in model.space})


def run(board, features, model, out, **options):
    return tune(Dataset.resolve(board), [features] if MODELS[model].visual else [], model, out, **QUICK | options)


@pytest.fixture
def learner(monkeypatch):
    """A model that is as good as its `lr`, from the first epoch on; it notes what it is given."""
    tried = []

    class Learner:
        def __init__(self, config, checkpoint):
            self.config = config

        def fit(self, split, features, images=None):
            tried.append(self.config.lr)
            for epoch in range(1, 5):
                report_epoch(epoch, auc=self.config.lr)
                tried.append(epoch)
            rng = np.random.default_rng(0)
            truth = (split.validation + split.test).toarray()
            items = rng.standard_normal((len(split.item_ids), 64))
            users = truth @ items * self.config.lr + rng.standard_normal((len(truth), 64))
            return factors_of(split, users, items)

    monkeypatch.setitem(MODELS, "learner", Model(Learner, space={"lr": (1e-3, 1.0)}))
    return tried


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "hybrid" else n for n in TUNABLE])
class TestContract:
    def test_the_shipped_space_holds_the_defaults_and_nothing_that_training_refuses(self, name, monkeypatch):
        monkeypatch.undo()  # the spaces as they are
        for field, values in MODELS[name].space.items():
            own = getattr(configure(name), field)
            edges = values if isinstance(values, list) else values[:2]
            assert own in values if isinstance(values, list) else values[0] <= own <= values[1], field
            for edge in edges:
                assert getattr(configure(name, **{field: edge}), field) == edge
                assert isinstance(edge, type(own)), field

    def test_the_best_file_trains_to_the_same_validation_figure(self, board, board_features, tmp_path, name):
        out = tmp_path / "best.json"
        done = run(board, board_features, name, out)
        assert [t.number for t in done.trials] == [1, 2]
        features = [board_features] if MODELS[name].visual else []
        config = configure(file=out, device="cpu")
        assert config.model == name and {k: getattr(config, k) for k in done.best} == done.best
        train(Dataset.resolve(board), features, config, tmp_path / "m.h5")
        again = evaluate(Factors.load(tmp_path / "m.h5"), "validation").summary()["all"]["auc"]
        assert again == done.ranked[0].value == max(t.value for t in done.trials if t.value is not None)


def test_the_first_trial_is_the_defaults(board, board_features, tmp_path):
    done = run(board, board_features, "visual", tmp_path / "b.json", trials=1)
    space = MODELS["visual"].space | {"dim": (16, 32, "log")}
    own = defaults(space, configure("visual"))
    assert {k: v for k, v in done.trials[0].params.items() if k != "dim"} == {
        k: v for k, v in own.items() if k != "dim"
    }


@pytest.mark.slow
def test_a_study_resumes_where_it_was_and_draws_what_one_run_would_have(board, tmp_path, learner):
    whole = run(board, None, "learner", tmp_path / "whole.json", trials=14)
    count = len(learner)
    run(board, None, "learner", tmp_path / "b.json", trials=12)
    part = len(learner)
    done = run(board, None, "learner", tmp_path / "b.json", trials=14)
    drawn = [t.params for t in done.trials]
    assert drawn == [t.params for t in whole.trials] and len({p["lr"] for p in drawn}) == 14
    assert len(learner) - part < part - count  # two more, not fourteen
    assert json.loads((tmp_path / "b.json").read_text()) == done.best == whole.best
    after = len(learner)
    run(board, None, "learner", tmp_path / "b.json", trials=14)
    assert len(learner) == after  # nothing is left to do


# In a process of its own, not a fork: the threads of the numerical libraries do not survive that.
CHILD = f"""
import sys
from vbpr import MODELS, Dataset, Stopped, tune
MODELS["bprmf"].space.update({{k: v for k, v in {SMALL}.items() if k in MODELS["bprmf"].space}})
try:
    tune(Dataset.resolve(sys.argv[1]), [], "bprmf", sys.argv[2], device="cpu", trials=400)
except (Stopped, KeyboardInterrupt):
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_stopped_study_goes_on(board, board_features, tmp_path, how):
    """Killed in the middle of a trial, which is drawn again."""
    out = tmp_path / "b.json"
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(board), str(out)])
    until = time.monotonic() + 60
    while not out.exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait() == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    kept = json.loads(out.read_text())
    done = run(board, board_features, "bprmf", out, trials=30)
    assert len(done.trials) >= 30 and kept["model"] == "bprmf"
    whole = run(board, board_features, "bprmf", tmp_path / "whole.json", trials=30)
    assert [t.params for t in done.trials][:30] == [t.params for t in whole.trials]


def test_a_gpu_that_fails_is_no_poor_draw(board, tmp_path, learner, monkeypatch):
    build = MODELS["learner"].build

    def failing(config, checkpoint):
        if learner:  # after the first trial
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return build(config, checkpoint)

    monkeypatch.setitem(MODELS, "learner", dataclasses.replace(MODELS["learner"], build=failing))
    with pytest.raises(torch.AcceleratorError):
        run(board, None, "learner", tmp_path / "b.json", trials=3)


@pytest.mark.slow
def test_poor_curves_are_pruned(board, tmp_path, learner):
    done = run(board, None, "learner", tmp_path / "b.json", trials=20)
    pruned = [t for t in done.trials if t.value is None]
    assert pruned and all("validation AUC" in t.why for t in pruned)
    kept = [t.params["lr"] for t in done.ranked]
    assert max(t.params["lr"] for t in pruned) < np.median(kept)
    assert learner.count(4) == len(kept) < 20  # the others never saw their last epoch
    assert done.best["lr"] == done.ranked[0].params["lr"]


@pytest.mark.parametrize("model", ["visual", "vbpr", "bprmf"])
def test_training_reports_its_learning_curve(board, board_features, tmp_path, model):
    heard = []
    config = configure(model, dim=0 if model == "bprmf" else 8, device="cpu", epochs=3)
    with listening(lambda epoch, figures: heard.append((epoch, figures["auc"]))):
        done = train(Dataset.resolve(board), [board_features], config, tmp_path / "m.h5")
    assert heard and heard == [(point["epoch"], point["auc"]) for point in done.factors.about["curve"]]


@pytest.mark.slow
def test_only_the_objective_that_the_curve_shows_is_pruned_by_it(board, tmp_path, learner):
    done = run(board, None, "learner", tmp_path / "b.json", trials=20, objective="ndcg@10")
    assert len(done.ranked) == 20


def test_a_draw_that_cannot_be_trained_is_passed_over(board, tmp_path, learner, monkeypatch):
    build = MODELS["learner"].build

    def fussy(config, checkpoint):
        if config.lr > 0.5:
            raise VbprError("the loss is not finite")
        return build(config, checkpoint)

    entry = dataclasses.replace(MODELS["learner"], build=fussy)
    monkeypatch.setitem(MODELS, "learner", entry)
    done = run(board, None, "learner", tmp_path / "b.json", trials=10)
    lost = [t for t in done.trials if t.why == "the loss is not finite"]
    assert lost and all(t.value is None for t in lost) and done.best["lr"] <= 0.5


def test_a_study_in_use_or_on_a_full_disk_is_not_called_damaged(board, tmp_path, learner, monkeypatch):
    out, database = tmp_path / "b.json", tmp_path / "b.db"
    run(board, None, "learner", out, trials=2)
    with sqlite3.connect(database) as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, timeout=0.1))
        with pytest.raises(VbprError, match=r"b\.db cannot be used \(database is locked\); wait for what uses it"):
            run(board, None, "learner", out, trials=3)
        other.rollback()
    with locked(database), pytest.raises(VbprError, match=r"b\.db is in use by pid"):
        run(board, None, "learner", tmp_path / "b.txt", trials=3)  # another result, the same study

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    for target, name in ((sys.modules["vbpr.studies.tune.tune"], "fit"), (optuna.Study, "set_user_attr")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, lambda *_: sqlite_fails(full))
            with pytest.raises(VbprError, match=r"b\.db could not be written \(database or disk is full\); make room"):
                run(board, None, "learner", out, trials=3)
    assert len(run(board, None, "learner", out, trials=3).trials) == 3


def sqlite_fails(how):
    """As SQLAlchemy puts it."""
    try:
        how()
    except sqlite3.OperationalError as error:
        raise sqlalchemy.exc.OperationalError("INSERT", {}, error) from error


def test_an_error_of_the_defaults_is_told(board, tmp_path, learner, monkeypatch):
    def refuses(config, checkpoint):
        raise VbprError("--model learner cannot")

    monkeypatch.setitem(MODELS, "learner", dataclasses.replace(MODELS["learner"], build=refuses))
    with pytest.raises(VbprError, match="learner cannot"):
        run(board, None, "learner", tmp_path / "b.json")


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name not in ("cold", "unseen")])
def test_objectives_are_the_evaluations_own(board, tmp_path, objective):
    done = run(board, None, "spectral", tmp_path / "b.json", trials=1, objective=objective)
    train(Dataset.resolve(board), [], configure(file=tmp_path / "b.json"), tmp_path / "m.h5")
    summary = evaluate(Factors.load(tmp_path / "m.h5"), "validation").summary()
    assert done.ranked[0].value == summary["all"]["auc" if objective == "all" else objective]


def test_the_command_and_the_file_that_train_takes(cli, board, board_features, tmp_path):
    out, model = tmp_path / "best.json", tmp_path / "m.h5"
    options = ("--features", board_features, "--min-interactions", 6)
    code, text, err = cli("tune", *options, "--trials", 2, "--out", out, "--json", tmp_path / "study.json")
    assert code == 0 and "best trials by validation all" in text, err
    assert f"next: vbpr train --features {board_features} --min-interactions 6 --config {out}" in text
    told = json.loads((tmp_path / "study.json").read_text())
    assert told["best"] == json.loads(out.read_text()) and len(told["trials"]) == 2
    code, text, err = cli("train", *options, "--config", out, "--epochs", 1, "--out", model)
    assert code == 0, err
    config = Factors.load(model).about["config"]
    assert config["epochs"] == 1 and config["lr"] == told["best"]["lr"]  # the command line wins over the file


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("\xff", "is not JSON"),
        ("[]", "holds no JSON object"),
        ('{"dmi": 3}', "'dmi' is not known (did you mean dim?)"),
        ('{"identity": "x"}', "'identity' is not known"),
        ('{"dim": "3"}', 'dim is "3"; it must be a whole number'),
        ('{"dim": 3.5}', "dim is 3.5; it must be a whole number"),
        ('{"epochs": true}', "epochs is true; it must be a whole number"),
        ('{"lr": null}', "lr is null; it must be a number"),
        ('{"joint": 1}', "joint is 1; it must be true or false"),
        ('{"model": 1}', "model is 1; it must be a text"),
        ('{"model": "vsual"}', "did you mean visual"),
        ('{"dim": -3}', "--dim is -3; it must be at least 0"),
        ('{"whiten": 1.5}', "whiten is 1.5; it must be from 0 to 1"),
        ('{"lr": NaN}', "--lr is nan"),
        ('{"image_size": 64}', "image_size does nothing for --model visual; remove it"),
        ('{"model": "als", "factors": 8, "dim": 3}', "dim does nothing for --model als"),
    ],
)
def test_bad_configuration_files(refused, board, board_features, tmp_path, content, words):
    path = tmp_path / "c.json"
    path.write_text(content, encoding="latin-1")
    message = refused("train", "--features", board_features, "--config", path, "--out", tmp_path / "m.h5")
    assert words in message and not (tmp_path / "m.h5").exists()
    if "vsual" not in content:
        assert str(path) in message


def test_the_figures_do_not_write_over_the_configuration(refused, board_features, tmp_path):
    options = ("tune", "--features", board_features, "--trials", 1)
    message = refused(*options, "--out", tmp_path / "b.json", "--json", tmp_path / "b.json")
    assert "b.json is the file of OUT as well; give it another name" in message
    with pytest.raises(VbprError, match="--trials is 0"):
        tune("sample", [board_features], "visual", tmp_path / "b.json", trials=0)
    assert not list(tmp_path.iterdir())


def test_whatever_is_tuned_is_read():
    for model in MODELS.values():
        assert set(model.space) <= model.reads


def test_a_missing_configuration_file(refused, tmp_path):
    assert "none.json cannot be read" in refused("train", "--model", "random", "--config", tmp_path / "none.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "popularity"], "--model popularity has nothing to tune; choose from visual"),
        (["--model", "vsual"], "did you mean visual"),
        (["--objective", "auc"], "--objective auc is not known; choose from all, cold"),
        (["--model", "visual"], "needs --features"),
        (["--model", "als", "--objective", "unseen"], "--objective unseen: --model als cannot score such items"),
        (["--model", "spectral", "--objective", "cold"], "--objective cold: no validation item is; choose another"),
    ],
)
def test_impossible_wishes_are_refused(refused, board, tmp_path, options, words):
    assert words in refused("tune", "--data", board, "--out", tmp_path / "b.json", *options)
    assert not any(tmp_path.iterdir())  # before any trial


def test_another_study_in_the_way_is_refused(refused, board, catalogue, tmp_path):
    out = tmp_path / "b.json"
    run(board, None, "spectral", out)
    fewer = catalogue(pairs=board_pairs()[:-40])
    for options in (["--data", board, "--objective", "ndcg@10"], ["--data", board, "--seed", 1], ["--data", fewer]):
        assert "is a study of other" in refused("tune", "--model", "spectral", "--out", out, *options)
    out.with_suffix(".db").write_text("garbage")
    assert "is not a study" in refused("tune", "--model", "spectral", "--data", board, "--out", out)


def test_what_stops_a_training_stops_the_study_around_it():
    with stop_signals() as study:
        with stop_signals() as training:
            os.kill(os.getpid(), signal.SIGINT)
            assert training()
        assert study()
    with stop_signals() as next_time:
        assert not next_time()


@pytest.mark.slow
def test_later_parts_are_not_pruned_by_their_own_curves(board, board_features, tmp_path):
    """They have more epochs, and each its own figures."""
    for name in ("one ?1%23.json", "one ?2%23.json"):  # each its own study, whatever their names hold
        done = run(board, board_features, "vbpr", tmp_path / name, trials=1)
        with contextlib.closing(sqlite3.connect(tmp_path / name.replace(".json", ".db"))) as study:
            steps = [step for (step,) in study.execute("select step from trial_intermediate_values order by step")]
        assert steps == list(range(1, done.best["epochs"] + 1))
    assert len(list(tmp_path.glob("*.db"))) == 2


def test_a_study_stopped_within_a_trial_says_how_to_go_on(board, board_features, tmp_path, monkeypatch):
    def stop(*_):
        raise Stopped("stopped after epoch 1 of 5")

    monkeypatch.setattr(sys.modules["vbpr.studies.tune.tune"], "run_trial", stop)
    with pytest.raises(Stopped, match="stopped in trial 1; run the same command again to resume"):
        run(board, board_features, "visual", tmp_path / "b.json")


@pytest.mark.slow
def test_a_study_is_of_its_features_and_its_best_knows_its_seed(refused, board, board_features, tmp_path):
    out, store = tmp_path / "b.json", FeatureStore(board_features)
    run(board, board_features, "visual", out, trials=1)
    told = {**store.provenance, "fingerprint": "another"}
    with FeatureStore.create(tmp_path / "f.h5", store.item_ids, store.signature, store.dim, told) as other:
        other.write(other.pending, store.features[::-1][: len(store)])
    assert "is a study of other features" in refused(
        "tune", "--model", "visual", "--features", tmp_path / "f.h5", "--data", board, "--out", out
    )
    seeded = tune(Dataset.resolve(board), [board_features], "visual", tmp_path / "s.json", trials=2, seed=3)
    usual = tune(Dataset.resolve(board), [board_features], "visual", tmp_path / "u.json", trials=2)
    assert json.loads((tmp_path / "s.json").read_text())["seed"] == 3
    assert seeded.trials[1].params != usual.trials[1].params


def test_other_seeds_draw_other_trials(board, tmp_path, learner):
    """Not the same ones shifted by one: searches repeated for their spread are independent."""
    tried = []
    for seed in (0, 1):
        done = run(board, None, "learner", tmp_path / f"{seed}.json", trials=5, seed=seed)
        tried.append([trial.params["lr"] for trial in done.trials[1:]])
    assert not set(tried[0]) & set(tried[1])
