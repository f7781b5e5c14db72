"""Hyper-parameters by validation: many configurations over one loaded feature matrix and one split.

    done = tune(Dataset.resolve("data"), ["artifacts/inc.h5"], "visual", "artifacts/inc.visual.json", trials=40)

The first trial is the model's defaults; the rest are drawn by TPE (Bergstra et al. 2011). A trial whose learning curve
lies below the median of the earlier ones is pruned. The study is a SQLite file beside the best configuration, and each
draw depends on the finished trials and the seed alone, so a killed study goes on as if nothing had happened.
"""

import contextlib
import dataclasses
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .base.errors import VbprError, first_line, near
from .base.files import replace_text
from .base.locks import locked
from .base.progress import console, listening
from .base.stopping import Stopped, stop_signals
from .base.targets import check_target
from .data.dataset import Dataset
from .data.split import Split, SplitConfig
from .evaluation.evaluate import PARTS, evaluate
from .stores.features.store import FeatureStore, stores_of
from .training.catalogue import align, prepare
from .training.config import TrainConfig
from .training.configure import configure
from .training.fit import fit
from .training.identity import identity_of
from .training.item_features import ItemFeatures
from .training.models import MODELS

if TYPE_CHECKING:
    import optuna

# A list: one of these. A pair: from, to; whole numbers give whole numbers. "log": equal ratios are equally likely.
Space = dict[str, list[Any] | tuple[Any, ...]]

VISUAL: Space = {
    "dim": (16, 256, "log"),
    "whiten": (0.0, 1.0),
    "axes": [0, 256, 512, 1024],
    "epochs": (2, 12),
    "lr": (1e-3, 0.1, "log"),
    "reg_users": (1e-3, 0.3, "log"),
    "reg_head": (1e-5, 1e-2, "log"),
    "shared_negatives": (64, 512, "log"),
    "popularity_share": (0.0, 1.0),
}
LATENT: Space = {"factors": (16, 256, "log"), "shrink": (0.0, 20.0)}
SPACES: dict[str, Space] = {
    "visual": VISUAL,
    "vbpr": {**VISUAL, **LATENT, "latent_weight": (0.1, 1.0)},
    "hybrid": {**VISUAL, **LATENT, "factors": (16, 96, "log")},  # EASE keeps twelve times as many
    "bprmf": {
        **LATENT,
        "epochs": (3, 30, "log"),
        "lr": (3e-3, 0.1, "log"),
        "reg_users": (1e-3, 0.3, "log"),
        "reg_items": (1e-3, 0.3, "log"),
        "reg_bias": (1e-4, 0.1, "log"),
    },
    "als": {
        "factors": (16, 256, "log"),
        "epochs": (5, 40),
        "alpha": (1.0, 200.0, "log"),
        "reg_items": (0.1, 1000.0, "log"),
    },
    "bpr": {
        "factors": (16, 256, "log"),
        "epochs": (50, 600, "log"),
        "lr": (3e-3, 0.1, "log"),
        "reg_items": (1e-3, 0.3, "log"),
    },
    "ease": {"factors": (32, 512, "log"), "reg_items": (10.0, 5000.0, "log")},
    "spectral": {"factors": (16, 512, "log")},
}

