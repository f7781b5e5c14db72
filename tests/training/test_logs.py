"""What a log of experiments is told of a training. Weights & Biases is a stand-in module here, not the real package."""

import sys
import types

import pytest

from vbpr import Factors, VbprError, evaluate
from vbpr.training.logs import hook_of

HOOK = """
TOLD = []
class Hook:
    def start(self, configuration): TOLD.append(("start", configuration))
    def epoch(self, epoch, figures): TOLD.append(("epoch", epoch, figures))
    def finish(self, figures, path): TOLD.append(("finish", figures, path))
class Failing(Hook):
    def epoch(self, *told): raise OSError("no route to the log")
    finish = epoch
"""


def told_by(reference):
    return sys.modules[hook_of(reference).__module__].TOLD


@pytest.fixture
def hook(tmp_path):
    (tmp_path / "my_hook.py").write_text(HOOK)
    return tmp_path / "my_hook.py"


def test_a_hook_of_ones_own_is_told_all(cli, board, hook, tmp_path):
    out = tmp_path / "m.model.h5"
    cli("train", "--model", "bprmf", "--data", board, "--epochs", 3, "--out", out, "--log", f"{hook}:Hook")
    start, *epochs, finish = told_by(f"{hook}:Hook")
    curve = Factors.load(out).record.first_curve()
    assert start[1]["model"] == "bprmf" and start[1]["epochs"] == 3
    assert [(e[1], e[2]["auc"]) for e in epochs] == [(p["epoch"], p["auc"]) for p in curve]
    assert finish[2] == out and finish[1]["validation.auc"] > 0.9 and finish[1]["users"] == 32


def test_a_closed_form_has_final_figures_and_no_epochs(cli, board, hook, tmp_path):
    out = tmp_path / "m.model.h5"
    cli("train", "--model", "ease", "--data", board, "--out", out, "--log", f"{hook}:Hook")
    start, finish = told_by(f"{hook}:Hook")
    assert start[1]["model"] == "ease" and finish[1]["validation.auc"] > 0.9


def test_a_log_that_fails_is_one_warning(cli, board, hook, tmp_path):
    out = tmp_path / "m.model.h5"
    args = ["train", "--model", "bprmf", "--data", board, "--epochs", 2]
    code, _, err = cli(*args, "--out", out, "--log", f"{hook}:Failing")
    cli(*args, "--out", tmp_path / "n.model.h5")
    assert code == 0 and err.count("no route to the log") == 1
    assert (Factors.load(out).users == Factors.load(tmp_path / "n.model.h5").users).all()


def test_mlflow_keeps_options_curve_final_figures_and_path(cli, board, tmp_path, monkeypatch):
    """In its store of files, which MLflow 3.17 takes only when told to; its SQLite takes ten seconds to be made."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    out, store = tmp_path / "m.model.h5", f"file:{tmp_path}/log"
    code, _, err = cli(
        *("train", "--model", "bprmf", "--data", board, "--epochs", 2, "--out", out, "--log", f"mlflow:{store}")
    )
    assert code == 0 and "warning: the log" not in err
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs(["0"])
    curve = Factors.load(out).record.first_curve()
    assert [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, "auc")] == [
        (p["epoch"], p["auc"]) for p in curve
    ]
    assert run.data.params["model"] == "bprmf" and run.info.status == "FINISHED"
    judged = evaluate(Factors.load(out), "validation").summary()["all"]
    assert run.data.metrics["validation.auc"] == pytest.approx(judged["auc"])
    assert run.data.metrics["validation.ndcg_at_10"] == pytest.approx(judged["ndcg@10"])
    assert run.data.tags["model_file"] == str(out)


def test_wandb_by_a_stand_in(cli, board, tmp_path, monkeypatch):
    logged, ends = [], []
    run = types.SimpleNamespace(log=logged.append, summary={}, finish=lambda exit_code: ends.append(exit_code))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda config: run))
    out = tmp_path / "m.model.h5"
    cli("train", "--model", "bprmf", "--data", board, "--epochs", 2, "--out", out, "--log", "wandb")
    assert [row["epoch"] for row in logged] == [1, 2] and ends == [0] and run.summary["model_file"] == str(out)


@pytest.mark.parametrize(("name", "says"), [("mlfow", "mlflow"), ("none.py:Hook", "cannot be read")])
def test_what_is_no_log_is_refused_before_training(name, says):
    with pytest.raises(VbprError, match=says):
        hook_of(name)
