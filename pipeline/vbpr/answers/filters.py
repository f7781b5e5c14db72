"""Which items may be answers: by category, by a list of ids from a file, and one of each group.

allowed(factors.item_ids, dataset.items(), category="Dress", ids=read_known("in-stock.txt", factors.item_ids))
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..base.arrays import Array, Strings, composed
from ..base.errors import VbprError, near, some
from ..base.files import read_bytes
from ..base.progress import console

LONGEST_LIST = 2**31  # bytes of a file of ids


def read_ids(path: Path | str) -> list[str]:
    """The ids in a text file, one a line; blank lines and spaces around an id do not count.

    Raises:
        VbprError: no such file, no text, or no id in it.
    """
    try:
        text = read_bytes(path, LONGEST_LIST).decode("utf-8-sig")
    except OSError as error:
        raise VbprError(f"{path} cannot be read ({error.strerror}); give a text file with one id a line") from error
    except UnicodeDecodeError as error:
        raise VbprError(f"{path} is not UTF-8 text; give a text file with one id a line") from error
    lines = text.split("\n")  # an id may hold what Unicode calls the end of one
    ids = [composed(line.strip()) for line in lines if line.strip()]
    if not ids:
        raise VbprError(f"{path} holds no ids; give a text file with one id a line")
    return ids


def read_known(path: Path | str, catalogue: Strings, kind: str = "items") -> list[str]:
    """The ids in a file that a model has, each once; prints how many it has not.

    Args:
        catalogue: (n,) the ids of the model. kind: of what they are: "items" or "users".

    Raises:
        VbprError: see `read_ids`; or the model has none of them.
    """
    ids = list(dict.fromkeys(read_ids(path)))
    in_catalogue = set(catalogue.tolist())
    strange = [name for name in ids if name not in in_catalogue]
    if len(strange) == len(ids):
        raise VbprError(f"none of the {kind} that {path} names are in this model ({some(strange)})")
    if strange:
        console.print(f"note: {path} names {kind} that are not in this model: {len(strange):,} ({some(strange)})")
    return [name for name in ids if name in in_catalogue]


def allowed(
    item_ids: Strings,
    items: Mapping[str, dict[str, str]],
    category: str | None = None,
    ids: Iterable[str] | None = None,
) -> Array | None:
    """(n,) bool, the items that may be answers; None where there is no condition.

    Args:
        items: what the data set says of its items: column -> item id -> text.
        category: a value of the column `category`, in any case.
        ids: the only ones; unknown ones among them do no harm.

    Raises:
        VbprError: nothing is left.
    """
    if category is None and ids is None:
        return None
    mask = np.ones(len(item_ids), bool)
    if category is not None:
        column = items.get("category")
        if column is None:
            has = f"its table of items has {some(items, 8)}: rename one" if items else "if that has moved, give --data"
            raise VbprError(
                f"--category needs an items.csv or items.parquet with a column `category` in the data set; {has}"
            )
        wanted, names = composed(category.strip()).casefold(), {value for value in column.values() if value}
        present = wanted in {name.casefold() for name in names}  # else there is no need to look at every item
        mask &= present and np.array([column.get(str(i), "").casefold() == wanted for i in item_ids], bool)
        if not mask.any():
            raise VbprError(f"no item has the category '{category}'{near(category, sorted(names))}")
    if ids is not None:
        mask &= np.isin(item_ids, np.array(list(ids), np.str_))
        if not mask.any():
            raise VbprError("none of the allowed ids is an item that could be an answer; check the list of ids")
    return mask


def groups_of(item_ids: Strings, items: Mapping[str, dict[str, str]], column: str) -> Array:
    """(n,) int64 from 0: items that have the same text in a column have the same number, others one of their own.

    Raises:
        VbprError: there is no such column.
    """
    texts = items.get(column.strip().lower())
    if texts is None:
        has = f"it has {some(items, 8)}" if items else "there is none; if the data set has moved, give --data"
        raise VbprError(f"--one-per {column} needs that column in the data set's items.csv or items.parquet; {has}")
    number: dict[object, int] = {}  # of each text, and of each item without one as a tuple, which is no text
    groups = [number.setdefault(texts.get(name) or (name,), len(number)) for name in item_ids.tolist()]
    return np.array(groups, np.int64)


__all__ = ["allowed", "groups_of", "read_ids", "read_known"]
