"""Any known layout into the canonical folder: `convert("AmazonFashion6ImgPartitioned.npy", "data/amazon-fashion")`."""

import dataclasses
import errno
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from ...base.errors import VbprError
from ..dataset import Dataset
from ..layouts import find, inner, nearest
from ..readers.columns import ITEM_COLUMNS, USER_COLUMNS, column_of
from ..where import ALL_ROWS, Rows
from .amazon_reviews import convert_reviews
from .any_layout import convert_layout
from .canonical import Conversion, shards, source_mark
from .dvbpr_npy import convert_npy
from .parquet_images import convert_parquet
from .polyvore import convert_polyvore, parts_of
from .tradesy import convert_tradesy


@dataclasses.dataclass(frozen=True)
class Converter:
    """An entry of CONVERTERS.

    Attributes:
        takes: whether a file or folder is of this format, by its name.
        run: (source, output folder) -> what was made; where `chooses`, with the rows to take as well.
        about: one line for the help.
        folders: whether a folder of such files is taken as well.
    """

    takes: Callable[[Path], bool]
    run: Callable[..., Conversion]
    about: str
    folders: bool = False
    chooses: bool = False


def is_json(path: Path) -> bool:
    return path.name.endswith((".json", ".json.gz", ".jsonl", ".jsonl.gz"))


CONVERTERS: dict[str, Converter] = {
    "dvbpr": Converter(
        lambda path: path.suffix == ".npy", convert_npy, "*ImgPartitioned.npy: the original data sets of DVBPR"
    ),
    "tradesy": Converter(
        lambda path: is_json(path) and path.name.startswith("tradesy"), convert_tradesy, "tradesy.json.gz"
    ),
    "amazon": Converter(
        is_json, convert_reviews, "Amazon reviews (.json, .jsonl, .gz), with meta_*.json beside them", chooses=True
    ),
    "polyvore": Converter(
        lambda path: path.is_dir() and bool(parts_of(path)), convert_polyvore, "Polyvore's outfits", folders=True
    ),
    "parquet": Converter(
        lambda path: (path.suffix == ".parquet" or path.is_dir()) and holds_images(path),
        convert_parquet,
        "Parquet files (or a folder of them) with a column of images",
        folders=True,
    ),
}


def is_layout(path: Path) -> bool:
    """Whether `--data` reads the interactions of a folder or file as it is."""
    if Dataset(path).canonical() is not None:
        return True
    found = find(path)
    if found is not None:
        return found.layout.read is not None
    return any(Dataset(folder).canonical() is not None for folder in inner(path))


def holds_images(path: Path) -> bool:
    """Whether a file or folder of Parquet files is of items: of no known layout, and without a column of users."""
    files = shards(path)
    if not files or (path.is_dir() and find(path) is not None):
        return False
    try:
        names = pyarrow.parquet.read_schema(files[0]).names
    except (pa.ArrowException, OSError):
        return True  # and its converter says what is wrong
    return not (column_of(names, USER_COLUMNS) and column_of(names, ITEM_COLUMNS))


def convert(source: Path | str, out: Path | str, rows: Rows = ALL_ROWS) -> Conversion:
    """Convert by the first converter that takes the source, or as any of the LAYOUTS; a finished conversion is left as
    it is.

    Args:
        rows: which rows of the interactions are taken.

    Raises:
        VbprError: no such source, no converter for it, a source that is damaged, or no memory left.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise VbprError(f"{source} does not exist; give the downloaded file itself")
    for converter in CONVERTERS.values():
        if converter.takes(source):
            if not (source.is_file() or converter.folders):
                raise VbprError(f"{source} is not a file")
            if rows and not converter.chooses:
                raise VbprError(f"{source} has no columns to choose rows by; leave {rows.option} out")
            try:
                return converter.run(source, out, rows) if converter.chooses else converter.run(source, out)
            except (MemoryError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.ENOMEM:
                    raise
                size = source_mark(source)["size"] / 2**30
                raise VbprError(
                    f"out of memory converting {source} ({size:,.1f} GB, and it takes about as much); stop other "
                    "programs or use a larger machine, then run the same command again to resume"
                ) from error
    if is_layout(source):
        return convert_layout(source, out, rows)
    if source.is_dir() and (found := find(source)) is not None:
        raise VbprError(f"{source} is {found.layout.about}; give convert the file itself: {found.file}")
    raise VbprError(f"{source}: no converter knows this format; {nearest(source)}")


__all__ = ["CONVERTERS", "Converter", "convert"]
