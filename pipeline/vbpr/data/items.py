"""What is known of the items: titles, categories and any other column of a table."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from ..base.arrays import composed
from ..base.errors import VbprError, counted, first_line
from ..base.progress import console
from .forms import Form, read_form
from .readers.columns import ITEM_COLUMNS, column_of, refuse_twins
from .readers.delimited import dialect_of, read_text, why_unreadable
from .tables import UNFIT, files_of, load, suffix_of, with_columns
from .texts import id_text, text


class Items(Mapping[str, dict[str, str]]):
    """Column -> item id -> text. Of a million items a column takes a second, so it is made when first asked for."""

    def __init__(self, ids: list[str], columns: dict[str, pa.ChunkedArray]) -> None:
        self.ids, self.columns, self.made = ids, columns, dict[str, dict[str, str]]()

    def __getitem__(self, name: str) -> dict[str, str]:
        if name not in self.made:
            tidy = pc.utf8_normalize(pc.utf8_trim_whitespace(self.columns[name]), form="NFC")  # as ids are
            self.made[name] = dict(zip(self.ids, tidy.to_pylist(), strict=True))
        return self.made[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


OTHER_NAMES = {  # of the columns that are shown or filtered by
    "title": ["name", "productname", "prodname", "itemname", "producttitle", "articlename", "movietitle"],
    "category": [
        "producttype",
        "producttypename",
        "productcategory",
        "categoryname",
        "subcategory",
        "maincategory",
        "genres",
    ],
}


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text, empty where there is nothing.

    Raises:
        pa.ArrowException: see `text`.
    """
    return pc.fill_null(text(column), "")


@lru_cache(4)
def read_items(path: Path, changed: int, form: Form | None = None) -> Items:
    """A table of items, read again when it has `changed`.

    Args:
        form: how it is written, where it has no header.
    """
    try:
        parts = [as_text(file, with_columns(read_table(file, form), constants)) for file, constants in files_of(path)]
        table = pa.concat_tables(parts, promote_options="default")
        ids = texts(table[KEY]).to_pylist()
        if not "".join(ids).isascii():
            ids = [composed(name) for name in ids]
        if twins := len(ids) - len(set(ids)):
            console.print(f"note: {path} has {counted(twins, 'item')} more than once; the last line of each counts")
        columns = {name: texts(table[name]) for name in table.column_names if name != KEY}
        for role, aliases in OTHER_NAMES.items():
            if (other := column_of(list(columns), aliases)) is not None:
                columns.setdefault(role, columns[other])
        return Items(ids, columns)
    except (*UNFIT, OSError) as error:
        why = f"{path} cannot be read ({first_line(error)})"
        if path.is_file() and suffix_of(path) != ".parquet":
            why = why_unreadable(path, dialect_of(path, delimiter_of(path)), error)
        raise VbprError(f"{why}; or take it away: titles and categories can be done without") from error


KEY = ""  # of the ids; no column of a file has this name


def as_text(path: Path, table: pa.Table) -> pa.Table:
    """The ids of a table, as `KEY`, and its other columns that have a text, under names in lower case; a column without
    one is no fault of theirs who want titles.

    Raises:
        VbprError: no column of ids, or two columns of one name.
    """
    names = [re.sub(r":(token|float)(_seq)?$", "", name.strip().lower()) for name in table.column_names]  # RecBole's
    refuse_twins(path, names)
    table = table.rename_columns(names)
    key = column_of(names, ITEM_COLUMNS)
    if key is None:
        raise VbprError(f"{path} has no item_id column; it has {', '.join(names)}")
    columns = {KEY: id_text(table[key])}
    for name in names:
        try:
            if name != key and is_scalar(table[name].type):
                columns[name] = text(table[name])
        except pa.ArrowException as error:
            console.print(f"note: {path}: column {name} ({table[name].type}) is left out ({first_line(error)})")
    return pa.table(columns)


def read_table(path: Path, form: Form | None = None) -> pa.Table:
    """A table of items; every column of text files is text."""
    if form is not None and (
        len(form.delimiter) > 1 or column_of(dialect_of(path, form.delimiter).names, ITEM_COLUMNS) is None
    ):
        return read_form(path, form)
    if suffix_of(path) == ".parquet":  # which, unlike `read_table`, takes two of one name
        return pyarrow.parquet.ParquetFile(pa.BufferReader(load(path))).read()
    dialect = dialect_of(path, delimiter_of(path), "strict")
    if not dialect.names:
        raise VbprError(f"{path} is empty; give it a header with item_id and a line an item, or take it away")
    table, _, notes = read_text(path, dialect)
    for note in notes:
        console.print(f"note: {path}: {note}")
    return table


def delimiter_of(path: Path) -> str:
    return "\t" if suffix_of(path) in (".tsv", ".inter", ".item") else ","


def is_scalar(kind: pa.DataType) -> bool:
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return not (pa.types.is_nested(kind) or any(is_of(kind) for is_of in of_bytes))


__all__ = ["KEY", "Items", "is_scalar", "read_items", "read_table", "texts"]
