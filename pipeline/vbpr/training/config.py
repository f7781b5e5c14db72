"""Everything that training can be told, in one place: each default has its home here or in a model's own line."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..base.errors import VbprError, near
from ..base.files import read_bytes
from ..compute.device import multiplies_bfloat16, pick_device


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; saved inside the model file.

    Attributes:
        model: entry of MODELS.
        dim: K of the visual part; factors: K of the latent part; 0 switches a part off.
        item_bias, visual_bias: whether b_i and beta are learnt. history: whether a user starts from what they took;
            history_factors: also from a free vector y_i of each item taken.
        shrink: c in s_i = n_i / (n_i + c), the weight of an item's own latent factors, vector and bias.
        unit: whether each image's standardised features are scaled to length one.
        whiten: 0 standardised features, 1 fully whitened ones, between: partly. axes: principal axes kept (0: all).
        latent_weight: of the latent part where both parts are trained apart (`vbpr`); joint: train them together.
        epochs: passes over the train interactions, less a rest that fills no batch. batch: positives a step. per_user:
            how many of a user's come together in a batch, so that what the user took is summed once for all of them.
        shared_negatives: N a step (0: one own negative each).
        lr: of Adam. schedule: linear (to 0 over the epochs) or constant.
        reg_*: penalties of the batch's rows, in the mean convention; see `bpr.gradients`. alpha: of `als`: how much
            more a purchase weighs than none, 40 as published.
        loss: bpr, or with shared negatives softmax or warp; see `bpr.shared_loss`.
        positives: interactions or users. negatives: uniform; popularity, for `popularity_share` of the draws; or
            in-batch, N positives of the batch itself.
        eval_every: epochs between validations. patience: validations without gain that end training (0: none do).
        device: auto, cpu, cuda. precision: auto (bfloat16 where the machine multiplies it fast), float32, bfloat16.
        memory_limit: GB that prepared features may take; more than that lie in a file on the disk (0: four fifths of
            the memory that is available, on a CPU).
        seed: of every random choice. checkpoint_minutes: between checkpoints.
        network: of dvbpr: cnnf, or a backbone to fine-tune, from `network_weights` (a file, or `random`).
        image_size: pixels of a side that cnnf sees. images_per_step: distinct images a step, for all triplets among
            them; 0: two encodings a triplet, as published.
        identity: digest of all that a checkpoint must agree with: data, features, split, configuration.
    """

    model: str = "visual"
    dim: int = 128
    factors: int = 0
    item_bias: bool = False
    visual_bias: bool = True
    history: bool = True
    history_factors: bool = True
    shrink: float = 5.0
    latent_weight: float = 0.35
    joint: bool = False
    unit: bool = True
    whiten: float = 0.5
    axes: int = 1024
    epochs: int = 5
    batch: int = 768
    per_user: int = 4
    shared_negatives: int = 256
    lr: float = 0.01
    schedule: str = "linear"
    reg_users: float = 0.02
    reg_items: float = 0.02
    reg_bias: float = 0.02
    reg_head: float = 1.6e-4
    alpha: float = 40.0
    loss: str = "bpr"
    positives: str = "interactions"
    negatives: str = "popularity"
    popularity_share: float = 0.25
    eval_every: int = 1
    patience: int = 5
    device: str = "auto"
    precision: str = "auto"
    memory_limit: float = 0.0
    seed: int = 0
    checkpoint_minutes: float = 2.0
    identity: str = ""
    network: str = "cnnf"
    network_weights: str = ""
    image_size: int = 224
    images_per_step: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                value = value.item()
                object.__setattr__(self, field.name, value)
            if words := misfit(field.type, value):
                raise VbprError(f"{called(field.name)} is {value!r}; it must be {words}")
        for name, least in (
            ("dim", 0),
            ("factors", 0),
            ("epochs", 1),
            ("batch", 1),
            ("per_user", 1),
            ("shared_negatives", 0),
            ("eval_every", 1),
            ("patience", 0),
            ("axes", 0),
            ("images_per_step", 0),
            ("seed", 0),
            ("image_size", 32),
        ):
            if not least <= getattr(self, name) < 2**31:
                value = getattr(self, name)
                bound = f"at least {least}" if value < least else "under 2^31"
                raise VbprError(f"{called(name)} is {value}; it must be {bound}")
        not_negative = ("lr", "reg_users", "reg_items", "reg_bias", "reg_head", "alpha", "shrink", "latent_weight")
        for name in (*not_negative, "memory_limit", "checkpoint_minutes"):
            if not 0 <= getattr(self, name) <= 3e38:  # in float32, too
                raise VbprError(f"{called(name)} is {getattr(self, name)}; it must be from 0 to 3e38")
        for name in ("whiten", "popularity_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise VbprError(f"{called(name)} is {getattr(self, name)}; it must be from 0 to 1")
        for name, choices in (
            ("schedule", ("linear", "constant")),
            ("precision", ("auto", "float32", "bfloat16")),
            ("loss", ("bpr", "softmax", "warp")),
            ("positives", ("interactions", "users")),
            ("negatives", ("uniform", "popularity", "in-batch")),
        ):
            if getattr(self, name) not in choices:
                raise VbprError(f"{called(name)} {getattr(self, name)} is not known; choose from {', '.join(choices)}")
        if not self.shared_negatives and (self.loss != "bpr" or self.negatives == "in-batch"):
            raise VbprError(
                "--loss softmax or warp and --negatives in-batch need negatives to share: --shared-negatives 256"
            )

    def torch_device(self) -> torch.device:
        return pick_device(self.device)

    def torch_dtype(self, device: torch.device) -> torch.dtype:
        """What features are stored and multiplied in; sums and parameters are float32."""
        bf16 = self.precision == "bfloat16" or (self.precision == "auto" and multiplies_bfloat16(device))
        return torch.bfloat16 if bf16 else torch.float32

    def changed(self, **values: Any) -> "TrainConfig":
        return dataclasses.replace(self, **values)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


# Fields that `--config` alone can set.
FILE_ONLY = {"per_user", "eval_every", "axes", "reg_items", "reg_bias", "shrink", "latent_weight", "checkpoint_minutes"}
FILE_ONLY |= {"alpha", "whiten", "popularity_share", "schedule"}


def called(name: str) -> str:
    """What people know a field by: its option, or its name in a file of options."""
    return name if name in FILE_ONLY else f"--{name.replace('_', '-')}"


LONGEST_FILE = 2**20  # bytes of a file of options
FILE_FIELDS = {f.name: f.type for f in dataclasses.fields(TrainConfig) if f.name not in ("identity", "device")}
KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "a text in quotes"),
}


def misfit(kind: Any, value: Any) -> str:
    """What a value of a field of this type must be, in words, where it is not that; else nothing."""
    kinds, words = KINDS[kind]
    return "" if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)) else words


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
    for name, value in values.items():
        if name not in FILE_FIELDS:
            raise VbprError(f"{path}: {name!r} is not known{near(name, FILE_FIELDS)}; remove it")
        if words := misfit(FILE_FIELDS[name], value):
            raise VbprError(f"{path}: {name} is {json.dumps(value)}; it must be {words}")
    return values


__all__ = ["TrainConfig", "read_config"]
