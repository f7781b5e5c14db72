"""What a source of images is: its item ids in one fixed order, their bytes, and when they change."""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np

from ...base.arrays import Strings, composed
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
    """Encoded images of a catalogue, in one fixed order.

    `signature(i)` is a 64-bit number that changes when the image does (size and modification time; not its content);
    0 where there is nothing to look at: no such file, a folder that may not be entered, no bytes. `others`: files that
    are not named like an image, by ending (".heic": 3), and so passed over.
    """

    name: str
    others: Mapping[str, int]

    @property
    def item_ids(self) -> Strings: ...

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes: ...

    def signature(self, i: int) -> int: ...


def item_id_of(name: str) -> str:
    """The item id in a file's path: its stem. Names that are no UTF-8 are written with backslashes."""
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return composed(stem.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def is_image_name(name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and "." in base and "." + base.rsplit(".", 1)[1].lower() in EXTENSIONS


def endings(names: Iterable[str]) -> Counter[str]:
    """How many files are not named like an image, by the ending of their names; hidden ones are left out."""
    bases = (name.rsplit("/", 1)[-1] for name in names if not is_image_name(name))
    return Counter(PurePath(base).suffix.lower() or "no ending" for base in bases if base and base[0] != ".")


class Members:
    """What every source shares: names sorted by item id, one image an item."""

    def __init__(self, name: str, members: list[tuple[str, Any]], others: Counter[str]) -> None:
        """
        Args:
            members: (path inside the source, whatever `read` needs) of each image.
            others: see `ImageSource`.

        Raises:
            VbprError: two images claim one item id.
        """
        self.name = name
        self.others: Mapping[str, int] = others
        members.sort(key=lambda member: item_id_of(member[0]))
        ids = [item_id_of(path) for path, _ in members]
        for item in ids:  # they are kept in columns as wide as the longest, which end at a NUL
            if len(item) > LONGEST_ID or "\0" in item:
                raise VbprError(f"{name}: {item[:40]!r}... is no item id: over {LONGEST_ID} letters, or with a NUL")
        for (path, _), (other, _), a, b in zip(members, members[1:], ids, ids[1:], strict=False):
            if a == b:
                raise VbprError(f"{name}: {path} and {other} are both the image of item {a}; keep one")
        self.item_ids: Strings = np.array(ids, np.str_)
        self.members = members

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {len(self):,} images)"


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


def signature_of(size: int, more: float) -> int:
    number = hashlib.blake2b(f"{size} {more}".encode(), digest_size=8).digest()
    return int.from_bytes(number, "little") if size else 0


__all__ = [
    "EXTENSIONS",
    "LONGEST_ID",
    "MAX_BYTES",
    "PASSING",
    "REASONS",
    "REASONS_OF_OS",
    "BadImage",
    "ImageSource",
    "Members",
    "Pixels",
    "check_stamp",
    "endings",
    "is_image_name",
    "item_id_of",
    "signature_of",
    "stamp",
]
