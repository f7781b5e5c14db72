"""Writing files so that a kill leaves the old or the new one: a temporary name, fsync, then a rename.

with replacing("artifacts/inc.model.h5") as temporary: ...
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from .errors import VbprError, errno_in, first_line
from .hdf5 import write_text
from .targets import check_table, check_target


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path | str, kind: str = "") -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is fsynced and renamed over `path`, on failure removed.

    `kind`: see `check_target`.
    """
    path = Path(path).resolve()  # of a link, what it points to is replaced
    check_target(path, kind)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user wants new files; some libraries make theirs private
        yield temporary
        with contextlib.suppress(OSError):
            temporary.chmod(stat.S_IMODE(mode))
            before = path.stat()  # what was private stays so
            os.chown(temporary, before.st_uid, before.st_gid)
            temporary.chmod(stat.S_IMODE(before.st_mode))
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except (OSError, RuntimeError) as error:
        cause = failed_write(error)
        if cause is None:
            raise
        raise VbprError(
            f"{path} could not be written ({cause}); free some space or choose another "
            "place, then run the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path | str, mark: str) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success its files are made durable and it takes the place of `path`, on
    failure it is removed.

    Args:
        mark: name of a file by which a folder of ours is known; another that is not empty is left alone.

    Raises:
        VbprError: there lies something else, or it cannot be written.
    """
    path = Path(path).resolve()
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not (path / mark).is_file())):
        what = "holds other files" if path.is_dir() else "is no folder"
        raise VbprError(f"{path} {what}; give --out a new or an empty folder, so that nothing is overwritten")
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.rglob("*")):
            sync(file)
        sync(temporary)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        sync(path.parent)
    except (OSError, RuntimeError) as error:
        cause = failed_write(error)
        if cause is None:
            raise
        raise VbprError(
            f"{path} could not be written ({cause}); free some space or choose another place, then run the same "
            "command again"
        ) from error
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def replace_text(path: Path | str, text: str, kind: str = "", errors: str = "strict") -> None:
    """Write a text file in UTF-8, all of it or nothing; see `replacing`; for `errors` see `open`."""
    with replacing(path, kind) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)


@contextlib.contextmanager
def replacing_table(path: Path | str, schema: Any) -> Iterator[Any]:
    """Yield pyarrow's writer of tables of this schema, one after another, to a new Parquet or CSV file in place of
    `path`.

    Raises:
        VbprError: see `check_table` and `replacing`.
    """
    import pyarrow.csv
    import pyarrow.parquet

    check_table(path)
    parquet = Path(path).suffix.lower() == ".parquet"
    new = pyarrow.parquet.ParquetWriter if parquet else pyarrow.csv.CSVWriter
    with replacing(path, "answers") as temporary, temporary.open("wb") as sink, new(sink, schema) as writer:
        yield writer


def failed_write(error: OSError | RuntimeError) -> str | None:
    """Why a write failed, in words; None for any other fault. HDF5 hides the number in the text of a RuntimeError."""
    if number := errno_in(error):
        return os.strerror(number)
    return (error.strerror or first_line(error)) if isinstance(error, OSError) else None


def read_bytes(path: Path | str, most: int) -> bytes:
    """The bytes of a regular file, or of what comes out of a shell's `<(command)`.

    Raises:
        OSError: it cannot be read, is a device or a pipe that nobody may ever write to, or has more than `most` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO that nobody writes to must not hang the run
    with os.fdopen(descriptor, "rb") as handle:
        status, pieces, size = os.fstat(descriptor), [], 0
        if stat.S_ISFIFO(status.st_mode) and str(Path(path).parent) in ("/dev/fd", "/proc/self/fd"):
            os.set_blocking(descriptor, True)
        elif not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENODEV, "not a regular file")
        step = max(2**16, min(most, status.st_size) + 1)
        while max(size, status.st_size) <= most:
            piece = handle.read(step)
            if piece is None:  # a file of the system that has nothing to say now
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            pieces.append(piece)
            size += len(piece)
            if len(piece) < step and size <= most:
                return b"".join(pieces)
        raise OSError(errno.EFBIG, f"more than {most:,} bytes")


def reserve(path: Path, size: int) -> None:
    """Check that the disk of `path` has room for `size` bytes: HDF5 may crash when it meets a full disk.

    Raises:
        OSError: it has not.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, max(1, size) + 2**20)
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing_h5(path: Path | str, kind: str, size: int) -> Iterator[h5py.File]:
    """Yield a new HDF5 file of ours, in place of `path` on success; see `replacing` and `reserve`.

    Args:
        size: bytes that will be written, about.
    """
    with replacing(path, kind) as temporary:
        reserve(temporary, size)
        with h5py.File(temporary, "w") as handle:
            write_text(handle, "vbpr", kind)
            yield handle


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where there is no such file, or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def digest(path: Path | str) -> str:
    """The BLAKE2b digest of a file (32 hexadecimal digits)."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


__all__ = [
    "digest",
    "read_bytes",
    "read_json",
    "replace_text",
    "replacing",
    "replacing_folder",
    "replacing_h5",
    "replacing_table",
    "reserve",
    "sync",
]