# What may be tuned for, on the validation items: part of the evaluation, metric.
OBJECTIVES = {
    "all": ("all", "auc"),
    "cold": ("cold", "auc"),
    "unseen": ("unseen", "auc"),
    "ndcg@10": ("all", "ndcg@10"),
    "recall@20": ("all", "recall@20"),
    "hr@10": ("all", "hr@10"),
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """A configuration that was tried. value: of the objective; None where it was pruned, for the reason in `why`."""

    number: int
    value: float | None
    seconds: float
    params: dict[str, Any]
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A study: where its best configuration lies, and its trials in the order in which they ran."""

    path: Path
    objective: str
    best: dict[str, Any]
    trials: list[Trial]

    @property
    def ranked(self) -> list[Trial]:
        """The trials that came to an end, best first."""
        return sorted((t for t in self.trials if t.value is not None), key=lambda t: (-(t.value or 0), t.number))


def tune(
    data: Dataset | Path | str,
    features: Path | str | FeatureStore | Sequence[Path | str | FeatureStore],
    model: str,
    out: Path | str,
    *,
    trials: int = 40,
    objective: str = "all",
    split: SplitConfig = SplitConfig(),
    seed: int = 0,
    device: str = "auto",
) -> Tuning:
    """Search until the study has `trials` trials; `out` always holds the best configuration so far, as JSON.

    Args:
        out: the study lies beside it, as `.db`.
        objective: of OBJECTIVES, on the validation items, exact over all users.

    Raises:
        VbprError: a model without a search space, an unknown objective, optuna is not installed, the study in the way
            is another one, or whatever `train` raises for the defaults.
        Stopped: Ctrl-C or SIGTERM; the same call goes on from the last finished trial.
    """
    if trials < 1:
        raise VbprError(f"--trials is {trials}; it must be at least 1")
    data = Dataset.resolve(data)
    if model not in SPACES:
        raise VbprError(f"--model {model} has nothing to tune{near(model, SPACES)}; choose from {', '.join(SPACES)}")
    if objective not in OBJECTIVES:
        raise VbprError(f"--objective {objective} is not known; choose from {', '.join(OBJECTIVES)}")
    if objective == "unseen" and not MODELS[model].visual:
        raise VbprError(f"--objective unseen: --model {model} cannot score such items; choose another objective")
    path = Path(out)
    check_target(path, "JSON")
    if path.suffix == ".db":
        raise VbprError(f"--out {path} is the name of the study itself; give the configuration a name in .json")
    stores = stores_of(features)
    if MODELS[model].visual and not stores:
        raise VbprError(f"--model {model} needs --features FILE; make one with vbpr extract")
    parts = prepare(data, stores, config=split)
    if not parts.validation.nnz:
        raise VbprError(f"the split ({parts.rule}) has no validation items to tune on; choose another --split")
    if not (parts.item_counts[parts.validation.indices] < PARTS[OBJECTIVES[objective][0]]).any():
        raise VbprError(f"--objective {objective}: no validation item is; choose another objective")
    matrix = align(stores, parts.item_ids) if MODELS[model].visual else None
    base = configure(model, seed=seed, device=device)
    space = fitting(SPACES[model], matrix)
    asked = [identity_of(parts, [s.digest() for s in stores], base.changed(device="")), objective, space]
    identity = hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()
    database = path.with_suffix(".db")
    # A signal between trainings must not tear the study's database.
    with locked(path), locked(database), stop_signals() as stopping:
        study = open_study(database, identity)
        with storing(database):
            while len(finished(study)) < trials:
                try:
                    run_trial(study, parts, matrix, base, space, objective)
                except Stopped as error:
                    raise Stopped(
                        f"stopped in trial {len(finished(study)) + 1}; run the same command again to resume"
                    ) from error
                write_best(path, study, base)
                say(study, trials)
                if stopping():
                    raise Stopped(f"stopped after {len(finished(study))} trials; run the same command again to resume")
            best = write_best(path, study, base)
    return Tuning(path, objective, best, told(study))


def fitting(space: Space, matrix: ItemFeatures | None) -> Space:
    """The space with K no larger than the features are wide."""
    if "dim" not in space or matrix is None:
        return space
    low, high, *rest = space["dim"]
    width = matrix.matrix.shape[1]
    return {**space, "dim": (min(low, width), min(high, width), *rest)}


def open_study(path: Path, identity: str) -> "optuna.Study":
    """Open or begin a study; a trial that a killed run left half done is struck out.

    Raises:
        VbprError: optuna is missing, or the file is damaged or of another question.
    """
    try:
        import optuna
        import sqlalchemy.exc
    except ImportError as error:
        raise VbprError("vbpr tune needs optuna; install it with pip install 'vbpr[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(  # opened here, for an address takes some names apart
                "sqlite:///study", {"creator": lambda: sqlite3.connect(path, check_same_thread=False)}
            ),
            study_name="vbpr",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
            load_if_exists=True,
        )
        known = study.user_attrs.get("identity", identity if not study.trials else "")
    except sqlalchemy.exc.OperationalError as error:
        raise VbprError(f"{path} cannot be used ({error.orig}); wait for what uses it, or mend its disk") from error
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, ValueError) as error:
        raise VbprError(
            f"{path} is not a study of vbpr tune, or is damaged; delete it or choose another --out"
        ) from error
    if known != identity:
        raise VbprError(
            f"{path} is a study of other features, interactions, objective or seed, or of another version's search "
            "space; choose another --out or delete it"
        )
    with storing(path):
        study.set_user_attr("identity", identity)
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """
    Raises:
        VbprError: the study's database cannot be written: a full disk, say; its finished trials are safe.
    """
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        why = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or first_line(error)
        raise VbprError(
            f"{path} could not be written ({why}); make room or mend its disk, then run the same command again"
        ) from error


def finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def run_trial(
    study: "optuna.Study",
    split: Split,
    matrix: ItemFeatures | None,
    base: TrainConfig,
    space: Space,
    objective: str,
) -> None:
    """Draw a configuration, fit it, and note its validation figure; a poor or diverging one is pruned."""
    import optuna

    count = len(finished(study))
    drawn = int(np.random.SeedSequence([base.seed, count]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=drawn)  # so that a resumed study draws the same
    if not count and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
        study.enqueue_trial(defaults(space, base))
    trial = study.ask()
    started = time.monotonic()
    # The curve is of AUC over all items, and of the first part of a model whose parts are trained one after another.
    last, first_part = 0, True

    def listen(epoch: int, auc: float) -> None:
        nonlocal last, first_part
        first_part, last = first_part and epoch > last, epoch
        if objective == "all" and first_part:
            trial.report(auc, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(f"validation AUC {auc:.4f} after epoch {epoch}")

    try:
        config = base.changed(**draw(trial, space))
        with listening(listen):
            factors = fit(split, matrix, config)
        part, metric = OBJECTIVES[objective]
        value = evaluate(factors, "validation", base.device).summary()[part][metric]
    except BaseException as error:
        trial.set_user_attr("seconds", time.monotonic() - started)
        drawn = isinstance(error, VbprError | RuntimeError | MemoryError)
        drawn = drawn and not isinstance(error, torch.AcceleratorError)  # after which a GPU answers nothing
        poor = isinstance(error, optuna.TrialPruned) or (count and drawn)
        if poor:  # an error of the defaults is the user's; a later one (not finite, too large) the draw's
            trial.set_user_attr("why", str(error))
        study.tell(trial, state=optuna.trial.TrialState.PRUNED if poor else optuna.trial.TrialState.FAIL)
        if not poor:
            raise
    else:
        trial.set_user_attr("seconds", time.monotonic() - started)
        study.tell(trial, value)


def draw(trial: "optuna.Trial", space: Space) -> dict[str, Any]:
    """A configuration's values."""
    out: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, list):
            out[name] = trial.suggest_categorical(name, values)
            continue
        low, high, log = values[0], values[1], "log" in values
        suggest: Any = trial.suggest_int if isinstance(low, int) else trial.suggest_float
        out[name] = suggest(name, low, high, log=log)
    return out


