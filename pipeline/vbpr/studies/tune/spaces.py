"""How a configuration is drawn from the search space of a model."""

from typing import TYPE_CHECKING, Any

from ...training.config import TrainConfig
from ...training.models.entry import Space

if TYPE_CHECKING:
    import optuna


def suggest(trial: "optuna.Trial", space: Space) -> dict[str, Any]:
    """A configuration's values."""
    out: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, list):
            out[name] = trial.suggest_categorical(name, values)
            continue
        low, high, log = values[0], values[1], "log" in values
        number: Any = trial.suggest_int if isinstance(low, int) else trial.suggest_float
        out[name] = number(name, low, high, log=log)
    return out


def defaults(space: Space, base: TrainConfig) -> dict[str, Any]:
    """The model's own values of what is searched, no larger than the space allows."""
    values = {name: getattr(base, name) for name in space}
    return {n: v if isinstance(space[n], list) else min(v, space[n][1]) for n, v in values.items()}


__all__ = ["defaults", "suggest"]
