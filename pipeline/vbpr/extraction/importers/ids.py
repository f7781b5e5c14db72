"""Whose each row of a matrix is: ids from lines of text, a column of a table, a map of numbers, an array.

ids_of_rows(Told(ids="items.txt"), 40, Path("image_feat.npy"))      # (40,) strings, and where they came from
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...base.arrays import Array, Strings, composed
from ...base.errors import VbprError, counted, first_line, some
from ...data.images.source import is_image_name, item_id_of
from ...data.items import read_table
from ...data.readers.columns import ITEM_COLUMNS, column_of
from ...data.texts import id_text
from .incoming import NUMBERS, Told

OTHER_IDS = ["id", "key", "name", "imagepath", "filename", "filepath", "path", "image", "file"]  # less sure names
BESIDE = ("items.txt", "item_ids.txt", "ids.txt", "i_id_mapping.csv", "item_list.txt", "items.csv")
LONGEST_ID = 1000
MAX_JSON = 2**28


def ids_of_rows(told: Told, n: int, source: Path) -> tuple[Strings, str]:
    """(n,) the ids of the rows of a source that does not hold them, and where they came from.

    Raises:
        VbprError: nobody says whose the rows are, or says it for another number of rows.
    """
    if not told.ids:
        near = [name for name in BESIDE if (source.parent / name).is_file()]
        raise VbprError(
            f"{source} has {counted(n, 'row')} and does not say whose they are; give --ids FILE (a line an item, or a "
            f"table: CSV, Parquet, MMRec's i_id_mapping.csv), or --ids {NUMBERS} if your item ids are the numbers of "
            "the rows, from 0. The order in which interactions name their items is not taken for it"
            + (f"; beside it lies {some(near)}" if near else "")
        )
    if told.ids == NUMBERS:
        return np.arange(n).astype(np.str_), "the numbers of the rows"
    path = Path(told.ids)
    if not path.is_file():
        raise VbprError(f"--ids {path} is no file; give one with an id a row, or --ids {NUMBERS}")
    columns = columns_of_file(path)
    if (mapped := by_number(columns, n, told, path)) is not None:
        return mapped
    if len(columns) == 1 and LINES not in columns and len(next(iter(columns.values()))) == n - 1:  # no header
        (first, column), *_ = columns.items()
        columns = {LINES: pa.chunked_array([pa.array([first], pa.string()), *id_text(column).chunks])}
    name = id_column(columns, told, path)
    refuse_other_order({other: columns[other] for other in columns if other != name}, n, path)
    of_column = f"column {name} of " * (name != LINES)
    ids, how = cleaned(columns[name], f"{of_column}{path}", f"{of_column}{path.name}")
    if len(ids) != n:
        header = "; is its first line a header?" if name == LINES and len(ids) == n + 1 else ""
        raise VbprError(f"{path} has {counted(len(ids), 'id')} for the {n:,} rows of {source}; give one a row{header}")
    return ids, how


LINES = ""  # the name of the column of a file without columns


def columns_of_file(path: Path) -> dict[str, pa.ChunkedArray]:
    """The columns of a file of ids, by name."""
    kind = path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
    try:
        if kind in ("csv", "tsv", "parquet", "inter"):
            table = read_table(path)
            return dict(zip(table.column_names, table.columns, strict=True))
        if kind == "npy":
            return {LINES: from_array(np.load(path, allow_pickle=False), str(path))}
        if kind == "json":
            return {LINES: from_json(path)}
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise VbprError(f"--ids {path} cannot be read ({first_line(error)}); give text in UTF-8, or a table") from error
    while lines and not lines[-1]:
        lines.pop()
    pairs = [line.replace("\t", " ").split() for line in lines]
    if len(pairs) > 1 and all(len(pair) == 2 for pair in pairs):  # LightGCN's list: an id and its number
        first, second = zip(*pairs, strict=True)
        titled = not any(column[0].isdigit() for column in (first, second))
        names = (first[0], second[0]) if titled else ("1", "2")
        return {
            name: pa.chunked_array([pa.array(column[titled:], pa.string())])
            for name, column in zip(names, (first, second), strict=True)
        }
    return {LINES: pa.chunked_array([pa.array(lines, pa.string())])}


def from_json(path: Path) -> pa.ChunkedArray:
    """A list of ids in JSON."""
    if path.stat().st_size > MAX_JSON:
        raise VbprError(f"--ids {path} is larger than {MAX_JSON:,} bytes; write a line an id instead")
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, list) or not all(isinstance(value, str | int) for value in values):
        raise VbprError(f"--ids {path} is no list of ids; write one, or a line an id")
    return pa.chunked_array([pa.array([str(value) for value in values], pa.string())])


def from_array(values: Array, what: str) -> pa.ChunkedArray:
    """A NumPy array of ids as a column.

    Raises:
        VbprError: it is none.
    """
    if values.ndim != 1 or values.dtype.kind not in "SUiuf":
        raise VbprError(f"{what} is {values.dtype} of shape {values.shape}; ids are one row of texts or whole numbers")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    return pa.chunked_array([pa.array(values.tolist() if values.dtype.kind == "U" else values)])


def by_number(columns: dict[str, pa.ChunkedArray], n: int, told: Told, path: Path) -> tuple[Strings, str] | None:
    """The ids of a table of two columns, one of them the numbers of the rows (MMRec's i_id_mapping.csv, LightGCN's
    item_list.txt): the other column, or the numbers where those are asked for or are what the data set has.

    None where it is no such table."""
    if len(columns) != 2 or LINES in columns:
        return None
    texts = {name: cleaned(column, f"{path}, column {name}")[0] for name, column in columns.items()}
    orders = {name: number for name, ids in texts.items() if (number := as_numbers(ids, n)) is not None}
    in_order = [name for name, number in orders.items() if np.array_equal(number, np.arange(n))]
    if not orders or (len(orders) == 2 and len(in_order) != 1):
        return None
    numbers = in_order[0] if len(orders) == 2 else next(iter(orders))
    names = next(name for name in columns if name != numbers)
    choice = told.id_column
    if choice and choice not in columns:
        raise VbprError(f"--id-column {choice}: {path} has no such column; it has {', '.join(columns)}")
    known = told.known
    if not choice and known is not None:
        choice = max((names, numbers), key=lambda name: int(np.isin(texts[name], known).sum()))
    ids = np.empty(n, texts[choice or names].dtype)
    ids[orders[numbers]] = texts[choice or names]
    return ids, f"column {choice or names} of {path.name}, rows by column {numbers}"


def refuse_other_order(columns: dict[str, pa.ChunkedArray], n: int, path: Path) -> None:
    """
    Raises:
        VbprError: a column beside the ids may be the numbers of the rows, and these are not those of the lines.
    """
    for name, column in columns.items():
        if not (pa.types.is_string(column.type) or pa.types.is_integer(column.type)):
            continue
        numbers = as_numbers(np.array(pc.fill_null(id_text(column), "").to_pylist(), np.str_), n)
        if numbers is not None and not np.array_equal(numbers, np.arange(n)):
            raise VbprError(
                f"{path}: column {name} holds each number from 0 to {n - 1:,} in another order than the lines. If it "
                "is the number of the row, give --ids a table of the ids and it alone; if not, one of the ids alone"
            )


def as_numbers(ids: Strings, n: int) -> Array | None:
    """These ids as the numbers 0 to n - 1, each once; None where they are others."""
    if len(ids) != n or not all(name.isascii() and name.isdigit() and len(name) < 19 for name in ids.tolist()):
        return None
    numbers = ids.astype(np.int64)
    return numbers if np.array_equal(np.sort(numbers), np.arange(n)) else None


def id_column(columns: dict[str, Any] | Sequence[str], told: Told, path: Path) -> str:
    """The name of the column of ids.

    Raises:
        VbprError: it is not told, and none is called so.
    """
    names = list(columns)
    if told.id_column:
        if told.id_column not in names:
            raise VbprError(f"--id-column {told.id_column}: {path} has no such column; it has {some(names, 8)}")
        return told.id_column
    found = column_of(names, [*ITEM_COLUMNS, *OTHER_IDS])
    if found is None and len(names) == 1:
        found = names[0]
    if found is None:
        raise VbprError(f"{path}: which column has the ids? Say it with --id-column; it has {some(names, 8)}")
    return found


def cleaned(column: pa.ChunkedArray, where: str, called: str = "") -> tuple[Strings, str]:
    """A column of ids by the one rule for ids, and where they are from (`called` so, else `where`); paths of pictures
    are their stems.

    Raises:
        VbprError: one is missing or no id; the message has its row.
    """
    try:
        texts = id_text(column)
    except pa.ArrowException as error:
        raise VbprError(f"{where} ({column.type}) holds no ids ({first_line(error)}); write them as text") from error
    texts = pc.fill_null(texts, "")
    bad = pc.or_(pc.equal(texts, ""), pc.match_substring_regex(texts, "[\0\r\n]"))
    bad = np.asarray(pc.or_(bad, pc.greater(pc.utf8_length(texts), LONGEST_ID)), bool)
    if bad.any():
        row = int(np.argmax(bad))
        raise VbprError(f"{where}: row {row + 1} is {str(column[row].as_py())[:60]!r}, which is no id; give it one")
    names = texts.to_pylist()
    if names and all(is_image_name(name) for name in names):
        return np.array([item_id_of(name) for name in names], np.str_), f"the stems of the paths in {called or where}"
    return np.array([composed(name) for name in names], np.str_), called or where


__all__ = ["cleaned", "from_array", "id_column", "ids_of_rows"]
