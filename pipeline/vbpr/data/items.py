"""What is known of the items: titles, categories and any other column of a table."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ..base.arrays import Strings, composed
from ..base.errors import VbprError, counted, first_line
from ..base.progress import console
from .readers.columns import ITEM_COLUMNS, column_of, refuse_twins, without_floats
from .readers.delimited import header_of, why_unreadable
from .tables import UNFIT, in_memory


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
    "title": ["name", "productname", "prodname", "itemname", "producttitle", "articlename"],
    "category": ["producttype", "producttypename", "productcategory", "categoryname", "subcategory", "maincategory"],
}


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text, empty where there is nothing; bytes that are no UTF-8 are an ArrowInvalid."""
    column = pc.fill_null(pc.cast(column, pa.string()), "")
    column.validate(full=True)
    return column


@lru_cache(4)
def read_items(path: Path, changed: int) -> Items:
    """A table of items, read again when it has `changed`."""
    try:
        table = read_table(path)
        names = [name.strip().lower() for name in table.column_names]
        refuse_twins(path, names)
        table = table.rename_columns(names)
        key = column_of(names, ITEM_COLUMNS)
        if key is None:
            raise VbprError(f"{path} has no item_id column; it has {', '.join(names)}")
        ids = texts(without_floats(table[key])).to_pylist()
        if not "".join(ids).isascii():
            ids = [composed(name) for name in ids]
        if twins := len(ids) - len(set(ids)):
            console.print(f"note: {path} has {counted(twins, 'item')} more than once; the last line of each counts")
        columns = {name: texts(table[name]) for name in names if name != key and is_scalar(table[name].type)}
        for role, aliases in OTHER_NAMES.items():
            if (name := column_of(list(columns), aliases)) is not None:
                columns.setdefault(role, columns[name])
        return Items(ids, columns)
    except (*UNFIT, OSError) as error:
        why = f"{path} cannot be read ({first_line(error)})"
        if path.suffix != ".parquet":
            delimiter, names = header_of(path, delimiter_of(path))
            why = why_unreadable(path, delimiter, len(names), error)
        raise VbprError(f"{why}; or take it away: titles and categories can be done without") from error


def read_table(path: Path) -> pa.Table:
    """A table of items; every column of text files is text."""
    with in_memory(path) as handle:
        if path.suffix == ".parquet":
            return pyarrow.parquet.ParquetFile(handle).read()  # which, unlike `read_table`, takes two of one name
        delimiter, names = header_of(path, delimiter_of(path), "strict")
        if not names:
            raise VbprError(f"{path} is empty; give it a header with item_id and a line an item, or take it away")
        return pyarrow.csv.read_csv(
            handle,
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )


def delimiter_of(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","


def is_scalar(kind: pa.DataType) -> bool:
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return not (pa.types.is_nested(kind) or any(is_of(kind) for is_of in of_bytes))


def titles(items: Mapping[str, dict[str, str]], item_ids: Strings | Sequence[str]) -> list[str]:
    """A line of words for each item: its title, else its category, else nothing."""
    column = items.get("title") or items.get("category") or {}
    return [column.get(str(item), "") for item in item_ids]


__all__ = ["is_scalar", "read_items", "texts", "titles"]
