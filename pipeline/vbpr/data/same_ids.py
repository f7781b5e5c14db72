"""Whether a table and a catalogue of images or features write the ids of items alike.

`108775015` in the one and `0108775015` in the other are two items to a program: nobody takes the second, so every model
ranks it below what was taken, and its figures are better than they should be.
"""

import re
import shlex

import numpy as np

from ..base.arrays import Strings
from ..base.errors import VbprError, counted, some
from ..base.progress import console

FEW = 0.1  # of the items; so many written in two ways are a note, more are refused


def plain_form(item: str) -> str:
    """An id without what programs add or drop: capitals, blanks, joints, zeros in front, `.0` behind."""
    return re.sub(r"[\s_-]", "", item.casefold()).removesuffix(".0").lstrip("0")


def written_in_two_ways(item_ids: Strings, other_ids: Strings) -> list[tuple[str, str]]:
    """Each id that the others lack with the one of theirs, which these lack, that differs in its writing alone."""
    absent, spare = np.setdiff1d(item_ids, other_ids), np.setdiff1d(other_ids, item_ids)
    if not (len(absent) and len(spare)):
        return []
    forms = {plain_form(item): item for item in spare.tolist()}
    return [(item, forms[form]) for item in absent.tolist() if (form := plain_form(item)) and form in forms]


def refuse_two_ways(item_ids: Strings, other_ids: Strings, others: str) -> None:
    """
    Args:
        item_ids: of the interactions. other_ids: of `others`, as the message calls them.

    Raises:
        VbprError: more than a few of the items have other names there; fewer are a note.
    """
    twins = written_in_two_ways(item_ids, other_ids)
    if twins:
        here, there = twins[0]
        message = (
            f"{len(twins):,} of the {counted(len(item_ids), 'item')} in the interactions are written in another way in "
            f"{others} (here {here}, there {there}), and would be two items each; write both ids alike"
        )
        if len(twins) > FEW * len(item_ids):
            raise VbprError(message)
        console.print(f"note: {message}")


def refuse_other_names(item_ids: Strings, other_ids: Strings, others: str) -> None:
    """
    Raises:
        VbprError: no item of the interactions has an image there, or see `refuse_two_ways`.
    """
    if not np.isin(item_ids, other_ids).any():
        here, there = next(iter(written_in_two_ways(item_ids, other_ids)), (item_ids[0], other_ids[0]))
        raise VbprError(
            f"none of the {len(item_ids):,} items in the interactions has an image in {others} (here {here}, there "
            f"{there}); name each image after its item, or take the interactions away"
        )
    refuse_two_ways(item_ids, other_ids, others)


def suffixed(item_ids: Strings, taken: Strings | None) -> dict[str, str]:
    """Items that are named like another one and a suffix (`i0_2`, `i0-150x150`, `i0 (1)`), each with that one: as a
    rule further pictures of it.

    Args:
        taken: the items of the interactions: somebody took the one, and nobody the other; None: all are alike.
    """
    bases = set((item_ids if taken is None else taken).tolist())
    found = {}
    for item in item_ids.tolist():
        if taken is None or item not in bases:
            cuts = [joint.start() for joint in JOINT.finditer(item) if joint.start()]
            base = next(
                (item[:cut] for cut in (cuts if taken is None else reversed(cuts)) if item[:cut] in bases), None
            )
            if base is not None:
                found[item] = base
    return found


JOINT = re.compile(r"[ _.(@-]+")


def note_suffixes(item_ids: Strings, other_ids: Strings, data: str) -> None:
    """Say how many items that nobody took are named like one that somebody took and a suffix: counted as products, they
    make all figures better than they should be.

    Args:
        item_ids: of the interactions. other_ids: of images or features. data: where the data set lies.
    """
    found = suffixed(other_ids, item_ids)
    if found:
        place = shlex.quote(data)
        names = some((f"{item} like {base}" for item, base in found.items()), 2)
        console.print(
            f"note: {counted(len(found), 'image')} of items that nobody took are named like another item and a suffix "
            f"({names}); if they are further pictures of these, vbpr pictures {place} --suffixes --out "
            f"{shlex.quote(data + '/images.csv')} makes a table that says so"
        )


__all__ = ["note_suffixes", "refuse_other_names", "refuse_two_ways", "suffixed", "written_in_two_ways"]
