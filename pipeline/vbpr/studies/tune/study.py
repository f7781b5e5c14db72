"""The study that `vbpr tune` keeps: a SQLite file of optuna's, which survives a kill."""

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
    """A configuration that was tried.

    Attributes:
        value: of the objective; None where the trial was pruned, for the reason in `why`.
    """

    number: int
    value: float | None
    seconds: float
    params: dict[str, Any]
    why: str = ""


def open_study(path: Path, identity: str) -> "optuna.Study":
    """Open or create a study; a trial that a killed run left unfinished is marked as failed.

    Raises:
        VbprError: optuna is missing, or the file is damaged or of another study.
    """
    try:
        import optuna
        import sqlalchemy.exc
    except ImportError as error:
        raise VbprError("vbpr tune needs optuna; install it with pip install optuna") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(  # connected here: in a URL, a ? in the path would be read as syntax
                "sqlite:///study", {"creator": lambda: sqlite3.connect(path, check_same_thread=False)}
            ),
            study_name="vbpr",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
            load_if_exists=True,
        )
        recorded = study.user_attrs.get("identity", identity if not study.trials else "")
    except sqlalchemy.exc.OperationalError as error:
        raise VbprError(f"{path} cannot be used ({error.orig}); wait for what uses it, or mend its disk") from error
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, ValueError) as error:
        raise VbprError(
            f"{path} is not a study of vbpr tune, or is damaged; delete it or choose another --out"
        ) from error
    if recorded != identity:
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
    """Turn failures of the study's database into a sentence; finished trials are safe in any case.

    Raises:
        VbprError: the database cannot be written, as on a full disk.
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
    """The trials that were completed or pruned, in order."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def print_progress(study: "optuna.Study", trials: int) -> None:
    """Print a line about the trial that has just ended, and the time left, on standard error."""
    done = trials_of(study)
    last = done[-1]
    left = sum(t.seconds for t in done) / len(done) * (trials - len(done))
    outcome = f"pruned ({last.why})" if last.value is None else f"{last.value:.4f}"
    console.print(f"trial {len(done)} of {trials}: {outcome}; best {study.best_value:.4f}, {left:,.0f} s left")


def trials_of(study: "optuna.Study") -> list[Trial]:
    """The finished trials, in order."""
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


__all__ = ["Trial", "finished", "open_study", "print_progress", "storing", "trials_of"]
