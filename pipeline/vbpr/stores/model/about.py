"""What a model file tells of the model: how it was made, of what, and how training went."""

from collections.abc import Mapping
from typing import Any

ABOUT: dict[str, Any] = {  # what is read of a model's `about`, where it is there; of a list of objects, what each holds
    "data": str,
    "dropped_users": int,
    "config": dict,
    "versions": dict,
    "added": {"folder": str, "items": int},
    "blend": {"part": str, "warm": int | float, "cold": int | float},
    "curve": {"epoch": int, "auc": int | float | None},
    "features": {"path": str, "backbone": str, "weights": str, "preprocessing": str, "weights_file": str | None},
}


def check_about(about: Any) -> None:
    """Refuse an `about` whose values are of other types than a model's.

    Raises:
        ValueError: it is.
    """
    if not isinstance(about, dict):
        raise ValueError("about is no object")
    for name in ABOUT.keys() & about.keys():
        value, kind = about[name], ABOUT[name]
        if value is None:
            continue
        if isinstance(kind, dict):
            sound = isinstance(value, list) and all(
                isinstance(each, dict) and all(isinstance(each.get(key), of) for key, of in kind.items())
                for each in value
            )
        else:
            sound = isinstance(value, kind)
        if not sound:
            raise ValueError(f"about: {name} is not what a model has there")


def first_curve(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The learning curve that a model's `about` holds; of parts trained one after another, the first one's."""
    return [point for point in about.get("curve", []) if point.get("part", "visual") == "visual"]


__all__ = ["check_about", "first_curve"]
