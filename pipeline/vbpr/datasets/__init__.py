"""A data set: interactions, images and what is known of the items, from a folder or the embedded sample.

data = Dataset.resolve("sample"); data.interactions(); data.images(); data.items()["category"]
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from .. import sample
from ..base.arrays import Strings, composed
from ..base.errors import VbprError, counted, first_line, some
from ..base.progress import console
from ..images import ImageSource, open_images
from ..interactions import (
    INTERACTION_READERS,
    ITEM_COLUMNS,
    UNFIT,
    Interactions,
    column_of,
    header_of,
    in_memory,
    refuse_twins,
    why_unreadable,
    without_floats,
)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A canonical folder: `interactions.{parquet,csv,tsv}` (`.csv.gz`, `.tsv.gz`) or `NAME.inter`, optional
    `items.{parquet,csv,tsv}`, and images as `images/`, `images.tar`, `images*.tar` or `images.zip`.

    Attributes:
        path: the folder (or an interactions file, or a folder, tar or zip of images alone).
        simulated: whether its shoppers are simulated, which every table and page then says.
    """

    path: Path

    @classmethod
    def resolve(cls, source: "Dataset | Path | str | None", recorded: str | None = None) -> "Dataset":
        """The data set that a command means: its `--data`, else $VBPR_DATA, else the one `recorded` in a file, else
        the embedded sample. One that is resolved already is itself.

        Raises:
            VbprError: no such folder.
        """
        if isinstance(source, Dataset):
            return source
        if source == "":  # a shell's variable that was never set, and no wish for the sample
            raise VbprError("--data is empty; give a folder with interactions.csv and images/, or `sample`")
        name = str(source or os.environ.get("VBPR_DATA") or recorded or "sample")
        if name == "sample":
            return cls(sample.PATH)
        path = Path(name)
        if not path.exists():
            raise VbprError(
                f"data set {name}{'' if source else ' ($VBPR_DATA)' if os.environ.get('VBPR_DATA') else ''} does not "
                "exist; give --data a folder with interactions.csv and images/, or `sample`"
            )
        return cls(path)

    @classmethod
    def behind(cls, about: Mapping[str, Any], source: str | None = None) -> "Dataset":
        """The data set whose pictures and titles to show with a model (its `about`): `source` where it is given, else
        $VBPR_DATA, else the one on record; one without anything where these are gone, or none is, which is no fault.

        Raises:
            VbprError: `source` does not exist.
        """
        if source is not None:
            return cls.resolve(source)
        recorded = about.get("data")
        for name in (os.environ.get("VBPR_DATA"), recorded):
            with contextlib.suppress(VbprError):
                if name:
                    return cls.resolve(name)
        return cls(Path(str(recorded or "a data set not on record")))

    @property
    def simulated(self) -> bool:
        return self.path.resolve() == sample.PATH.resolve()

    @property
    def name(self) -> str:
        """What to call it: `sample`, or its absolute path."""
        return "sample" if self.simulated else str(self.path.resolve())

    @property
    def title(self) -> str:
        return "sample (simulated shoppers)" if self.simulated else self.path.resolve().name

    def interactions(self) -> Interactions:
        """Read its interactions.

        Raises:
            VbprError: there are none, or two files of them, or they are malformed.
        """
        if self.path.is_file():
            return Interactions.read(self.path)
        suffixes = [*INTERACTION_READERS, ".csv.gz", ".tsv.gz"]
        found = only(
            self.path,
            [
                p
                for suffix in suffixes
                for p in sorted(self.path.glob(f"*{suffix}"))
                if p.name == f"interactions{suffix}" or suffix == ".inter"
            ],
        )
        if found is None:
            tables = sorted(p.name for p in self.path.glob("*") if p.suffix in (*INTERACTION_READERS, ".gz", ".xlsx"))
            like = [name for name in tables if not name.startswith("items.")]
            raise VbprError(
                f"{self.path} has no interactions file; expected interactions.csv, .tsv or .parquet with "
                "the columns user_id and item_id" + (f", and there is {some(like)}: rename it" if like else "")
            )
        return Interactions.read(found)

    def images(self) -> ImageSource:
        """Open its images; see `open_images`."""
        return open_images(self.path)

    def items(self) -> Mapping[str, dict[str, str]]:
        """What `items.csv` or `items.parquet` says: column (in lower case) -> item id -> text. Empty if there is no
        such file."""
        names = ("items.parquet", "items.csv", "items.tsv")
        path = only(self.path, [path for name in names if (path := self.path / name).is_file()])
        return {} if path is None else read_items(path, path.stat().st_mtime_ns)


def only(folder: Path, found: list[Path]) -> Path | None:
    if len(found) > 1:
        raise VbprError(f"{folder} has {found[0].name} and {found[1].name}; move one away")
    return found[0] if found else None


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


__all__ = ["Dataset", "is_scalar", "texts", "titles"]
