"""Where the images are: folders at any depth, tars and zips, read one item at a time.

source = open_images("data/images"); data = source.read(0)
"""

import contextlib
import errno
import hashlib
import itertools
import os
import re
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np

from .base.arrays import Strings, composed
from .base.errors import VbprError, some
from .base.files import read_bytes

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


class FolderImages(Members):
    """Image files at any depth below a folder."""

    def __init__(self, folder: Path) -> None:
        found: list[tuple[str, Any]] = []
        others: Counter[str] = Counter()
        unreadable: list[str] = []
        try:
            for base, below, files in os.walk(folder, onerror=lambda error: unreadable.append(str(error.filename))):
                # A folder called x.jpg is taken down too, to be reported: `read` refuses what is no regular file.
                found += [(os.path.join(base, f), None) for f in files + below if is_image_name(f)]  # noqa: PTH118
                others += endings(files)
                others["links to folders"] += sum(os.path.islink(os.path.join(base, f)) for f in below)  # noqa: PTH114, PTH118
        except RecursionError as error:
            raise VbprError(f"{folder} has folders that lie too deep in each other; move the images up") from error
        if unreadable:
            raise VbprError(f"{some(unreadable)} cannot be listed; make it readable or move it away")
        super().__init__(str(folder), found, +others)

    def read(self, i: int) -> bytes:
        try:
            return read_bytes(self.members[i][0], MAX_BYTES)
        except MemoryError as error:
            raise BadImage("unreadable") from error
        except OSError as error:
            raise BadImage(REASONS_OF_OS.get(error.errno or 0, "unreadable")) from error

    def signature(self, i: int) -> int:
        try:
            status = os.stat(self.members[i][0])  # noqa: PTH116
        except OSError:
            return 0
        return signature_of(status.st_size, status.st_mtime_ns)


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


FORGED = (ValueError, OverflowError, NotImplementedError, RecursionError)  # what numbers in forged headers provoke


class TarImages(Members):
    """Images inside uncompressed tars, read in place; nothing is ever extracted to the disk."""

    def __init__(self, tars: list[Path]) -> None:
        found: list[tuple[str, Any]] = []
        others: Counter[str] = Counter()
        seen: set[str] = set()
        self.stamps = {tar: stamp(tar.stat()) for tar in tars}
        for tar in tars:
            try:
                with tarfile.open(tar, "r:") as archive:
                    for member in archive:
                        if member.isdir():
                            continue
                        if member.issparse():  # it is not in the tar as it would be read
                            raise VbprError(f"{tar}: member {member.name!r} is sparse; make the tar again without -S")
                        if not member.isreg() or member.name.startswith("/") or ".." in member.name.split("/"):
                            raise VbprError(
                                f"{tar}: member {member.name!r} is a link or leads outside; make a tar of "
                                "plain files only"
                            )
                        if member.name in seen:
                            raise VbprError(f"{tar}: member {member.name!r} occurs twice; keep one")
                        seen.add(member.name)
                        if is_image_name(member.name):
                            found.append((member.name, (tar, member.offset_data, member.size, member.mtime)))
                        else:
                            others += endings([member.name])
                    archive.fileobj.seek(archive.offset)
                    if archive.fileobj.read(512) != bytes(512):  # tarfile takes a damaged header for the end
                        raise tarfile.ReadError(f"cut off or damaged at byte {archive.offset:,}")
                    after = archive.fileobj.read(2 * tarfile.RECORDSIZE)  # to which tars are filled up
                    if is_header(after.lstrip(b"\0")[: tarfile.BLOCKSIZE]):
                        raise VbprError(
                            f"{tar} holds another tar after its end; keep them apart, as images-1.tar and images-2.tar"
                        )
            except (tarfile.TarError, OSError, EOFError, *FORGED) as error:
                raise VbprError(
                    f"{tar} is not a readable uncompressed tar ({error}); make it again with tar -cf"
                ) from error
        super().__init__(str(tars[0]) if len(tars) == 1 else f"{tars[0].parent} ({len(tars)} tars)", found, others)

    def read(self, i: int) -> bytes:
        tar, offset, size, _ = self.members[i][1]
        if size > MAX_BYTES:
            raise BadImage("over the cap on bytes")
        try:
            # Opened at each read: there may be more shards than open files allowed.
            with tar.open("rb", buffering=0) as handle:
                check_stamp(tar, self.stamps[tar], os.fstat(handle.fileno()))
                data = os.pread(handle.fileno(), size, offset)
        except OSError as error:
            raise BadImage("unreadable") from error
        if len(data) < size:
            raise BadImage("truncated")
        return data

    def signature(self, i: int) -> int:
        _, _, size, mtime = self.members[i][1]
        return signature_of(size, mtime)


