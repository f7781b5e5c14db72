"""Every option of training: a field of TrainConfig with its declaration. A model's own defaults lie in its file."""

import dataclasses
from typing import Any

from ..base.errors import VbprError
from ..base.options import option, options_of
from ..executors.options import CLUSTER


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; saved inside the model file.

    What a field does and may be is said by its declaration, and in the table of docs/training.md. Each field is of a
    group, and a model reads groups: see `fields_of`. The order of the fields is part of a training's identity.
    """

    model: str = option("visual", "Entry of MODELS", group="steps")
    dim: int = option(128, "K of the visual part; 0 switches it off", group="head")
    factors: int = option(0, "K of the latent part; 0 switches it off", group="latent")
    item_bias: bool = option(False, "Whether an item has a bias, b_i", group="bias")
    visual_bias: bool = option(True, "Whether features have a bias, beta, the same for all users", group="features")
    history: bool = option(True, "Whether a user starts from what they took", group="history")
    history_factors: bool = option(True, "With history: from a free vector y_i of each item, too", group="history")
    shrink: float = option(
        5.0,
        "c in n_i / (n_i + c), the weight of an item's own factors, vector and bias",
        group="latent",
        file_only=True,
    )
    latent_weight: float = option(
        0.35, "Weight of the latent part, trained apart from the visual part", group="blend", file_only=True
    )
    joint: bool = option(False, "Whether both parts are trained together", group="blend")
    unit: bool = option(True, "Whether the standardised features of an image have length one", group="features")
    whiten: float = option(
        0.5, "0: standardised features, 1: whitened, between: partly", most=1, group="features", file_only=True
    )
    axes: int = option(1024, "Principal axes of the features that are kept; 0: all", group="features", file_only=True)
    epochs: int = option(5, "Passes over the train interactions", least=1, group="steps")
    batch: int = option(768, "Positives a step", least=1, group="steps")
    per_user: int = option(
        4,
        "Positives of a user that come together in a batch, so that what the user took is summed once for all of them",
        least=1,
        group="shared",
        file_only=True,
    )
    least_steps: int = option(
        75,
        "Steps of an epoch beyond which batches grow, and runs of a user with them, up to fourfold; 0: never",
        group="shared",
        file_only=True,
    )
    shared_negatives: int = option(256, "Negatives shared by a batch; 0: one own each", group="shared")
    lr: float = option(0.01, "Learning rate of Adam", group="steps")
    schedule: str = option(
        "linear",
        "Of the rate: linear (to 0 over the epochs) or constant",
        choices=("linear", "constant"),
        group="steps",
        file_only=True,
    )
    # Penalties are of the batch's rows, in the mean convention; see `bpr.gradients`.
    reg_users: float = option(0.02, "Penalty of user factors", group="steps")
    reg_items: float = option(0.02, "Penalty of item factors", group="latent", file_only=True)
    reg_bias: float = option(0.02, "Penalty of item biases", group="bias", file_only=True)
    reg_head: float = option(1.6e-4, "Penalty of the head", group="head")
    alpha: float = option(40.0, "How much more a purchase weighs than none", group="confidence", file_only=True)
    loss: str = option(
        "bpr",
        "bpr, softmax or warp (these two: with shared negatives)",
        choices=("bpr", "softmax", "warp"),
        group="shared",
    )
    positives: str = option(
        "interactions",
        "interactions: each once an epoch; or users: as often whoever it is, an item each",
        choices=("interactions", "users"),
        group="steps",
    )
    negatives: str = option(
        "popularity",
        "uniform, popularity (a share of them: popularity_share in --config) or in-batch",
        choices=("uniform", "popularity", "in-batch"),
        group="steps",
    )
    popularity_share: float = option(
        0.25, "Share of the negatives that is drawn by popularity", most=1, group="steps", file_only=True
    )
    eval_every: int = option(1, "Epochs between validations", least=1, group="steps", file_only=True)
    patience: int = option(5, "Validations without gain that end training; 0: never", group="steps")
    device: str = option("auto", "auto (CUDA where there is one), cpu, cuda or cuda:N", group="steps")
    # auto: bfloat16 where the machine multiplies it fast
    precision: str = option("auto", "auto, float32 or bfloat16", choices=("auto", "float32", "bfloat16"), group="head")
    # 0: four fifths of the memory that is available, on a CPU
    memory_limit: float = option(
        0.0, "GB of prepared features in memory, more are read from a file [default: as many as fit]", group="features"
    )
    seed: int = option(0, "Seed of the training", most=2**31 - 1, ranged=True, group="steps")
    shards: int = option(
        1,
        "Parts of the users that are trained side by side; decides the result, unlike who trains them",
        least=1,
        group="shards",
    )
    cluster: str = option("", CLUSTER.help, group="shards")  # whose workers train the shards
    checkpoint_minutes: float = option(2.0, "Minutes between checkpoints", group="steps", file_only=True)
    # digest of all that a checkpoint must agree with: data, features, split, configuration
    identity: str = option("", "Set by train", group="steps")
    network: str = option("cnnf", "dvbpr: network to fine-tune instead of CNN-F", flag="--backbone", group="pictures")
    # a file, or `random`
    network_weights: str = option(
        "", "Backbone weights: .safetensors, or a tensors-only .pt", flag="--weights", group="pictures"
    )
    image_size: int = option(224, "dvbpr: pixels of a side; 224 as published", least=32, group="pictures")
    # above 0: one encoding an image, for all triplets among them; 0: two encodings a triplet
    images_per_step: int = option(0, "dvbpr: distinct images a step; 0: as published", group="pictures")
    # all, cold, unseen: AUC of those items; balanced: of all of these, and never below the best part in any
    objective: str = option(
        "balanced",
        "hybrid: what validation items choose its weights for: balanced, all, cold, unseen, ndcg@10 or recall@20",
        choices=("balanced", "all", "cold", "unseen", "ndcg@10", "recall@20"),
        group="choice",
    )
    popular: bool = option(
        True,
        "Whether popularity is added where it ranks validation items better than images do",
        group="popular",
        file_only=True,
    )
    hidden: int = option(0, "Rectified units of a layer beside the linear head; 0: none", group="hidden")

    def __post_init__(self) -> None:
        import numpy as np  # here, for the command line reads the declarations before it knows what it will need

        for name, declared in OPTIONS.items():
            value = getattr(self, name)
            if isinstance(value, np.generic):
                value = value.item()
                object.__setattr__(self, name, value)
            declared.check(value)
        if not self.shared_negatives and (self.loss != "bpr" or self.negatives == "in-batch"):
            raise VbprError(
                "--loss softmax or warp and --negatives in-batch need negatives to share: --shared-negatives 256"
            )

    def changed(self, **values: Any) -> "TrainConfig":
        return dataclasses.replace(self, **values)

    def to_json(self) -> dict[str, Any]:
        """What decides the model: without `cluster`, and without `shards` where there is one."""
        idle = {"cluster"} | ({"shards"} if self.shards == 1 else set())
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in idle}


OPTIONS = options_of(TrainConfig)


def fields_of(*groups: str) -> frozenset[str]:
    """The fields of groups, for what a model reads.

    steps: of any training in steps. head: of a visual part. hidden: a layer of it. features: how they are prepared.
    history: what a user took. latent, bias: of a latent part. shared: negatives of a batch. blend: of parts trained
    apart. confidence: of `als`. pictures: of a network that is trained. choice: what validation items choose parts by.
    shards: of the BPR engine.
    popular: of a visual model that popularity may join.
    """
    fields = [{name for name, declared in OPTIONS.items() if declared.group == group} for group in groups]
    assert all(fields), groups
    return frozenset().union(*fields)


__all__ = ["OPTIONS", "TrainConfig", "fields_of"]
