"""Whose picture each file is, as a table says: `images.csv` (`item_id,file[,position]`), the `image` column of
`items.csv`, or Hugging Face's `metadata.csv` and `metadata.jsonl` (`file_name`) among the images.

table = picture_table(folder)           # None where there is none
images = by_table(files, table)
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from ...base.arrays import composed
from ...base.errors import VbprError, counted, first_line, some
from ...base.progress import console
from ..items import read_table
from ..readers.columns import ITEM_COLUMNS, column_of, columns_of
from ..tables import UNFIT, files_of, with_columns
from ..texts import id_text, text
from .naming import Claim, images_of, looked_at
from .source import Files, Images, as_text

IMAGE_COLUMNS = ["image", "imagepath", "imagefile", "imagefilename", "imagename", "img", "imgpath", "picture", "photo"]
IMAGE_COLUMNS += ["filename", "images", "filenames"]  # of Hugging Face: one file, or a list of them
FILE_COLUMNS = ["file", "filepath", "path", *IMAGE_COLUMNS, "name", "url", "imageurl"]
POSITION_COLUMNS = ["position", "pos", "order", "rank", "view", "index", "sort"]
SUFFIXES = (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl")


class PictureTable(NamedTuple):
    """Rows of (item id, file, position); `base` is the folder that files are told from, and `only` whether there is no
    other way to know whose they are."""

    path: Path
    rows: list[tuple[str, str, float]]
    base: str = ""
    only: bool = True


def picture_table(folder: Path) -> PictureTable | None:
    """The table of a data set's pictures; of several that which is for nothing else.

    Raises:
        VbprError: two tables of one name, one that cannot be read, or `images.csv` without its two columns.
    """
    if not folder.is_dir():
        return None
    if (path := one_of(folder, "images")) is not None:
        table = read(path)
        item, file = table_columns(table, [*ITEM_COLUMNS, "id"], FILE_COLUMNS)
        if item is None or file is None:
            raise VbprError(
                f"{path} has no {'item_id' if item is None else 'file'} column; it has {some(table.column_names, 8)}; "
                "it says whose picture each file is: item_id,file and perhaps position"
            )
        return PictureTable(path, rows_of(path, table, item, file))
    if (found := metadata(folder)) is not None:
        return found
    if (path := one_of(folder, "items")) is not None:
        table = read(path)
        item, file = table_columns(table, ITEM_COLUMNS, IMAGE_COLUMNS)
        if item is not None and file is not None:
            return PictureTable(path, rows_of(path, table, item, file), only=False)
    return None


def metadata(folder: Path) -> PictureTable | None:
    """Hugging Face's tables beside the images of a folder, one a folder, if they have ids of items."""
    rows: list[tuple[str, str, float]] = []
    first = None
    root = folder / "images" if (folder / "images").is_dir() else folder
    places = [folder, root] if root != folder else [root]
    places += sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for place in places:
        if (path := one_of(place, "metadata")) is None:
            continue
        table = read(path)
        item, file = table_columns(table, [*ITEM_COLUMNS, "id"], ["filename", "filenames", *FILE_COLUMNS])
        if item is None or file is None:
            continue
        base = "" if place == folder else place.relative_to(root).as_posix().removeprefix(".")
        rows += [
            (name, f"{base}/{value}" if base else value, at) for name, value, at in rows_of(path, table, item, file)
        ]
        first = first or path
    return None if first is None else PictureTable(first, rows, only=False)


def one_of(folder: Path, stem: str) -> Path | None:
    found = [path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").exists()]
    if len(found) > 1:
        raise VbprError(f"{folder} has {found[0].name} and {found[1].name}; move one away")
    return found[0] if found else None


def read(path: Path) -> pa.Table:
    """
    Raises:
        VbprError: it cannot be read.
    """
    try:
        if path.suffix == ".jsonl":
            import pyarrow.json

            return pyarrow.json.read_json(path)
        parts = [with_columns(read_table(file), constants) for file, constants in files_of(path)]
        return pa.concat_tables(parts, promote_options="permissive")
    except (*UNFIT, OSError) as error:
        raise VbprError(f"{path} cannot be read ({first_line(error)}); mend it, or move it away") from error


def table_columns(table: pa.Table, items: Sequence[str], files: Sequence[str]) -> tuple[str | None, str | None]:
    """The names of the column of ids and of the column of files."""
    item = column_of(table.column_names, items)
    return item, next((name for name in columns_of(table.column_names, files) if name != item), None)


def rows_of(path: Path, table: pa.Table, item: str, file: str) -> list[tuple[str, str, float]]:
    """(item id, file, position) of each row that has both; a cell with a list is a row for each of its files."""
    try:
        ids = pc.fill_null(id_text(table[item]), "").to_pylist()
        cells: list[Any] = table[file].to_pylist() if nested(table[file].type) else text(table[file]).to_pylist()
        where = column_of(table.column_names, POSITION_COLUMNS)
        places = [0.0] * len(ids)
        if where is not None:
            places = pc.fill_null(pc.cast(text(table[where]), pa.float64()), float("inf")).to_pylist()
    except UNFIT as error:
        raise VbprError(f"{path} cannot be read ({first_line(error)}); mend it, or move it away") from error
    return [
        (composed(name), one, place)
        for name, cell, place in zip(ids, cells, places, strict=True)
        if name
        for one in each_of(cell)
    ]


def nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))


