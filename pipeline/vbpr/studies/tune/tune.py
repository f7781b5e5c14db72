"""Hyper-parameters by validation: many configurations over one loaded feature matrix and one split.

    done = tune(Dataset.resolve("data"), ["artifacts/inc.h5"], "visual", "artifacts/inc.visual.json", trials=40)

The first trial is the model's defaults; the rest are suggested by TPE (Bergstra et al. 2011). A trial whose learning
curve lies below the median of the earlier ones is pruned. The study is a SQLite file beside the best configuration. A
suggestion depends on the finished trials and the seed alone, so a killed study goes on as if nothing had happened.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...base.errors import VbprError, near
from ...base.files import replace_text
from ...base.locks import locked
from ...base.progress import listening
from ...base.stopping import Stopped, stop_signals
from ...base.targets import check_target
from ...data.dataset import Dataset
from ...data.split import Split, SplitConfig
from ...evaluation.evaluate import PARTS, evaluate
from ...stores.features.store import FeatureStore, stores_of
from ...training.catalogue import align, prepare
from ...training.config import TrainConfig
from ...training.configure import configure
from ...training.fit import fit
from ...training.identity import identity_of
from ...training.item_features import ItemFeatures
from ...training.models import MODELS, named
from ...training.models.entry import Space
from .spaces import defaults, suggest
from .study import Trial, finished, open_study, print_progress, storing, trials_of

if TYPE_CHECKING:
    import optuna
# What may be tuned for, on the validation items: part of the evaluation, metric.
OBJECTIVES = {
    "all": ("all", "auc"),
    "cold": ("cold", "auc"),
    "unseen": ("unseen", "auc"),
    "ndcg@10": ("all", "ndcg@10"),
    "recall@20": ("all", "recall@20"),
    "hr@10": ("all", "hr@10"),
}


class Pruned(BaseException):
    """A trial that promises little. No Exception, so that no model takes it for a fault of its own."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A finished study.

    Attributes:
        path: of the best configuration, as JSON.
        best: that configuration.
        trials: in the order in which they ran.
    """

    path: Path
    objective: str
    best: dict[str, Any]
    trials: list[Trial]

    @property
    def ranked(self) -> list[Trial]:
        """The completed trials, best first."""
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
        VbprError: a model without a search space, an unknown objective, optuna is not installed, the file is of another
            study, or whatever `train` raises for the defaults.
        Stopped: Ctrl-C or SIGTERM; the same call goes on from the last finished trial.
    """
    if trials < 1:
        raise VbprError(f"--trials is {trials}; it must be at least 1")
    data = Dataset.resolve(data)
    tunable = [name for name, entry in MODELS.items() if entry.space]
    if not named(model).space:
        if MODELS[model].own:
            raise VbprError(f"--model {model} has nothing to tune; give its class a space, as docs/own-model.md shows")
        raise VbprError(f"--model {model} has nothing to tune{near(model, tunable)}; choose from {', '.join(tunable)}")
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
    space = fitting(MODELS[model].space, matrix)
    asked = [identity_of(parts, [s.digest() for s in stores], base.changed(device="")), objective, space]
    identity = hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()
    database = path.with_suffix(".db")
    # A signal between trainings must not interrupt a write to the study's database.
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
                print_progress(study, trials)
                if stopping():
                    raise Stopped(f"stopped after {len(finished(study))} trials; run the same command again to resume")
            best = write_best(path, study, base)
    return Tuning(path, objective, best, trials_of(study))


def fitting(space: Space, matrix: ItemFeatures | None) -> Space:
    """The space with K no larger than the features are wide."""
    if "dim" not in space or matrix is None:
        return space
    low, high, *rest = space["dim"]
    width = matrix.matrix.shape[1]
    return {**space, "dim": (min(low, width), min(high, width), *rest)}


def run_trial(
    study: "optuna.Study",
    split: Split,
    matrix: ItemFeatures | None,
    base: TrainConfig,
    space: Space,
    objective: str,
) -> None:
    """Fit a suggested configuration and record its validation figure; a poor or diverging one is pruned."""
    import optuna

    count = len(finished(study))
    seed = int(np.random.SeedSequence([base.seed, count]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=seed)  # so that a resumed study suggests the same
    if not count and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
        study.enqueue_trial(defaults(space, base))
    trial = study.ask()
    started = time.monotonic()
    # The curve is of AUC over all items, so for other objectives nothing is pruned by it. Of a model whose parts are
    # trained one after another, the first part's curve counts alone.
    last, first_part = 0, True

    def listen(epoch: int, figures: dict[str, float]) -> None:
        nonlocal last, first_part
        first_part, last = first_part and epoch > last, epoch
        if objective == "all" and first_part and "auc" in figures:
            trial.report(figures["auc"], epoch)
            if trial.should_prune():
                raise Pruned(f"validation AUC {figures['auc']:.4f} after epoch {epoch}")

    try:
        config = base.changed(**suggest(trial, space))
        with listening(listen):
            factors = fit(split, matrix, config)
        part, metric = OBJECTIVES[objective]
        value = evaluate(factors, "validation", base.device).summary()[part][metric]
    except BaseException as error:
        trial.set_user_attr("seconds", time.monotonic() - started)
        unfit = isinstance(error, VbprError | RuntimeError | MemoryError)
        unfit = unfit and not isinstance(error, torch.AcceleratorError)  # after which the GPU is of no use
        # The defaults must work: an error of theirs is raised. Later ones (not finite, too large) are the suggestion's.
        poor = isinstance(error, Pruned) or (count and unfit)
        if poor:
            trial.set_user_attr("why", str(error))
        study.tell(trial, state=optuna.trial.TrialState.PRUNED if poor else optuna.trial.TrialState.FAIL)
        if not poor:
            raise
    else:
        trial.set_user_attr("seconds", time.monotonic() - started)
        study.tell(trial, value)


def write_best(path: Path, study: "optuna.Study", base: TrainConfig) -> dict[str, Any]:
    """Write the best configuration so far, and return it."""
    best = {"model": base.model, "seed": base.seed, **study.best_params}
    replace_text(path, json.dumps(best, indent=1) + "\n", "JSON")
    return best


__all__ = ["OBJECTIVES", "Tuning", "tune"]
