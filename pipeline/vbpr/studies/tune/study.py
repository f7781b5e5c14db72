"""A study of optuna's that survives a kill."""

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.errors import VbprError, first_line
from ...base.progress import console

if TYPE_CHECKING:
    import optuna


@dataclasses.dataclass(frozen=True)
class Trial:
    """A configuration that was tried. value: of the objective; None where it was pruned, for the reason in `why`."""

    number: int
    value: float | None
    seconds: float
    params: dict[str, Any]
    why: str = ""


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


__all__ = ["Trial", "finished", "open_study", "say", "storing", "told"]
