"""What is searched of each model, and over which range."""

from typing import TYPE_CHECKING, Any

from ...training.config import TrainConfig

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
    "hybrid": {**VISUAL, "factors": (16, 128, "log")},
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
    "cease": {"reg_items": (10.0, 2000.0, "log")},
    "feature-als": {
        "factors": (16, 256, "log"),
        "epochs": (5, 20),
        "alpha": (1.0, 200.0, "log"),
        "reg_items": (0.1, 3.0, "log"),
    },
    "spectral": {"factors": (16, 512, "log")},
}


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


__all__ = ["SPACES", "Space", "defaults", "draw"]
