"""What a model file tells of the model, as a typed record: how it was made, of what, and how training went."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class About:
    """What is read of a model's `about`; whatever else stands there is kept and passed on.

    Attributes:
        model: its name in `MODELS`; "" where that is not on record. title: what to call it.
        config: of its training, as JSON. versions: of what trained it. seconds: that training took.
        encoded: images that a network saw in training.
        data: the data set's name or folder; "" where that is not on record. data_title: what to call it. simulated:
            whether its users are made up.
        split: the rule; "" where that is not on record. dropped_users: how many users the rule left out.
        read_columns: what interactions call user_id, item_id, timestamp and split, where they call them otherwise.
        scores_unseen: whether an item that nobody has taken gets a score of its own.
        features: of each feature file: path, digest, and what a photo must go through: backbone, weights,
            preprocessing, ...
        added: folders of items that came later: folder, items (how many).
        columns: of a blend whose parts stand side by side: each part, and how many columns it has, in their order.
        blend: of a blend by weights: each part, and its weight for items that sell (warm) and hardly do (cold).
        updates: what was taken in since the training: interactions (their file), pairs, users and items that were new.
        curve: the learning curve: epoch, auc, and the part of the model where several are trained one after another.
    """

    model: str = ""
    title: str = "model"
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    encoded: int = 0
    data: str = ""
    data_title: str = ""
    simulated: bool = False
    split: str = ""
    dropped_users: int = 0
    read_columns: dict[str, str] = dataclasses.field(default_factory=dict)
    scores_unseen: bool = True
    features: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    added: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    columns: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    blend: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    updates: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    curve: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "About":
        """The record in the JSON object of a model; what it lacks, or has as null, is as the defaults say."""
        present = {f.name: about[f.name] for f in dataclasses.fields(cls) if about.get(f.name) is not None}
        for name, kind in (("model", str), ("title", str), ("data_title", str), ("encoded", int), ("simulated", bool)):
            if name in present:
                present[name] = kind(present[name])
        return cls(**{"title": present.get("model", "model"), **present})

    def described(self, users: int, items: int, rank: int) -> str:
        """The model in a line."""
        return f"Factors({self.model or 'model'}, {users:,} users, {items:,} items, K {rank})"

    def first_curve(self) -> list[dict[str, Any]]:
        """The learning curve; of parts trained one after another, the first one's."""
        return [point for point in self.curve if point.get("part", "visual") == "visual"]


CHECKED: dict[str, Any] = {  # the types that a file must have there; of a list of objects, what each object holds
    "data": str,
    "dropped_users": int,
    "read_columns": dict,
    "config": dict,
    "versions": dict,
    "added": {"folder": str, "items": int},
    "updates": {"interactions": str, "pairs": int, "users": int, "items": int},
    "columns": {"part": str, "columns": int},
    "blend": {"part": str, "warm": int | float, "cold": int | float},
    "choice": dict,
    "curve": {"epoch": int, "auc": int | float | None},
    "features": {"path": str, "backbone": str, "weights": str, "preprocessing": str, "weights_file": str | None},
}


def check_about(about: Any) -> None:
    """Refuse what is no `about` of a model.

    Raises:
        ValueError: a value is of another type.
    """
    if not isinstance(about, dict):
        raise ValueError("about is no object")
    for name in CHECKED.keys() & about.keys():
        value, kind = about[name], CHECKED[name]
        if value is None:
            continue
        if isinstance(kind, dict):
            sound = isinstance(value, list) and all(
                isinstance(entry, dict) and all(isinstance(entry.get(key), type_) for key, type_ in kind.items())
                for entry in value
            )
        else:
            sound = isinstance(value, kind)
        if not sound:
            raise ValueError(f"about: {name} is not what a model has there")


__all__ = ["About", "check_about"]
