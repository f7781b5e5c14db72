"""Users and items by id, by position or by mask; what there is none of is refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.arrays import Array, Strings, composed
from ...base.errors import VbprError, near


def at_least_one(k: int) -> None:
    """
    Raises:
        VbprError: k is not positive.
    """
    if k < 1:
        raise VbprError(f"k is {k}; it must be at least 1")


def positions(at: Any, n: int, kind: str) -> Array:
    """Positions, or a mask, as int64 positions; one whole number gives one.

    Args:
        n: how many there are. kind: of what: "user" or "item".

    Raises:
        VbprError: there is no such position.
    """
    given = np.asarray(at)
    if given.dtype == bool:
        return np.flatnonzero(mask_of(given, n))
    if given.size and (given.dtype.kind not in "iu" or not 0 <= given.min() <= given.max() < n):
        raise VbprError(f"{kind}s are asked for by position, 0 to {n - 1:,}; ids are looked up by {kind}_indices")
    return given.astype(np.int64)


def positions_or_all(at: Any, n: int, kind: str) -> Array:
    """(m,) the same, where None stands for all n."""
    return np.arange(n) if at is None else np.atleast_1d(positions(at, n, kind))


def mask_of(allowed: Any, n: int) -> Array:
    """A mask (n,) bool, as it was given.

    Raises:
        VbprError: it is none.
    """
    mask = np.asarray(allowed)
    if mask.dtype != bool or mask.shape != (n,):
        raise VbprError(
            f"a mask of {n:,} true or false is needed, one each; this is {mask.dtype} of shape {mask.shape} (of "
            "positions: mask = np.zeros(n, bool); mask[positions] = True)"
        )
    return mask


def index_of(ids: Strings | Array, wanted: str, kind: str, hint: str = "") -> int:
    """The position of an id.

    Args:
        ids: (n,) strings, or UTF-8 as it lies in a file.
        kind: of what: "user" or "item". hint: what the message for an unknown one ends with.

    Raises:
        VbprError: unknown; the message names near ids.
    """
    wanted = str(wanted)
    for spelt in (wanted, composed(wanted)):
        at = np.flatnonzero(ids == (spelt.encode("utf-8", "surrogatepass") if ids.dtype.kind == "S" else spelt))
        if len(at):
            break
    else:
        close = near(wanted, names_of(ids[:200_000]))
        raise VbprError(f"no {kind} '{wanted}' in this model of {len(ids):,} {kind}s{close}{hint}")
    return int(at[0])


def names_of(ids: Strings | Array) -> list[str]:
    """Ids, as strings or as UTF-8, as Python's.

    Raises:
        UnicodeDecodeError: they are no UTF-8.
    """
    return [name.decode() if isinstance(name, bytes) else name for name in ids.tolist()]


def check_held(held: str) -> None:
    """
    Raises:
        VbprError: these are no held-out items of a split.
    """
    if held not in ("test", "validation", "all"):
        raise VbprError(f"--held-out {held} is not known; choose test, validation or all")


def left_out(users: int) -> str:
    """Why a user may be unknown to a model whose split left out so many."""
    if not users:
        return ""
    return (
        f"; its split left out users with too few items ({users:,}): train with --split none, no --k-core, to have "
        "them, or ask by what they --liked"
    )


def indices_of(ids: Strings, wanted: Sequence[str], kind: str) -> Array:
    """(n,) int64 positions of several ids; see `index_of`."""
    wanted = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
    place = {name: n for n, name in enumerate(ids.tolist())} if len(wanted) > 8 else {}
    at = [place[name] if name in place else index_of(ids, name, kind) for name in wanted]
    return np.array(at, np.int64)


__all__ = [
    "at_least_one",
    "check_held",
    "index_of",
    "indices_of",
    "left_out",
    "mask_of",
    "names_of",
    "positions",
    "positions_or_all",
]
