"""A data set: interactions, images and what is known of the items, from a folder or the embedded sample.

data = Dataset.resolve("sample"); data.interactions(); data.images(); data.items()["category"]
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

from .. import sample
from ..base.errors import VbprError, some
from ..base.progress import console
from .images import holdings, open_images
from .images.source import ImageSource
from .interactions import Interactions
from .items import read_items
from .layouts import find, inner, nearest, only_match
from .readers import INTERACTION_READERS
from .readers.split_files import split_files
from .tables import files_of, suffix_of
from .where import ALL_ROWS, Rows


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A canonical folder: `interactions.{parquet,csv,tsv}` (`.csv.gz`, `.tsv.gz`) or `NAME.inter`, optional
    `items.{parquet,csv,tsv}`, and images as `images/`, `images.tar`, `images*.tar` or `images.zip`; or a folder of one
    of the LAYOUTS.

    Attributes:
        path: the folder (or an interactions file, or a folder, tar or zip of images alone).
        rows: which rows of the interactions are read.
        simulated: whether its shoppers are simulated, which every table and page then says.
    """

    path: Path
    rows: Rows = ALL_ROWS

    @classmethod
    def resolve(
        cls, source: "Dataset | Path | str | None", recorded: str | None = None, rows: Rows = ALL_ROWS
    ) -> "Dataset":
        """The data set that a command means: its `--data`, else $VBPR_DATA, else the one `recorded` in a file, else
        the embedded sample. One that is resolved already is itself.

        Args:
            rows: which rows of its interactions are read.

        Raises:
            VbprError: no such folder.
        """
        if isinstance(source, Dataset):
            return source
        if source == "":  # a shell's variable that was never set, and no wish for the sample
            raise VbprError("--data is empty; give a folder with interactions.csv and images/, or `sample`")
        name = str(source or os.environ.get("VBPR_DATA") or recorded or "sample")
        if name == "sample":
            return cls(sample.PATH, rows)
        path = Path(name)
        if not path.exists():
            raise VbprError(
                f"data set {name}{'' if source else ' ($VBPR_DATA)' if os.environ.get('VBPR_DATA') else ''} does not "
                "exist; give --data a folder with interactions.csv and images/, or `sample`"
            )
        return cls(path, rows)

    @classmethod
    def behind(cls, recorded: str, source: str | None = None) -> "Dataset":
        """The data set whose pictures and titles to show with a model or an index: `source` where it is given, else
        $VBPR_DATA, else the one on record ("" for none); one without anything where these are gone, or none is, which
        is no fault.

        Raises:
            VbprError: `source` does not exist.
        """
        if source is not None:
            return cls.resolve(source)
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
        file = self.canonical()
        if file is not None:
            return Interactions.read(file, self.rows)
        found = find(self.path)
        if found is not None:
            if found.layout.read is None:
                raise VbprError(
                    f"{self.path} is {found.layout.about}; run vbpr convert {found.file} FOLDER, and give FOLDER"
                )
            if found.root != self.path:
                console.print(f"note: {found.file} is read ({found.name})")
            return Interactions.read(found.file, self.rows, found.layout.read)
        if self.path.is_file():
            return Interactions.read(self.path, self.rows)  # which says what it is not
        for folder in inner(self.path):
            if Dataset(folder).canonical() is not None:
                return Dataset(folder, self.rows).interactions()
        tables = sorted(p.name for p in self.path.glob("*") if p.suffix in (*INTERACTION_READERS, ".gz", ".xlsx"))
        like = [name for name in tables if not name.startswith("items.")]
        raise VbprError(
            f"{self.path} has no interactions file; expected interactions.csv, .tsv or .parquet with "
            "the columns user_id and item_id"
            + (f", and there is {some(like)}: rename it" if like else "")
            + f"; {nearest(self.path)}"
        )

    def canonical(self) -> Path | None:
        """The file or folder of interactions under one of the names that `Interactions.read` knows.

        Raises:
            VbprError: there are two.
        """
        if self.path.is_file():
            return self.path if suffix_of(self.path) in INTERACTION_READERS and find(self.path) is None else None
        if suffix_of(self.path) in INTERACTION_READERS:
            return self.path
        parts = [file for file, _ in split_files(self.path, INTERACTION_READERS)]
        files = [
            p
            for suffix in SUFFIXES
            for p in sorted(self.path.glob(f"*{suffix}"))
            if p.name == f"interactions{suffix}" or (suffix == ".inter" and p not in parts)
        ]
        file = only(self.path, files + [p for p in (self.path / "interactions",) if p.is_dir()] + parts[:1])
        if file is None and is_table_in_parts(self.path):
            return self.path
        return self.path if file in parts else file

    def images(self) -> ImageSource:
        """Open its images; see `open_images`."""
        return open_images(self.pictures())

    def pictures(self) -> Path:
        """Where its images are: the folder itself, or one that its layout has for them."""
        found = find(self.path) if self.path.is_dir() and not holdings(self.path) else None
        if found is None:
            return self.path
        folders = [p for name in found.layout.images for p in sorted(found.root.glob(name)) if p.is_dir()]
        return folders[0] if folders else found.root

    def holds_images(self) -> bool:
        """Whether there are images beside the interactions."""
        return self.path.is_dir() and (self.pictures() != self.path or bool(holdings(self.path)))

    def items(self) -> Mapping[str, dict[str, str]]:
        """What `items.csv` or `items.parquet` says, or its layout's table of items: column (in lower case) -> item id
        -> text. Empty if there is no such file."""
        names = [f"items{suffix}" for suffix in (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz", "")]
        path = only(self.path, [path for name in names if (path := self.path / name).exists()])
        form = None
        if path is None and self.path.is_dir():
            found = find(self.path)
            if found is not None:
                path, form = only_match(found.root, found.layout.items), found.layout.form
            elif named := sorted(self.path.glob("*.item")):
                path = only(self.path, named)
        return {} if path is None else read_items(path, path.stat().st_mtime_ns, form)


def is_table_in_parts(folder: Path) -> bool:
    """Whether a folder is itself a table in many files, by their names: `part-0000.parquet`, `year=2020/`."""
    if not folder.is_dir() or not any(PART_NAME.match(path.name) for path in folder.iterdir()):
        return False
    return all(suffix_of(file) in INTERACTION_READERS for file, _ in files_of(folder))


PART_NAME = re.compile(r"(part|data|chunk|shard|export)[-_.]?\d+|[^=]+=.+|.*\d+-of-\d+", re.I)
SUFFIXES = (*INTERACTION_READERS, ".csv.gz", ".tsv.gz", ".csv.zip", ".tsv.zip")


def only(folder: Path, files: list[Path]) -> Path | None:
    if len(files) > 1:
        raise VbprError(f"{folder} has {files[0].name} and {files[1].name}; move one away")
    return files[0] if files else None


__all__ = ["Dataset"]
