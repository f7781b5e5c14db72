"""What a source of images is: files, the ids of their items in one fixed order, and when they change."""

import dataclasses
import errno
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np

from ...base.arrays import Array, Strings, composed
from ...base.errors import VbprError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
EXTENSIONS = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif"}
EXTENSIONS |= {".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
MAX_BYTES = 256 * 2**20
LONGEST_ID = 255
REASONS = (
    "empty file",
    "not an image",
    "truncated",
    "damaged",
    "encrypted",
    "over the cap on pixels",
    "over the cap on bytes",
    "over the cap on scans",
    "not a regular file",
    "no such file, or a dangling link",
    "no permission to read it",
    "unreadable",
    "values outside their range",
)


class BadImage(Exception):
    """One image that cannot be used; the text, one of `REASONS`, is what the summary and the feature file give."""


class ImageSource(Protocol):
    """Encoded images of a catalogue, one an item, in the order of their ids.

    `signature(i)` is a 64-bit number that changes when the image does (size and modification time; not its content);
    0 where there is nothing to look at: no such file, a folder that may not be entered, no bytes. `size(i)` is in
    bytes, `content(i)` a digest of them. `others`: files that are not named like an image, by ending (".heic": 3), and
    so passed over. `pictures`: all pictures, where an item has several; then each item's first is the one read here.
    `ahead`: how many images are best read at once; 0 where the threads that decode them are enough.
    """

    name: str
    others: Mapping[str, int]
    pictures: "Pictures | None"
    ahead: int

    @property
    def item_ids(self) -> Strings: ...

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes: ...

    def signature(self, i: int) -> int: ...

    def size(self, i: int) -> int: ...

    def content(self, i: int) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Every picture of a catalogue in which items have several.

    Attributes:
        source: each picture once, under its path as id.
        starts: (I + 1,), places: the pictures of item i are rows `places[starts[i]:starts[i + 1]]`, in their order.
    """

    source: "Images"
    starts: Array
    places: Array


def as_text(path: str) -> str:
    """A path as text; what is no UTF-8 in it is written with backslashes."""
    return composed(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def item_id_of(name: str) -> str:
    """The item id in a file's path: its stem."""
    return as_text(name.rsplit("/", 1)[-1].rsplit(".", 1)[0])


def is_image_name(name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and "." in base and "." + base.rsplit(".", 1)[1].lower() in EXTENSIONS


def is_hidden(name: str) -> bool:
    return name.rsplit("/", 1)[-1].startswith(".")


def endings(names: Iterable[str]) -> Counter[str]:
    """How many files there are of each ending; hidden ones are left out. Of `.jpg?width=300` what follows the sign is
    another for each file."""
    bases = (name.rsplit("/", 1)[-1] for name in names)
    tidy = (re.sub(r"\?.*", "?", base, flags=re.DOTALL) for base in bases if base and base[0] != ".")
    return Counter(PurePath(base).suffix.lower() or "no ending" for base in tidy)


class Files:
    """The files of a source, in the order of their paths, before it is known whose pictures they are.

    Attributes:
        name: what messages call the source.
        paths: of each file inside it. hows: whatever `read` needs of each.
        passed: what was passed over, by kind.
        tables: Parquet files that tell of the files by key: see `samples`.
    """

    ahead = 0
    tables: Sequence[Path] = ()

    def __init__(self, name: str, members: list[tuple[str, Any]], passed: Counter[str] | None = None) -> None:
        """
        Args:
            members: (path inside the source, whatever `read` needs) of each file.
        """
        self.name, self.passed = name, passed or Counter()
        members.sort(key=itemgetter(0))
        self.paths = [path for path, _ in members]
        self.hows = [how for _, how in members]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, i: int) -> bytes:
        """All bytes of a file.

        Raises:
            BadImage: it cannot be read.
        """
        raise NotImplementedError

    def head(self, i: int) -> bytes:
        """The first `HEAD` bytes of a file, which tell its kind; nothing where it cannot be read."""
        raise NotImplementedError

    def signature(self, i: int) -> int:
        """See `ImageSource`."""
        raise NotImplementedError

    def size(self, i: int) -> int:
        """Bytes of a file; 0 where there is nothing to look at."""
        raise NotImplementedError

    def content(self, i: int) -> bytes:
        """A digest of a file's bytes.

        Raises:
            BadImage: it cannot be read.
        """
        return hashlib.blake2b(self.read(i), digest_size=16).digest()


class Images:
    """Files of a source under the ids of their items: an `ImageSource`."""

    def __init__(
        self,
        files: Files,
        item_ids: Strings,
        rows: Array,
        others: Mapping[str, int],
        pictures: Pictures | None = None,
    ) -> None:
        """
        Args:
            rows: (I,) which of the files is the first picture of each item.
        """
        self.files, self.item_ids, self.rows, self.others, self.pictures = files, item_ids, rows, others, pictures
        self.name, self.ahead = files.name, files.ahead

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"{type(self.files).__name__}({self.name}, {len(self):,} images)"

    def read(self, i: int) -> bytes:
        return self.files.read(int(self.rows[i]))

    def signature(self, i: int) -> int:
        return self.files.signature(int(self.rows[i]))

    def size(self, i: int) -> int:
        return self.files.size(int(self.rows[i]))

    def content(self, i: int) -> bytes:
        return self.files.content(int(self.rows[i]))

    def paths_of(self, i: int) -> list[str]:
        """The files that are pictures of an item, in their order."""
        if self.pictures is None:
            return [self.files.paths[int(self.rows[i])]]
        source, starts = self.pictures.source, self.pictures.starts
        return [path for at in self.pictures.places[starts[i] : starts[i + 1]] for path in source.paths_of(int(at))]


HEAD = 16
KINDS = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|....ftypavif", re.DOTALL)


def is_image(head: bytes) -> bool:
    """Whether a file that begins so is an image of a kind that is looked at."""
    return bool(KINDS.match(head))


# Faults of the machine rather than of the image: the next run looks again.
PASSING = ("no such file, or a dangling link", "no permission to read it", "unreadable", "empty file")
REASONS_OF_OS = {
    errno.ENOENT: "no such file, or a dangling link",
    errno.ELOOP: "no such file, or a dangling link",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.EISDIR: "not a regular file",
    errno.ENXIO: "not a regular file",  # a socket, or a device without a driver
    errno.ENODEV: "not a regular file",
    errno.EFBIG: "over the cap on bytes",
}


def stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_stamp(path: Path, before: tuple[int, ...], status: os.stat_result) -> None:
    """
    Raises:
        VbprError: an archive is not the one whose list of members was read.
    """
    if stamp(status) != before:
        raise VbprError(f"{path} has changed since this run began; run the same command again")


def signature_of(size: int, more: float | str) -> int:
    number = hashlib.blake2b(f"{size} {more}".encode(), digest_size=8).digest()
    return int.from_bytes(number, "little") if size else 0


__all__ = [
    "EXTENSIONS",
    "HEAD",
    "LONGEST_ID",
    "MAX_BYTES",
    "PASSING",
    "REASONS",
    "REASONS_OF_OS",
    "BadImage",
    "Files",
    "ImageSource",
    "Images",
    "Pictures",
    "Pixels",
    "as_text",
    "check_stamp",
    "endings",
    "is_hidden",
    "is_image",
    "is_image_name",
    "item_id_of",
    "signature_of",
    "stamp",
]