def defaults(space: Space, base: TrainConfig) -> dict[str, Any]:
    """The model's own values of what is searched, no larger than the space allows."""
    own = {name: getattr(base, name) for name in space}
    return {n: v if isinstance(space[n], list) else min(v, space[n][1]) for n, v in own.items()}


def write_best(path: Path, study: "optuna.Study", base: TrainConfig) -> dict[str, Any]:
    """Write the best configuration so far."""
    best = {"model": base.model, "seed": base.seed, **study.best_params}
    replace_text(path, json.dumps(best, indent=1) + "\n", "JSON")
    return best


def say(study: "optuna.Study", trials: int) -> None:
    """A line on standard error for the trial that has just ended, with the time left."""
    done = told(study)
    now = done[-1]
    left = sum(t.seconds for t in done) / len(done) * (trials - len(done))
    outcome = f"pruned ({now.why})" if now.value is None else f"{now.value:.4f}"
    console.print(f"trial {len(done)} of {trials}: {outcome}; best {study.best_value:.4f}, {left:,.0f} s left")


def told(study: "optuna.Study") -> list[Trial]:
    """The trials that have ended, in order."""
    return [
        Trial(
            number,
            None if trial.state.name == "PRUNED" else trial.value,
            trial.user_attrs.get("seconds", 0.0),
            trial.params,
            trial.user_attrs.get("why", ""),
        )
        for number, trial in enumerate(finished(study), 1)
    ]


__all__ = ["OBJECTIVES", "SPACES", "Trial", "Tuning", "tune"]
