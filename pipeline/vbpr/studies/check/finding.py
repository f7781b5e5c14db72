"""What came of one contract test."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of a check.

    Attributes:
        name: the truth that was tested, in words.
        state: ok; fault; or note: no fault, but worth knowing.
        words: what was found, and where it is not ok what to do.
    """

    name: str
    state: str
    words: str = ""


def judged(name: str, sound: bool, words: str, otherwise: str = "fault") -> Finding:
    """ok, or `otherwise` with the words."""
    return Finding(name, "ok" if sound else otherwise, "" if sound else words)


__all__ = ["Finding", "judged"]
