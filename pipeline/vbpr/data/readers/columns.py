"""Which column of a table is the user, the item, the time and the split, and what its values mean."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...base.arrays import Array
from ...base.errors import VbprError, first_line, some
from ..tables import UNFIT
from ..texts import categories, id_text, text
from ..times import seconds
from ..values import SPLITS, Coded, Columns

# What the field calls its columns, as `column_key` writes it; the first that is there is taken.
USER_COLUMNS = ["userid", "user", "uid", "reviewerid", "customerid", "visitorid", "accountid", "customer", "account"]
ITEM_COLUMNS = ["itemid", "item", "iid", "asin", "parentasin", "articleid", "productid", "movieid", "videoid"]
ITEM_COLUMNS += ["sku", "stockcode", "isbn", "article", "product"]
TIME_COLUMNS = ["timestamp", "time", "ts", "tdat", "date", "datetime", "unixreviewtime", "invoicedate", "orderdate"]
CODED_SPLIT = "xlabel"  # MMRec's, of numbers: 0 train, 1 validation, 2 test
SPLIT_COLUMNS = ["split", CODED_SPLIT, "subset"]
ROLES = {"user_id": USER_COLUMNS, "item_id": ITEM_COLUMNS, "timestamp": TIME_COLUMNS, "split": SPLIT_COLUMNS}


def column_key(name: str) -> str:
    """A column's name without capitals, blanks, joints and RecBole's type: `User-ID`, `userId` and `user_id:token` are
    one."""
    return re.sub(r"[\s_.-]", "", re.sub(r":(token|float)(_seq)?$", "", name.strip().lower()))


def columns_of(names: Sequence[str], aliases: Sequence[str]) -> list[str]:
    """The columns that go by one of these aliases, in the order of the aliases."""
    return sorted((name for name in names if column_key(name) in aliases), key=lambda n: aliases.index(column_key(n)))


def column_of(names: Sequence[str], aliases: Sequence[str]) -> str | None:
    """The column that goes by the first of these aliases that is there; None where none is."""
    return next(iter(columns_of(names, aliases)), None)


def match_columns(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The columns of the file that may be the user, the item, the time and the split, best known name first.

    Raises:
        VbprError: no user or item column, or two of one name; the message lists what was found.
    """
    matched = {role: columns_of(names, aliases) for role, aliases in ROLES.items()}
    missing = next((role for role in ("user_id", "item_id") if not matched[role]), None)
    if missing is not None:
        raise VbprError(f"{path} {why_unmatched(names, missing, bool(all_of(matched)))}")
    refuse_twins(path, [name for name in names if name in all_of(matched)])
    return {role: columns for role, columns in matched.items() if columns}


def all_of(matched: dict[str, list[str]]) -> list[str]:
    """Every column that `match_columns` found."""
    return list(itertools.chain.from_iterable(matched.values()))


def why_unmatched(names: Sequence[str], missing: str, some_match: bool) -> str:
    """What a table without a user or an item column looks like, and the cure."""
    shown = some((repr(name)[1:-1] for name in names), 8)
    if any(sign in "".join(names) for sign in "\0\ufffd"):
        return "is not UTF-8 text, or packed; unpack it and save it as UTF-8"
    if len(names) == 1 and (sign := re.search(r"\S(::|[ ]+)\S", names[0])):
        what = "'::'" if sign[1] == "::" else "blanks"
        return (
            f"seems to have {what} between its fields: its first line is {shown}; write tabs instead, as by "
            f"sed -E 's/{'::' if sign[1] == '::' else ' +'}/\\t/g' FILE > interactions.tsv"
        )
    if len(names) > 1 and not some_match and any(re.search(r"\d", name) for name in names):
        return (
            f"seems to have no header: its first line is {shown}; put a line with the names of its columns in front, "
            "such as user_id, item_id and timestamp"
        )
    return f"has no {missing} column; it has {shown}; rename one to {missing}"


def refuse_twins(path: Path, names: Sequence[str]) -> None:
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin is not None:
        raise VbprError(f"{path} has two columns called {twin!r}; rename or remove one")


NO_ROWS = "has a header but no rows; it needs a line an interaction"
LONGEST_ID = 1000
ID = (
    "an id is text or a whole number that its type keeps exactly, without a NUL or a line break (a quote never "
    f"closed?), of up to {LONGEST_ID:,} letters; give it one, or remove the row"
)
TIME = "a time is a number of seconds or a date such as 2020-07-31, and all are alike"
SPLIT = "it must be train, validation or test"


OPTIONAL = ("timestamp", "split")  # where they cannot be read, that matters to a split that needs them alone


