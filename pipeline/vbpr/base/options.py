"""The one declaration of an option: its default, bounds and words, for the library, the command line and the docs.

class Config:
    dim: int = option(128, "K of the visual part; 0 switches it off")

options_of(Config)["dim"].check(-1)  # VbprError: --dim is -1; it must be at least 0
"""

import dataclasses
from typing import Any

from .errors import VbprError

LARGEST = {int: 2**31 - 1, float: 3e38}  # 3e38: in float32, too
KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "a text in quotes"),
}


@dataclasses.dataclass(frozen=True)
class Option:
    """What is declared of an option.

    Attributes:
        help: what it does, in `--help` and in the docs.
        type, default: of the value; on the command line as well.
        least, most: bounds of a number, both allowed (most None: LARGEST). choices: of a text.
        ranged: whether the command line checks the bounds itself, and shows them in `--help`.
        group: options that are read together have the same one.
        flag: on the command line [default: the name, with dashes].
        file_only: only a file of options sets it, so people know it by its name.
    """

    name: str
    help: str
    type: Any = str
    default: Any = None
    least: float = 0
    most: float | None = None
    choices: tuple[str, ...] = ()
    ranged: bool = False
    group: str = ""
    flag: str = ""
    file_only: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "flag", self.flag or f"--{self.name.replace('_', '-')}")

    @property
    def called(self) -> str:
        """What an error calls it."""
        return self.name if self.file_only else f"--{self.name.replace('_', '-')}"

    def check(self, value: Any) -> None:
        """
        Raises:
            VbprError: a value of another type, out of bounds, or none of the choices.
        """
        if words := misfit(self.type, value):
            raise VbprError(f"{self.called} is {value!r}; it must be {words}")
        if self.choices and value not in self.choices:
            raise VbprError(f"{self.called} {value} is not known; choose from {', '.join(self.choices)}")
        if self.type not in LARGEST:
            return
        most = LARGEST[self.type] if self.most is None else self.most
        if not self.least <= value <= most:
            bounds = f"from {self.least} to {most}".replace("e+", "e")
            if self.type is int:
                bounds = (
                    f"at least {self.least}" if value < self.least else f"under 2^{(int(most) + 1).bit_length() - 1}"
                )
            raise VbprError(f"{self.called} is {value}; it must be {bounds}")


def option(default: Any, help: str, **declared: Any) -> Any:
    """A field of a dataclass with its declaration; the further arguments are those of `Option`."""
    return dataclasses.field(default=default, metadata={"help": help, **declared})


def options_of(config: type) -> dict[str, Option]:
    """The declarations of a dataclass, by field."""
    return {
        field.name: Option(name=field.name, type=field.type, default=field.default, **field.metadata)
        for field in dataclasses.fields(config)
    }


def misfit(kind: Any, value: Any) -> str:
    """What a value of this type must be, in words, where it is not that; else nothing."""
    kinds, words = KINDS[kind]
    return "" if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)) else words


__all__ = ["Option", "misfit", "option", "options_of"]
