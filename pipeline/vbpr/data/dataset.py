"""A data set: interactions, images and what is known of the items, from a folder or the embedded sample.

data = Dataset.resolve("sample"); data.interactions(); data.images(); data.items()["category"]
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import sample
from ..base.arrays import Strings
from ..base.errors import VbprError, some
from ..base.progress import console

if TYPE_CHECKING:  # of a data set, most commands want titles at most: readers and images are imported by who reads
    from .images.source import Images
    from .interactions import Interactions
    from .where import Rows


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A canonical folder: `interactions.{parquet,csv,tsv}` (`.csv.gz`, `.tsv.gz`) or `NAME.inter`, optional
    `items.{parquet,csv,tsv}`, and images as `images/`, `images.tar`, `images*.tar` or `images.zip`; or a folder of one
    of the LAYOUTS.

    Attributes:
        path: the folder (or an interactions file, or a folder, tar or zip of images alone).
        rows: which rows of the interactions are read; None: all.
        place: where the images lie, if not in `path`: another folder, tar or zip, or an address.
        id_field: of samples in tars, the field that is the item's id.
        simulated: whether its shoppers are simulated, which every table and page then says.
    """

    path: Path
    rows: "Rows | None" = None
    place: str | None = None
    id_field: str | None = None

    @classmethod
    def resolve(
        cls, source: "Dataset | Path | str | None", recorded: str | None = None, rows: "Rows | None" = None
    ) -> "Dataset":
        """The data set that a command means: its `--data`, else $VBPR_DATA, else the one `recorded` in a file, else
        the embedded sample. One that is resolved already is itself.

        Args:
            rows: which rows of its interactions are read; None: all.

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
            if (address := cls(path, rows, name)).images_alone():
                return address
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
        """What to call it: `sample`, its absolute path, or its address."""
        if self.images_alone():
            return str(self.place)
        return "sample" if self.simulated else str(self.path.resolve())

    def images_alone(self) -> bool:
        """Whether it is but images at an address, with no folder of this machine."""
        if self.place is None or self.path.exists():
            return False
        from .images.remote import is_remote

        return is_remote(self.place)

    @property
    def title(self) -> str:
        return "sample (simulated shoppers)" if self.simulated else self.path.resolve().name

    def interactions(self) -> "Interactions":
        """Read its interactions.

        Raises:
            VbprError: there are none, or two files of them, or they are malformed.
        """
        from .interactions import Interactions
        from .layouts import find, inner, nearest
        from .readers import INTERACTION_READERS
        from .where import ALL_ROWS

        if self.images_alone():
            raise VbprError(
                f"interactions are read from a folder of this machine; give --data one, and not {self.place}"
            )
        rows, file = self.rows or ALL_ROWS, self.canonical()
        if file is not None:
            return Interactions.read(file, rows)
        found = find(self.path)
        if found is not None:
            if found.layout.read is None:
                raise VbprError(
                    f"{self.path} is {found.layout.about}; run vbpr convert {found.file} FOLDER, and give FOLDER"
                )
            if found.root != self.path:
                console.print(f"note: {found.file} is read ({found.name})")
            return Interactions.read(found.file, rows, found.layout.read)
        if self.path.is_file():
            return Interactions.read(self.path, rows)  # which says what it is not
        for folder in inner(self.path):
            if Dataset(folder).canonical() is not None:
                return Dataset(folder, rows).interactions()
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
        from .layouts import find
        from .readers import INTERACTION_READERS
        from .readers.split_files import split_files
        from .tables import suffix_of

        if self.path.is_file():
            return self.path if suffix_of(self.path) in INTERACTION_READERS and find(self.path) is None else None
        if suffix_of(self.path) in INTERACTION_READERS:
            return self.path
        parts = [file for file, _ in split_files(self.path, INTERACTION_READERS)]
        files = [
            p
            for suffix in (*INTERACTION_READERS, *PACKED)
            for p in sorted(self.path.glob(f"*{suffix}"))
            if p.name == f"interactions{suffix}" or (suffix == ".inter" and p not in parts)
        ]
        file = only(self.path, files + [p for p in (self.path / "interactions",) if p.is_dir()] + parts[:1])
        if file is None and is_table_in_parts(self.path):
            return self.path
        return self.path if file in parts else file

    def images(self) -> "Images":
        """Open its images; see `open_images`."""
        from .images import open_images

        if self.place is None:
            return open_images(self.pictures(), known=self.known_items, field=self.id_field)
        return open_images(self.place, "--images", self.known_items, self.id_field, beside=self.path)

    def pictures(self) -> Path:
        """Where its images are: the folder itself, or one that its layout has for them."""
        from .images import holdings
        from .layouts import find

        found = find(self.path) if self.path.is_dir() and not holdings(self.path) else None
        if found is None:
            return self.path
        folders = [p for name in found.layout.images for p in sorted(found.root.glob(name)) if p.is_dir()]
        return folders[0] if folders else found.root

    def holds_images(self) -> bool:
        """Whether there are images beside the interactions."""
        from .images import holdings

        return self.path.is_dir() and (self.pictures() != self.path or bool(holdings(self.path)))

    def known_items(self) -> Strings | None:
        """The ids of the interactions' items; None where there are no interactions."""
        try:
            return self.interactions().item_ids
        except VbprError:  # pictures can be looked at without
            return None

    def items(self) -> Mapping[str, dict[str, str]]:
        """What `items.csv` or `items.parquet` says, or its layout's table of items: column (in lower case) -> item id
        -> text. Empty if there is no such file."""
        names = [f"items{suffix}" for suffix in (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz", "")]
        path = only(self.path, [path for name in names if (path := self.path / name).exists()])
        form = None
        if path is None and self.path.is_dir() and not self.simulated:
            from .layouts import find, only_match

            found = find(self.path)
            if found is not None:
                path, form = only_match(found.root, found.layout.items), found.layout.form
            elif named := sorted(self.path.glob("*.item")):
                path = only(self.path, named)
        if path is None:
            return {}
        from .items import read_items

        return read_items(path, path.stat().st_mtime_ns, form)

    def titles(self, item_ids: Iterable[object]) -> list[str]:
        """A line of words for each item: its title, else its category, else nothing."""
        items = self.items()
        column = items.get("title") or items.get("category") or {}
        return [column.get(str(item), "") for item in item_ids]


def is_table_in_parts(folder: Path) -> bool:
    """Whether a folder is itself a table in many files, by their names: `part-0000.parquet`, `year=2020/`."""
    from .readers import INTERACTION_READERS
    from .tables import files_of, suffix_of

    if not folder.is_dir() or not any(PART_NAME.match(path.name) for path in folder.iterdir()):
        return False
    return all(suffix_of(file) in INTERACTION_READERS for file, _ in files_of(folder))


PART_NAME = re.compile(r"(part|data|chunk|shard|export)[-_.]?\d+|[^=]+=.+|.*\d+-of-\d+", re.I)
PACKED = (".csv.gz", ".tsv.gz", ".csv.zip", ".tsv.zip")


def only(folder: Path, files: list[Path]) -> Path | None:
    if len(files) > 1:
        raise VbprError(f"{folder} has {files[0].name} and {files[1].name}; move one away")
    return files[0] if files else None


__all__ = ["Dataset"]
