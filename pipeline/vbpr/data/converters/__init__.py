"""Any known layout into the canonical folder: `convert("AmazonFashion6ImgPartitioned.npy", "data/amazon-fashion")`."""

import dataclasses
import errno
from collections.abc import Callable
from pathlib import Path

from ...base.errors import VbprError
from .amazon_reviews import convert_reviews
from .canonical import Conversion, shards, source_mark
from .dvbpr_npy import convert_npy
from .parquet_images import convert_parquet
from .tradesy import convert_tradesy


@dataclasses.dataclass(frozen=True)
class Converter:
    """An entry of CONVERTERS.

    Attributes:
        takes: whether a file or folder is of this format, by its name.
        run: (source, output folder) -> what was made.
        about: one line for the help.
        folders: whether a folder of such files is taken as well.
    """

    takes: Callable[[Path], bool]
    run: Callable[[Path, Path], Conversion]
    about: str
    folders: bool = False


def is_json(path: Path) -> bool:
    return path.name.endswith((".json", ".json.gz"))


CONVERTERS: dict[str, Converter] = {
    "dvbpr": Converter(
        lambda path: path.suffix == ".npy", convert_npy, "*ImgPartitioned.npy: the original data sets of DVBPR"
    ),
    "tradesy": Converter(
        lambda path: is_json(path) and path.name.startswith("tradesy"), convert_tradesy, "tradesy.json.gz"
    ),
    "amazon": Converter(is_json, convert_reviews, "reviews_*.json.gz of 2014, with meta_*.json.gz beside it"),
    "parquet": Converter(
        lambda path: (path.suffix == ".parquet" or path.is_dir()) and bool(shards(path)),
        convert_parquet,
        "Parquet files (or a folder of them) with a column of images",
        folders=True,
    ),
}


def convert(source: Path | str, out: Path | str) -> Conversion:
    """Convert by the first converter that takes the source; a finished conversion is left as it is.

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
            try:
                return converter.run(source, out)
            except (MemoryError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.ENOMEM:
                    raise
                size = source_mark(source)["size"] / 2**30
                raise VbprError(
                    f"out of memory converting {source} ({size:,.1f} GB, and it takes about as much); stop other "
                    "programs or use a larger machine, then run the same command again to resume"
                ) from error
    known = "; ".join(converter.about for converter in CONVERTERS.values())
    raise VbprError(f"{source}: no converter knows this format; known are {known}")


__all__ = ["CONVERTERS", "Converter", "convert"]