def is_header(block: bytes) -> bool:
    with contextlib.suppress(tarfile.HeaderError):
        return bool(tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape"))
    return False


class ZipImages(Members):
    """Images inside a zip, read in place."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
            listed = self.archive.infolist()
            infos = [info for info in listed if is_image_name(info.filename)]
            self.path, self.stamp = path, stamp(os.fstat(self.archive.fp.fileno()))  # type: ignore[union-attr]
        except (zipfile.BadZipFile, OSError, *FORGED) as error:
            raise VbprError(f"{path} is not a readable zip ({error}); make it again") from error
        for info in infos:
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # Python does not bound the others
                raise VbprError(f"{path}: {info.filename!r} is neither stored nor deflated; make it again with zip -r")
        others = endings(info.filename for info in listed)
        super().__init__(str(path), [(info.filename, info) for info in infos], others)
        self.lock = threading.Lock()

    def read(self, i: int) -> bytes:
        info = self.members[i][1]
        if info.file_size > MAX_BYTES:
            raise BadImage("over the cap on bytes")
        if info.flag_bits & 1:
            raise BadImage("encrypted")
        try:
            check_stamp(self.path, self.stamp, os.fstat(self.archive.fp.fileno()))  # type: ignore[union-attr]
            with self.lock, self.archive.open(info) as member:
                data = member.read(info.file_size + 1)  # which may be forged: no more than that is inflated
                if len(data) < info.file_size:
                    raise BadImage("truncated")
                return data
        except (BadImage, VbprError):
            raise
        except (OSError, MemoryError) as error:
            raise BadImage("unreadable") from error
        except Exception as error:  # zipfile and its decompressors raise anything at all on damaged bytes
            raise BadImage("damaged") from error

    def signature(self, i: int) -> int:
        info = self.members[i][1]
        return signature_of(info.file_size, info.CRC)


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


def holdings(path: Path) -> list[str]:
    """What a canonical folder has its images in: images/, tars, images.zip; one of them, if all is well."""
    folder, archive = path / "images", path / "images.zip"
    tars = [tar.name for tar in sorted(path.glob("images*.tar"))]
    archives = tars[:1] + ["images.zip"] * (archive.exists() or archive.is_symlink())
    return ["images/"] * (folder.is_dir() or folder.is_symlink()) + archives


def open_images(path: Path | str, option: str = "--data") -> ImageSource:
    """Open the images under `path`: a tar, a zip, a folder of images, or a folder with `images/`, `images.tar`,
    `images*.tar` shards or `images.zip`.

    Args:
        option: by which the user gave it.

    Raises:
        VbprError: nothing there, or no image in it.
    """
    path = Path(path)
    folder, held = path / "images", holdings(path)
    for there in (path, folder, *path.glob("images*.tar"), path / "images.zip"):
        if there.is_symlink() and not there.exists():
            raise VbprError(f"{there} is a link to what is not there; is a disk not mounted?")
        may_be_folder = there in (path, folder)
        if there.exists() and not (there.is_file() or (may_be_folder and there.is_dir())):  # a pipe would be waited for
            what = "a folder" if there.is_dir() else "not a regular file"
            raise VbprError(f"{there} is {what}; move it away, or give {option} what is meant")
    if len(held) > 1:
        raise VbprError(f"{path} has {held[0]} and {held[1]}; give {option} the one that is meant, or move one away")
    for reader in IMAGE_READERS.values():
        source = reader(path)
        if source is not None and len(source):
            return source
    if not path.exists():
        raise VbprError(f"{path} does not exist; give {option} a folder of images, a tar or a zip")
    if path.is_file() and is_image_name(path.name):
        raise VbprError(f"{path} is one image; give {option} the folder that it is in")
    packed = next((p.name for p in sorted(path.glob("images*")) if p.suffix in PACKED), None)
    tables = path.suffix == ".parquet" or {p.name for p in path.glob("*.parquet")} - {
        "interactions.parquet",
        "items.parquet",
    }
    raise VbprError(
        f"no images found in {path}; looked for {', '.join(sorted(EXTENSIONS))} at any depth, images.tar, "
        "images*.tar and images.zip"
        + (f"; {packed} is packed: unpack it" if packed else "")
        + ("; images in Parquet files: run vbpr convert first" if tables else "")
    )


PACKED = {".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z", ".rar"}
NUMBERED = re.compile(r"(.*?)(\d+)\.tar$")


def read_tars(path: Path) -> ImageSource | None:
    if path.is_file():
        return TarImages([path]) if path.suffix == ".tar" else None
    tars = sorted(path.glob("images*.tar"))
    shards = sorted((found[1], int(found[2]), found[2]) for tar in tars if (found := NUMBERED.match(tar.name)))
    for (name, number, digits), (other, after, _) in itertools.pairwise(shards):
        if name == other and after != number + 1:
            missing = f"{name}{number + 1:0{len(digits)}}.tar"
            raise VbprError(f"{path} has {name}{digits}.tar and later ones but not {missing}; fetch the missing shards")
    return TarImages(tars) if tars else None


def read_zip(path: Path) -> ImageSource | None:
    path = path / "images.zip" if path.is_dir() else path
    return ZipImages(path) if path.suffix == ".zip" and path.is_file() else None


def read_folder(path: Path) -> ImageSource | None:
    folder = path / "images" if (path / "images").is_dir() else path
    return FolderImages(folder) if folder.is_dir() else None


IMAGE_READERS: dict[str, Callable[[Path], ImageSource | None]] = {
    "tar": read_tars,
    "zip": read_zip,
    "folder": read_folder,
}


__all__ = [
    "IMAGE_READERS",
    "LONGEST_ID",
    "MAX_BYTES",
    "PASSING",
    "REASONS",
    "BadImage",
    "FolderImages",
    "ImageSource",
    "Pixels",
    "TarImages",
    "ZipImages",
    "holdings",
    "is_image_name",
    "item_id_of",
    "open_images",
    "stamp",
]