def each_of(cell: Any) -> Iterator[str]:
    """The files that a cell names: a list, a JSON list, `a.jpg|b.jpg`, or one."""
    if isinstance(cell, dict):  # Hugging Face's image: bytes, and the path
        cell = cell.get("path")
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            cell = [cell]
    values = cell if isinstance(cell, list) else re.split(r"[|;]", cell) if isinstance(cell, str) else []
    for value in values:
        if isinstance(value, dict):
            value = value.get("path")
        if isinstance(value, str) and value.strip():
            yield value.strip()


def by_table(files: Files, table: PictureTable) -> Images | None:
    """The images of a source as a table tells them; None where it names none of these files and need not.

    Raises:
        VbprError: it names none of these files, and is for nothing else.
    """
    wanted = [file for _, file, _ in table.rows]
    rows = locate(files, wanted)
    if not any(row >= 0 for row in rows):
        if not (table.only and len(files)):
            return None
        here = some((f"{file!r}" for file in wanted[:1]), 1) or "nothing"
        raise VbprError(
            f"none of the {counted(len(wanted), 'file')} that {table.path} names is in {files.name} (the first row has "
            f"{here}, and there is {as_text(files.paths[0])!r}); name them from {files.name} on"
        )
    if missing := [file for file, row in zip(wanted, rows, strict=True) if row < 0]:
        console.print(
            f"note: {len(missing):,} of the {counted(len(wanted), 'file')} that {table.path} names are not in "
            f"{files.name} ({some(missing)})"
        )
    order = sorted((at, n) for n, (_, _, at) in enumerate(table.rows) if rows[n] >= 0)
    claims = dict.fromkeys(Claim(table.rows[n][0], rows[n]) for _, n in order)  # a row that is there twice is one
    used = {claim.row for claim in claims}
    idle = [row for row in looked_at(files) if row not in used]
    if idle:
        console.print(
            f"note: {table.path} does not say whose {counted(len(idle), 'image')} of {files.name} are "
            f"({some(as_text(files.paths[row]) for row in idle[:4])}); passed over"
        )
    return images_of(files, claims, files.passed.copy())


def locate(files: Files, wanted: Sequence[str]) -> list[int]:
    """Which file each of these texts means, -1 where none: by its path, by so much of its path as both have, by its
    name, or by its name without the ending; in one way for all, that by which most are found."""
    sample = wanted[:: max(1, len(wanted) // SAMPLE)]
    best: tuple[int, Callable[[str], str] | None, dict[str, int]] = (0, None, {})
    for of_file, of_text in WAYS:
        index: dict[str, int] = {}
        for row, path in enumerate(files.paths):
            key = of_file(as_text(path))
            index[key] = -1 if key in index else row  # of two alike it is open which is meant
        found = sum(index.get(of_text(one), -1) >= 0 for one in sample)
        if found > best[0]:
            best = found, of_text, index
        if found > ENOUGH * len(sample):
            break
    _, way, index = best
    return [-1] * len(wanted) if way is None else [index.get(way(one), -1) for one in wanted]


SAMPLE, ENOUGH = 1000, 0.9


def plain(value: str) -> str:
    """A path as it is inside a source: without the machine of an address, a slash in front, and with slashes alone."""
    value = re.sub(r"^[a-z0-9+]+://[^/]*/", "", value.replace("\\", "/"))
    return composed(re.sub(r"^(\.?/)+", "", value))


def without(folders: int) -> Callable[[str], str]:
    """A path without its first folders; without so many, it means nothing."""
    return lambda path: "/".join(plain(path).split("/")[folders:])


def base_name(path: str) -> str:
    return plain(path).rsplit("/", 1)[-1]


def of_address(path: str) -> str:
    """The name that an address ends in, without its question."""
    return unquote(base_name(path.split("?", 1)[0]))


def stem(path: str) -> str:
    return base_name(path).rsplit(".", 1)[0]


WAYS: list[tuple[Callable[[str], str], Callable[[str], str]]] = [
    (plain, plain),
    *((plain, without(folders)) for folders in (1, 2, 3, 4)),  # images/p/1.jpg, /home/me/images/p/1.jpg
    *((without(folders), plain) for folders in (1, 2)),
    (base_name, base_name),
    (base_name, of_address),
    (stem, base_name),  # without ending
    (stem, stem),
]

__all__ = ["SUFFIXES", "PictureTable", "by_table", "locate", "picture_table", "plain"]
