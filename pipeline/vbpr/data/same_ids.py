"""Whether a table and a catalogue of images or features write the ids of items alike.

`108775015` in the one and `0108775015` in the other are two items to a program: nobody takes the second, so every model
ranks it below what was taken, and its figures are better than they should be.
"""

import re

import numpy as np

from ..base.arrays import Strings
from ..base.errors import VbprError, counted
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


__all__ = ["refuse_other_names", "refuse_two_ways", "written_in_two_ways"]
