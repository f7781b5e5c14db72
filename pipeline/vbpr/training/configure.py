"""A configuration: the defaults, then the model's, the preset's, the file's, and what was given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.errors import VbprError, near
from .config import TrainConfig, read_config
from .models import FIELDS, MODELS, PUBLISHED

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "report": {
        **PUBLISHED,
        "reg_head": 2e-3 / 128,  # the report's penalty has no half
        "factors": 0,
        "item_bias": False,
        "visual_bias": False,
        "history": False,
        "unit": False,
        "whiten": 0.0,
        "shared_negatives": 0,
    },
    # VBPR as He & McAuley (2016) have it: one model, own uniform negatives, features as they are; sizes and rates are
    # those that Cornac has for it
    "published": {
        "joint": True,
        "dim": 10,
        "factors": 10,
        "history": False,
        "unit": False,
        "whiten": 0.0,
        "axes": 0,
        "shrink": 0.0,
        "shared_negatives": 0,
        "negatives": "uniform",
        "per_user": 1,
        "batch": 128,
        "lr": 5e-3,
        "epochs": 20,
        "schedule": "constant",
    },
    "efficient": {"images_per_step": 256, "batch": 1024, "lr": 3e-4, "schedule": "linear", "positives": "interactions"},
}
PRESET_OF = {"report": "visual", "published": "vbpr", "efficient": "dvbpr"}


def configure(
    model: str | None = None,
    preset: str = "default",
    file: Path | str | None = None,
    widest: int | None = None,
    **given: Any,
) -> TrainConfig:
    """TrainConfig's defaults, then the model's, then the preset's, then the file's, then what was given (None: not).

    Args:
        model: None: the file's, else `visual`.
        file: JSON, see `read_config`.
        widest: columns of the features, where they are known: what no file or argument says of K is at most that.

    Raises:
        VbprError: an unknown model or preset, a bad file, one for another model, or a value out of range.
    """
    unknown = next((name for name in given if name not in FIELDS), None)
    if unknown is not None:
        raise VbprError(f"{unknown} is no option of training{near(unknown, FIELDS)}; leave it out")
    written = {} if file is None else read_config(file)
    named = written.pop("model", "visual")
    model = model or named
    if model not in MODELS:
        raise VbprError(f"--model {model} is not known{near(model, MODELS)}; choose from {', '.join(MODELS)}")
    if preset not in PRESETS:
        raise VbprError(f"--preset {preset} is not known; choose from {', '.join(PRESETS)}")
    if model != PRESET_OF.get(preset, model):
        raise VbprError(f"--preset {preset} is for --model {PRESET_OF[preset]}; name that model, or leave it out")
    idle = next((name for name in written if name not in MODELS[model].reads), None)
    if idle is not None:
        raise VbprError(f"{file}: {idle} does nothing for --model {model}; remove it, or name the model that it is of")
    values = {"dim": TrainConfig.dim, **MODELS[model].defaults, **PRESETS[preset]}
    if widest and MODELS[model].visual:
        values["dim"] = min(values["dim"], widest)
    try:
        config = TrainConfig(model=model, **{**values, **written})
    except VbprError as error:
        raise VbprError(f"{file}: {error}") from error
    return config.changed(**{k: v for k, v in given.items() if v is not None})


def refuse_idle(model: str, given: Mapping[str, Any]) -> None:
    """Refuse options that this model would not look at (None: not given).

    Raises:
        VbprError: naming the option, and those that the model has.
    """
    names = {"network": "backbone", "network_weights": "weights"}
    reads = MODELS[model].reads
    for field, value in given.items():
        if value is None or field in reads:
            continue
        has = ", ".join(f"--{names.get(name, name).replace('_', '-')}" for name in given if name in reads)
        option = names.get(field, field).replace("_", "-")
        raise VbprError(f"--{option} does nothing for --model {model}, which has {has or 'no options'}; leave it out")
    if given.get("image_size") is not None and given.get("network") is not None:
        raise VbprError("--image-size is for the published network; leave it out, or --backbone")
    if given.get("network_weights") is not None and given.get("network") is None:
        raise VbprError("--weights are for --backbone; name it as well")


__all__ = ["PRESETS", "configure", "refuse_idle"]
