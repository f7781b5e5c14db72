"""The one exception that a user is meant to read: it names the file, row or option and says what to do."""

import difflib
import re
from collections.abc import Iterable


class VbprError(Exception):
    """A fault of the input or the machine that the user can mend. The command line prints it and exits with code 2."""


def counted(count: int, noun: str) -> str:
    """`1 item`, `2,000 items`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


ERRNO = re.compile(r"errno = (\d+)")


def errno_in(error: BaseException) -> int:
    """The system's number of a fault, which HDF5 hides in its words; 0 where there is none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    match = ERRNO.search(str(error))
    return int(match[1]) if match else 0


def first_line(error: BaseException) -> str:
    """The first line of an error's message; of one without a message, its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def near(name: str, names: Iterable[str]) -> str:
    """A hint for a mistyped name: ` (did you mean A, B?)`, or nothing when no name is near."""
    names = list(names)
    alike = [other for other in names if other.casefold() == name.casefold()][:3]
    close = alike or difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first few of many names: `A, B, C and 17 more`."""
    names = list(names)
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


__all__ = ["VbprError", "counted", "errno_in", "first_line", "near", "some"]
