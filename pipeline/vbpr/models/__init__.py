"""Every model by name. A new one is a class with `fit` and a line here; the contract tests pick it up."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..base.errors import VbprError, near
from ..recommender import Recommender
from .baselines import Popularity, Random, VisualKNN
from .bpr import BPR, BPRMF
from .collaborative import EASE, Implicit, Spectral
from .config import TrainConfig, read_config
from .dvbpr import DVBPR
from .hybrid import Hybrid
from .vbpr import VBPR

FIELDS = frozenset(f.name for f in dataclasses.fields(TrainConfig))
BPR_READS = FIELDS - {"alpha", "image_size", "images_per_step", "network", "network_weights"}
BLEND = {"joint", "latent_weight"}  # of `vbpr`
OF_FEATURES = {"dim", "reg_head", "memory_limit", "precision", "unit", "whiten", "axes", "visual_bias"}
LATENT_READS = BPR_READS - BLEND - OF_FEATURES - {"history", "history_factors"}
OF_ITEMS = {"factors", "item_bias", "history", "history_factors", "shrink", "reg_items", "reg_bias"}
SAMPLED = {"per_user", "shared_negatives", "loss"}
# Its item is the network's output and nothing else, its triplets those of the batch.
DVBPR_READS = FIELDS - {"alpha"} - BLEND - OF_ITEMS - SAMPLED - OF_FEATURES | {"dim", "reg_head", "precision"}


@dataclasses.dataclass(frozen=True)
class Model:
    """An entry of MODELS.

    Attributes:
        build: (configuration, checkpoint path or None) -> something with `fit`.
        defaults: where this model departs from TrainConfig's defaults.
        visual: whether it reads features.
        images: whether it reads the pictures themselves: its `images` is set before `fit`.
        reads: the fields that change this model.
    """

    build: Callable[[TrainConfig, Path | None], Recommender]
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    visual: bool = True
    images: bool = False
    reads: frozenset[str] = BPR_READS


# What DVBPR and the report published. Their penalties are for a loss summed over the batch of 128; here it is a mean.
PUBLISHED: dict[str, Any] = {
    "dim": 50,
    "epochs": 20,
    "batch": 128,
    "lr": 1e-4,
    "schedule": "constant",
    "reg_users": 1.0,
    "reg_head": 1e-3 / 128,
    "positives": "users",
    "negatives": "uniform",
    "patience": 0,
}

MODELS: dict[str, Model] = {
    # two-stage visual ranker: BPR of a head on frozen features
    "visual": Model(BPR, {"popularity_share": 0.4}, reads=BPR_READS - BLEND),
    # VBPR (He & McAuley, 2016): visual and latent factors, item and visual bias
    "vbpr": Model(VBPR, {"factors": 64, "item_bias": True, "popularity_share": 0.4}),
    # our best: visual, item-item and latent rankers blended in units of their deviation
    "hybrid": Model(
        Hybrid,
        {"dim": 192, "axes": 0, "factors": 64, "item_bias": True, "popularity_share": 1.0, "epochs": 8, "batch": 512},
        reads=BPR_READS - BLEND - {"item_bias", "reg_bias"},
    ),
    # BPR matrix factorisation (Rendle et al. 2009): no images, uniform negatives
    "bprmf": Model(BPR, BPRMF, visual=False, reads=LATENT_READS),
    # implicit's ALS (Hu et al. 2008)
    "als": Model(
        Implicit,
        {"dim": 0, "factors": 64, "epochs": 15, "reg_items": 200.0},
        visual=False,
        reads=frozenset({"factors", "epochs", "reg_items", "alpha", "seed"}),
    ),
    # implicit's BPR: negatives by popularity, so that popular items are held down
    "bpr": Model(
        Implicit,
        {"dim": 0, "factors": 64, "epochs": 300, "reg_items": 0.08, "lr": 0.08},
        visual=False,
        reads=frozenset({"factors", "epochs", "lr", "reg_items", "seed"}),
    ),
    # EASE (Steck, 2019): item-item closed form, its leading rank
    "ease": Model(
        EASE,
        {"dim": 0, "factors": 256, "reg_items": 400.0},
        visual=False,
        reads=frozenset({"factors", "reg_items", "seed"}),
    ),
    # the ideal low-pass filter of the normalised interactions: of GF-CF (Shen et al. 2021) without its linear part
    "spectral": Model(Spectral, {"dim": 0, "factors": 64}, visual=False, reads=frozenset({"factors", "seed"})),
    # train interactions of each item
    "popularity": Model(Popularity, visual=False, reads=frozenset()),
    # mean cosine to the features of the user's history
    "knn": Model(VisualKNN, reads=frozenset()),
    # chance
    "random": Model(Random, visual=False, reads=frozenset({"seed"})),
    # DVBPR (Kang et al. 2017): the image network learns end to end; wants a GPU
    "dvbpr": Model(DVBPR, PUBLISHED, visual=False, images=True, reads=DVBPR_READS),
}

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


__all__ = ["MODELS", "PRESETS", "Model", "TrainConfig", "configure", "read_config", "refuse_idle"]