def from_table(
    path: Path, table: Mapping[str, pa.ChunkedArray], matched: dict[str, list[str]], where: Callable[[int], str]
) -> Columns:
    """Convert the columns of a table, by name. Of several times the first that can be read is taken; where an optional
    column cannot be read, `Columns.unread` says why.

    Args:
        matched: see `match_columns`. where: says where in the file a row is.

    Raises:
        VbprError: a row without a user or an item, or with the header again.
    """
    taken: dict[str, tuple[str, Any]] = {}
    notes, unread = [], {}
    for role, names in matched.items():
        if role == "split" and not (names := [name for name in matched[role] if may_be_split(table[name], name)]):
            column = matched[role][0]
            held = repr(str(table[column][0]))
            notes.append(f"{column} holds {held:.40}, and no train, validation or test; left alone")
            continue
        faults = []
        for name in names if role in OPTIONAL else names[:1]:
            try:
                values, note = convert(path, table[name], role, name, where)
            except VbprError as error:
                faults.append(str(error))
                continue
            taken[role] = name, values
            others = [other for other in matched[role] if other != name]
            notes += [f"{name} is taken for the {role}, and {some(others)} left alone"] * bool(others)
            notes += [note] * bool(note)
            break
        else:
            if role not in OPTIONAL:
                raise VbprError(faults[0])
            unread[role] = faults[0]
    refuse_second_header(taken["user_id"], taken["item_id"], where)
    times, splits = (taken[role][1] if role in taken else None for role in OPTIONAL)
    named = {role: name for role, (name, _) in taken.items()}
    return Columns(taken["user_id"][1], taken["item_id"][1], times, splits, unread, tuple(notes), named)


def convert(path: Path, column: pa.ChunkedArray, role: str, name: str, where: Callable[[int], str]) -> tuple[Any, str]:
    """A column as its role has it, and a note on how it was read or nothing.

    Raises:
        VbprError: its type or one of its values is none of that role; the message has the first such row.
    """
    conversion, wanted = CONVERSIONS[role]
    try:
        values, bad, note = conversion(column, name)
    except UNFIT as error:
        why = f"column {name} ({column.type}) cannot be read ({first_line(error)})"
        raise VbprError(f"{path}: {why}; write it as text, for {wanted}") from error
    if bad.any():
        row = int(np.argmax(bad))
        value = str(column[row].as_py())[:100] if column[row].is_valid else ""
        raise VbprError(f"{where(row)}: {name} is {repr(value) if value else 'empty'}; {wanted}")
    return values, note


def refuse_second_header(users: tuple[str, Coded], items: tuple[str, Coded], where: Callable[[int], str]) -> None:
    """Files that were joined have one each.

    Raises:
        VbprError: a row holds the names of its columns.
    """
    rows = np.ones(len(users[1].places), bool)
    for name, column in (users, items):
        again = np.asarray(pc.equal(column.names, name))
        if not again.any():
            return
        rows &= again[column.places]
    if rows.any():
        raise VbprError(f"{where(int(np.argmax(rows)))}: the header is there again; remove the line")


def ids(column: pa.ChunkedArray, name: str) -> tuple[Coded, Array, str]:
    """A column of ids, and which are none: NumPy takes a NUL at the end for padding, and a stray quote takes the rows
    up to the next one for an id."""
    codes = categories(column if pa.types.is_dictionary(column.type) else id_text(column))
    names = pc.fill_null(id_text(pa.chunked_array([codes.dictionary])), "").combine_chunks()
    bad = pc.or_(pc.equal(names, ""), pc.match_substring_regex(names, "[\0\r\n]"))
    bad = pc.or_(bad, pc.greater(pc.utf8_length(names), LONGEST_ID))  # columns of ids are as wide as the longest
    bad_names = np.append(np.asarray(bad, bool), True)  # the last is that of what is missing
    places = np.asarray(pc.fill_null(codes.indices, len(names)))
    return Coded(names, places), bad_names[places], ""


def times(column: pa.ChunkedArray, name: str) -> tuple[Array, Array, str]:
    values, note = seconds(column)
    return values, ~np.isfinite(values), note


def parts_of_split(column: pa.ChunkedArray, name: str) -> tuple[Array, Array, str]:
    """A column as the codes of `SPLITS`, and which of its words are not among them."""
    words, places = split_words(column, name)
    codes = np.array([split_codes(name).get(word, NO_PART) for word in words], np.uint8)[places]
    return np.where(codes == NO_PART, 0, codes).astype(np.uint8), codes == NO_PART, ""


NO_PART = 255


def may_be_split(column: pa.ChunkedArray, name: str) -> bool:
    """Whether any value of a column is a part of a split; a column of another kind has the name by chance."""
    try:
        return not split_codes(name).keys().isdisjoint(split_words(column, name)[0])
    except UNFIT:
        return True


def split_codes(name: str) -> dict[str, int]:
    return SPLITS | ({"0": 0, "1": 1, "2": 2} if column_key(name) == CODED_SPLIT else {})


def split_words(column: pa.ChunkedArray, name: str) -> tuple[list[str], Array]:
    """The distinct words of a column, and (n,) positions among them; the last is that of what is missing."""
    codes = categories(column if pa.types.is_dictionary(column.type) else text(column))
    words = pc.utf8_lower(pc.utf8_trim_whitespace(text(pa.chunked_array([codes.dictionary]))))
    if column_key(name) == CODED_SPLIT:
        words = pc.replace_substring_regex(words, r"\.0+$", "")
    return [word or "" for word in words.to_pylist()] + [""], np.asarray(pc.fill_null(codes.indices, len(words)))


CONVERSIONS: dict[str, tuple[Callable[[pa.ChunkedArray, str], tuple[Any, Array, str]], str]] = {
    "user_id": (ids, ID),
    "item_id": (ids, ID),
    "timestamp": (times, TIME),
    "split": (parts_of_split, SPLIT),
}

__all__ = [
    "ITEM_COLUMNS",
    "NO_ROWS",
    "OPTIONAL",
    "ROLES",
    "USER_COLUMNS",
    "all_of",
    "column_key",
    "column_of",
    "columns_of",
    "convert",
    "from_table",
    "match_columns",
    "refuse_twins",
]
