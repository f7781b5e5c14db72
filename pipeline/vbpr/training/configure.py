"""A configuration: the defaults, then the model's, the preset's, the file's, and what was given."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.errors import VbprError, near
from ..base.files import read_bytes
from ..base.options import misfit
from ..base.own import is_own
from .config import OPTIONS, TrainConfig
from .models import MODELS, named

PRESET_OF = {preset: name for name, model in MODELS.items() for preset in model.presets}
LONGEST_FILE = 2**20  # bytes of a file of options


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
        preset: of the model's, or `default`, which changes nothing.
        file: JSON, see `read_config`.
        widest: columns of the features, where they are known: what no file or argument says of K is at most that.

    Raises:
        VbprError: an unknown model or preset, a bad file, one for another model, or a value out of range.
    """
    unknown = next((name for name in given if name not in OPTIONS), None)
    if unknown is not None:
        raise VbprError(f"{unknown} is no option of training{near(unknown, OPTIONS)}; leave it out")
    written = {} if file is None else read_config(file)
    recorded = written.pop("model", "visual")
    if model is None and is_own(recorded):
        raise VbprError(f"{file} is for a model of one's own; say that its code shall run: --model {recorded}")
    model = model or recorded
    own = named(model).presets
    if preset not in ("default", *PRESET_OF, *own):
        raise VbprError(f"--preset {preset} is not known; choose from {', '.join(('default', *PRESET_OF, *own))}")
    if preset not in own and model != PRESET_OF.get(preset, model):
        raise VbprError(f"--preset {preset} is for --model {PRESET_OF[preset]}; name that model, or leave it out")
    idle = next((name for name in written if name not in MODELS[model].reads), None)
    if idle is not None:
        raise VbprError(f"{file}: {idle} does nothing for --model {model}; remove it, or name the model that it is of")
    values = {"dim": TrainConfig.dim, **MODELS[model].defaults, **MODELS[model].presets.get(preset, {})}
    if widest and MODELS[model].visual:
        values["dim"] = min(values["dim"], widest)
    try:
        config = TrainConfig(model=model, **{**values, **written})
    except VbprError as error:
        raise VbprError(f"{file}: {error}") from error
    given = {name: value for name, value in given.items() if value is not None}
    if "batch" in given or "batch" in written:  # whoever says how many wants as many
        given = {"least_steps": written.get("least_steps", 0), **given}
    return config.changed(**given)


def read_config(path: Path | str) -> dict[str, Any]:
    """The fields of a configuration in a JSON file, such as `vbpr tune` writes: {"model": "visual", "dim": 64, ...}.

    Raises:
        VbprError: no such file, not a JSON object, an unknown field, or a value of another type.
    """
    try:
        values = json.loads(read_bytes(path, LONGEST_FILE))
    except OSError as error:
        raise VbprError(f"{path} cannot be read ({error.strerror}); give a file that vbpr tune wrote") from error
    except (ValueError, RecursionError) as error:
        raise VbprError(f"{path} is not JSON ({error}); give a file that vbpr tune wrote") from error
    if not isinstance(values, dict):
        raise VbprError(f'{path} holds no JSON object; it should look like {{"model": "visual", "dim": 64}}')
    fields = {name: declared for name, declared in OPTIONS.items() if name not in ("identity", "device", "cluster")}
    for name, value in values.items():
        if name not in fields:
            raise VbprError(f"{path}: {name!r} is not known{near(name, fields)}; remove it")
        if words := misfit(fields[name].type, value):
            raise VbprError(f"{path}: {name} is {json.dumps(value)}; it must be {words}")
    return values


def refuse_idle(model: str, given: Mapping[str, Any]) -> None:
    """Refuse options that this model would not look at (None: not given).

    Raises:
        VbprError: naming the option, and those that the model has.
    """
    reads = MODELS[model].reads
    for field, value in given.items():
        if value is None or field in reads:
            continue
        has = ", ".join(OPTIONS[name].flag for name in given if name in reads)
        raise VbprError(
            f"{OPTIONS[field].flag} does nothing for --model {model}, which has {has or 'no options'}; leave it out"
        )
    if given.get("image_size") is not None and given.get("network") is not None:
        raise VbprError("--image-size is for the published network; leave it out, or --backbone")
    if given.get("network_weights") is not None and given.get("network") is None:
        raise VbprError("--weights are for --backbone; name it as well")


__all__ = ["configure", "read_config", "refuse_idle"]
