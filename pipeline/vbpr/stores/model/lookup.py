"""Users and items by id, by position or by mask; what there is none of is refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.arrays import Array, Strings, composed
from ...base.errors import VbprError, near


def at_least_one(k: int) -> None:
    if k < 1:
        raise VbprError(f"k is {k}; it must be at least 1")


def positions(at: Any, n: int, what: str) -> Array:
    """Positions, or a mask, as int64 positions; one whole number gives one.

    Raises:
        VbprError: there is no such position.
    """
    found = np.asarray(at)
    if found.dtype == bool:
        return np.flatnonzero(mask_of(found, n))
    if found.size and (found.dtype.kind not in "iu" or not 0 <= found.min() <= found.max() < n):
        raise VbprError(f"{what}s are asked for by position, 0 to {n - 1:,}; ids are looked up by {what}_indices")
    return found.astype(np.int64)


def mask_of(allowed: Any, n: int) -> Array:
    """
    Raises:
        VbprError: it is not (n,) bool.
    """
    mask = np.asarray(allowed)
    if mask.dtype != bool or mask.shape != (n,):
        raise VbprError(
            f"a mask of {n:,} true or false is needed, one each; this is {mask.dtype} of shape {mask.shape} (of "
            "positions: mask = np.zeros(n, bool); mask[positions] = True)"
        )
    return mask


def index_of(ids: Strings, wanted: str, what: str) -> int:
    wanted = str(wanted)
    found = np.flatnonzero(ids == wanted)
    if not len(found):
        found = np.flatnonzero(ids == composed(wanted))
    if not len(found):
        raise VbprError(f"no {what} '{wanted}' in this model of {len(ids):,} {what}s{near(wanted, ids[:200_000])}")
    return int(found[0])


def indices_of(ids: Strings, wanted: Sequence[str], what: str) -> Array:
    wanted = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
    place = {name: n for n, name in enumerate(ids.tolist())} if len(wanted) > 8 else {}
    at = [place[name] if name in place else index_of(ids, name, what) for name in wanted]
    return np.array(at, np.int64)


__all__ = ["at_least_one", "index_of", "indices_of", "mask_of", "positions"]
