"""Train, validation and test as three files (RecBole, Elliot, LightGCN, Hugging Face): together they are one table.

data/ml.train.inter  data/ml.valid.inter  data/ml.test.inter        data/train.tsv  data/test.tsv
data/train/part-0.csv  data/test/part-0.csv
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...base.errors import VbprError
from ..tables import UNREADABLE, files_of, open_bytes, suffix_of
from ..values import SPLITS, Coded, Columns
from ..where import Rows
from .columns import ROLES, column_key
from .delimited import dialect_of
from .text import read_events

PART = re.compile(r"(.*?[._-])?(train|training|validation|valid|val|dev|test|testing)(?:[._-]\d.*)?", re.I)
CODES = SPLITS | {"training": 0, "dev": 1, "testing": 2}
LISTS = ".txt"  # LightGCN's: a line a user, the user's items after it
POSITIONS = ("user_id", "item_id", "rating", "timestamp")  # of columns without a header


def split_files(folder: Path, suffixes: Collection[str]) -> list[tuple[Path, int]]:
    """The files of a folder that hold the parts of one split, each with its code of `SPLITS`; none where train or test
    is missing.

    Raises:
        VbprError: there are two such splits.
    """
    splits: dict[tuple[str, str], list[tuple[Path, int]]] = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        bare = path.with_name(path.name.removesuffix(".gz").removesuffix(".zip"))
        match = PART.fullmatch(bare.stem)
        if match and bare.suffix.lower() in (*suffixes, LISTS) and path.is_file():
            splits[match[1] or "", bare.suffix.lower()].append((path, CODES[match[2].lower()]))
        elif match and not match[1] and path.is_dir():  # train/, valid/ and test/, each with tables
            files = [file for file, _ in files_of(path) if suffix_of(file) in suffixes]
            splits["", "/"] += [(file, CODES[match[2].lower()]) for file in files]
    found = [files for files in splits.values() if {0, 2} <= {code for _, code in files}]
    if len(found) > 1:
        raise VbprError(f"{folder} has {found[0][0][0].name} and {found[1][0][0].name}, two splits; move one away")
    return found[0] if found else []


def read_part(
    path: Path, code: int, reader: Callable[[Path, Mapping[str, str], Rows], Columns] | None, rows: Rows
) -> Columns:
    """The interactions in one part of a split, with or without a header; what the file has of splits is left alone.

    Args:
        reader: of files with a header; none for lists.
    """
    if reader is None:
        if rows:
            raise VbprError(f"{path} has no columns to choose rows by; leave {rows.option} out")
        columns = read_lists(path)
    elif path.suffix == ".parquet" or has_header(path):
        columns = reader(path, {}, rows)
    else:
        dialect = dialect_of(path, delimiter_of(path))
        names = [*POSITIONS, *(f"column {n}" for n in range(5, 99))][: len(dialect.names)]
        columns = read_events(path, dialect._replace(names=names, header=False), {}, rows)
    unread = {role: why for role, why in columns.unread.items() if role != "split"}
    return columns._replace(splits=np.full(len(columns.users.places), code, np.uint8), unread=unread)


def delimiter_of(path: Path) -> str:
    return "," if suffix_of(path) == ".csv" else "\t"


def has_header(path: Path, delimiter: str | None = None) -> bool:
    """Whether any field of the first row is the name of a column."""
    aliases = {alias for names in ROLES.values() for alias in names}
    return any(column_key(name) in aliases for name in dialect_of(path, delimiter or delimiter_of(path)).names)


def read_lists(path: Path) -> Columns:
    """Lines of fields with blanks between: a user and the user's items, or, where a user has several lines, a user, an
    item and what else there is."""
    try:
        with open_bytes(path) as handle:
            rows = [row for line in handle if (row := line.decode("utf-8").split())]
    except (UnicodeDecodeError, *UNREADABLE) as error:
        raise VbprError(f"{path} cannot be read ({error}); save it as UTF-8 text with a line a user") from error
    lists = len({row[0] for row in rows}) == len(rows)
    pairs = [(row[0], item) for row in rows for item in (row[1:] if lists else row[1:2])]
    if not pairs:
        raise VbprError(f"{path} has no items; a line is a user and the user's items, with blanks between")
    codes = [pa.array(column, pa.string()).dictionary_encode() for column in zip(*pairs, strict=True)]
    users, items = (Coded(column.dictionary, np.asarray(column.indices)) for column in codes)
    return Columns(users, items)


__all__ = ["POSITIONS", "delimiter_of", "has_header", "read_lists", "read_part", "split_files"]
