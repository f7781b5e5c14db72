"""How files come into being: written under a temporary name, made durable, then renamed, so a kill leaves old or new.

with replacing("artifacts/inc.model.h5") as temporary: ...
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import socket
import stat
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from .errors import VbprError, errno_in, first_line, some

Strings = np.ndarray[tuple[int], np.dtype[np.str_]]


def composed(text: str) -> str:
    """An id with its letters and their marks in one (Unicode's NFC): a Mac's file names have them apart, and nobody can
    see the difference."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def places(ids: Strings, wanted: Strings) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(n,) int64: where each id that is wanted stands among distinct ids, -1 where it does not."""
    order = np.argsort(ids, kind="stable")
    found = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(ids[found] == wanted, found, -1)


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


def replace_text(path: Path | str, text: str, kind: str = "", errors: str = "strict") -> None:
    """Write a text file, in UTF-8, whole or not at all; see `replacing`, and `open` of `errors`."""
    with replacing(path, kind) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)


def check_table(path: Path | str) -> None:
    """
    Raises:
        VbprError: the name of a table does not tell its format, or the place holds something else.
    """
    if Path(path).suffix.lower() not in (".parquet", ".csv"):
        raise VbprError(f"--out {path}: give a name that ends in .parquet or .csv")
    check_target(Path(path), "answers")


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


def check_target(path: Path, kind: str = "", option: str = "--out") -> None:
    """Make the folder of `path`, and refuse what cannot be written, or should not, before any work is done.

    Args:
        kind: what is going to be written: of our HDF5 files see `open_h5`, of others `PLAIN`; "" for any other file.
        option: by which the user chose the place.

    Raises:
        VbprError: the folder cannot be made or written; something is at `path` that is no file, or holds something
            else: of our files, another kind; for one of ours, anything at all.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.parent / f".{path.name}.{os.getpid()}.probe"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        what = f"{path} cannot be written" if error.errno == errno.ENAMETOOLONG else f"{path.parent} is not writable"
        raise VbprError(f"{what} ({error.strerror}); choose another place with {option}") from error
    try:
        there = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:  # a link to itself
        raise VbprError(f"{path} cannot be written ({error.strerror}); choose another place with {option}") from error
    if not stat.S_ISREG(there.st_mode):  # a pipe would be waited for
        what = "a folder" if stat.S_ISDIR(there.st_mode) else "not a regular file"
        raise VbprError(f"{path} is {what}; give {option} a file name")
    try:
        found = (kind_of(path) or "something else") if there.st_size else kind
    except VbprError as error:
        if h5py.is_hdf5(path):
            raise VbprError(f"{error}; or delete it, or choose another place with {option}") from error
        found = (plain_kind(path) if kind in PLAIN else "something else") if kind else ""
    if found != kind:
        raise VbprError(f"{path} is there and holds {found}; choose another place with {option}")


PLAIN = ("a page", "JSON", "answers", "tensors", "a picture of ours")
SOFTWARE = 305  # the tag of a picture that tells what made it


def plain_kind(path: Path) -> str:
    """Which of `PLAIN` a file is, by its content, or "something else"."""
    with path.open("rb") as handle:
        start = handle.read(2048)
    if b"<!doctype html" in start.lower():
        return "a page"
    if start.lstrip()[:1] in (b"{", b"["):
        return "JSON"
    if start[8:9] == b"{":
        return "tensors"
    if start.startswith(b"PAR1"):
        import pyarrow.parquet

        with contextlib.suppress(ValueError, OSError):
            start = ",".join(pyarrow.parquet.read_schema(path).names).encode()
    if re.match(rb"(query|user_id),rank,item_id,", start.replace(b'"', b"")):
        return "answers"
    from PIL import Image

    with contextlib.suppress(Exception), Image.open(path) as image:  # whatever Pillow raises of what is no picture
        return "a picture of ours" if image.getexif().get(SOFTWARE) == "vbpr" else "something else"
    return "something else"


def lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def locked(path: Path | str) -> Iterator[Callable[[], None]]:
    """Hold the right to write `path` (a lock file beside it; the kernel drops it when its holder dies).

    What it yields shares that right, from then on, with those who ask for it by `joined`.

    Raises:
        VbprError: another process holds it; the message names its pid and host.
    """
    path = Path(path).resolve()
    lock = lock_of(path)
    while True:
        try:
            how = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # neither a link nor a pipe to wait for
            handle = os.fdopen(os.open(lock, how, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise VbprError(f"{lock} cannot be opened ({error.strerror}); remove it or choose another place") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = repr((handle.read(200) or b"").decode(errors="replace").strip())[1:-1] or "another process"
            handle.close()
            raise VbprError(
                f"{path} is in use by {holder}; wait for it, or stop it and run the same command again to resume"
            ) from error
        except OSError as error:
            handle.close()
            lock.unlink(missing_ok=True)  # nobody can hold it
            raise VbprError(f"{lock} cannot be locked ({error.strerror}); choose a disk that has locks") from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                break
        handle.close()  # its last holder removed this very file between our open and our lock
    with handle:
        with contextlib.suppress(OSError):  # a full disk has no room even for that; what comes next will say so
            handle.truncate(0)
            handle.write(f"pid {os.getpid()} on {socket.gethostname()}".encode())
        own = re.compile(rf"\.{re.escape(path.name)}\.\d+\.(tmp|probe)")
        for left in lock.parent.glob(f".{glob.escape(path.name)}.*"):
            if own.fullmatch(left.name):  # of a run killed before its rename
                left.unlink(missing_ok=True)

        def admit() -> None:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:  # the kernel lets go of the one lock before it gives the other
                raise VbprError(f"{path} was taken by another process; wait for it, and run again") from error

        try:
            yield admit
        finally:
            release(handle, lock)


@contextlib.contextmanager
def joined(path: Path) -> Iterator[None]:
    """Hold the right to write `path` together with the process that shares it.

    Raises:
        VbprError: nobody does.
    """
    lock = lock_of(path)
    with contextlib.ExitStack() as held:
        why = ""
        try:
            handle = held.enter_context(lock.open("r+b", buffering=0))
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                why = "another run has begun"  # between our open and our lock
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            raise VbprError(f"{path} is not shared any more ({why}); run the same command again to resume")
        try:
            yield
        finally:
            release(handle, lock)


def release(handle: IO[bytes], lock: Path) -> None:
    """Take the lock file away, unless one who shares it is still at work."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
            lock.unlink()


def read_bytes(path: Path | str, most: int) -> bytes:
    """What is in a regular file, or comes out of a shell's `<(command)`.

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
    """See that `size` bytes can be had where `path` is going to be: HDF5 may crash when it meets a full disk.

    Raises:
        OSError: they cannot.
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


def artifact_name(backbone: str) -> str:
    """What a backbone's feature file is called, without `.h5`: `inc` for inception, else the backbone's own name."""
    return {"inception": "inc"}.get(backbone, backbone.replace("/", "_"))


def read_json(path: Path) -> dict[str, Any]:
    """What an earlier run wrote down; nothing where there is no such file, or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def digest(path: Path | str) -> str:
    """The BLAKE2b digest of a file (32 hexadecimal digits)."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def open_h5(path: Path | str, kind: str) -> h5py.File:
    """Open one of our HDF5 files for reading, refusing anything foreign or damaged.

    Args:
        kind: what the file must be: the value of its `vbpr` attribute ("features", "model" or "index").

    Raises:
        VbprError: no such file, not HDF5, not ours, or with links or storage that lead outside the file.
    """
    handle = opened(Path(path), MAKES[kind])
    try:
        check_closed(handle, Path(path))
        found = kind_in(handle, Path(path)) or "nothing of vbpr's"
        if found != kind:
            raise VbprError(f"{path} holds {found}, not {kind}; {MAKES[kind]}")
    except BaseException:
        handle.close()
        raise
    return handle


def opened(path: Path, make: str) -> h5py.File:
    try:
        if path.is_symlink() and not path.exists():
            raise VbprError(f"{path} is a link to what is not there; {make}")
        if not path.exists():
            siblings = sorted(str(p) for p in path.parent.glob("*.h5")) if path.parent.is_dir() else []
            there = f"; there is {some(siblings, 5)}" if siblings else ""
            raise VbprError(f"{path} does not exist{there}; {make}")
        if not path.is_file():  # a pipe would be waited for
            raise VbprError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; {make}")
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        if isinstance(error, BlockingIOError):
            raise VbprError(f"{path} is in use by another program; wait for it") from error
        if isinstance(error, OSError) and error.errno:
            raise VbprError(cannot_be_read(path, error.errno)) from error
        if "signature not found" in str(error):
            raise VbprError(f"{path} is no file of vbpr's; {make}") from error
        away = "under another name, or once this file is deleted"
        raise VbprError(f"{path} is not a readable HDF5 file ({first_line(error)}); {make}, {away}") from error


def kind_in(handle: h5py.File, path: Path) -> str:
    try:
        return read_text(handle, "vbpr") if "vbpr" in handle.attrs else ""
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:  # h5py raises any of these
        raise VbprError(damaged(path, error)) from error


def damaged(path: Path, error: Exception, mend: str = "make it again") -> str:
    if number := errno_in(error):  # the disk's fault, not the file's
        return cannot_be_read(path, number)
    return f"{path} is damaged ({first_line(error)}); {mend}"


def cannot_be_read(path: Path, number: int) -> str:
    return f"{path} cannot be read ({os.strerror(number)}); mend its disk or permissions"


MAKES = {
    "features": "make one with `vbpr extract --backbone NAME --data FOLDER`",
    "model": "make one with `vbpr train --features FILE`",
    "index": "make one with `vbpr index FILE`",
}


def kind_of(path: Path | str) -> str:
    """What one of our files is: "features", "model", "index" or "" (not ours).

    Raises:
        VbprError: no such file, or not HDF5.
    """
    with opened(Path(path), "give a file that `vbpr extract` or `vbpr train` made") as handle:
        return kind_in(handle, Path(path))


def check_closed(handle: h5py.File, path: Path) -> None:
    """Refuse a file that points outside itself: soft and external links, virtual or externally stored data sets."""

    seen = set()  # an object may have several names, and a group may even hold itself

    def visit(group: h5py.Group) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise VbprError(
                    f"{path} is refused: {group.name}/{name} is a link, not data; use a file that vbpr made"
                )
            value = group[name]
            place = h5py.h5o.get_info(value.id).addr
            if isinstance(value, h5py.Group):
                if place not in seen:
                    seen.add(place)
                    visit(value)
            elif not isinstance(value, h5py.Dataset):
                raise VbprError(f"{path} is refused: {value.name} is no data set; use a file that vbpr made")
            elif value.is_virtual or value.external:
                raise VbprError(f"{path} is refused: {value.name} lies in another file; use a file that vbpr made")

    try:
        visit(handle)
    except (OSError, KeyError, RuntimeError, RecursionError) as error:
        raise VbprError(damaged(path, error)) from error


def write_text(handle: h5py.File, name: str, text: str) -> None:
    """Set an attribute, of fixed length where HDF5 allows that: its heap for others can be forged to have no end."""
    handle.attrs[name] = np.bytes_(text.encode()) if len(text) < 30_000 else text


def read_text(handle: h5py.File, name: str) -> str:
    """Read what `write_text` wrote."""
    text = handle.attrs[name]
    if not isinstance(text, bytes | str):
        raise TypeError(f"{name} is no text")
    return text.decode() if isinstance(text, bytes) else text


def write_strings(group: h5py.Group, name: str, values: Strings) -> None:
    """Write strings as one fixed-length UTF-8 data set: readable by any HDF5 tool, and in one read."""
    group.create_dataset(name, data=encoded(values))


def encoded(values: Strings) -> np.ndarray[Any, Any]:
    """Strings as HDF5's fixed-length UTF-8."""
    strings = np.ascontiguousarray(values, np.str_)
    ascii = not len(strings) or strings.view(np.uint32).max() < 128  # as nearly all ids are, and then it is quick
    out = strings.astype(np.bytes_) if ascii else np.char.encode(strings, "utf-8")
    return out.astype(h5py.string_dtype("utf-8", max(1, out.dtype.itemsize)))


def read_strings(group: h5py.Group, name: str) -> Strings:
    """Read what `write_strings` wrote."""
    data = group.get(name)
    path = group.file.filename
    sound = isinstance(data, h5py.Dataset) and h5py.check_string_dtype(data.dtype) is not None
    if not sound or data.dtype.kind != "S" or data.ndim != 1 or data.shape is None:
        raise VbprError(f"{path} is damaged: {name} should be a list of strings; make it again")
    if not is_whole(data):
        raise VbprError(f"{path} is damaged: {name} is not whole; make it again")
    try:
        found = data[:].astype(f"S{data.dtype.itemsize}")
        ascii = not len(found) or found.view(np.uint8).max() < 128
        return found.astype(np.str_) if ascii else np.char.decode(found, "utf-8")
    except UnicodeDecodeError as error:
        raise VbprError(f"{path} is damaged: {name} is no UTF-8; make it again") from error


def read_numbers(group: h5py.Group, name: str, shape: tuple[int | None, ...]) -> np.ndarray[Any, Any]:
    """Read an array of this shape, in which None stands for any length.

    Raises:
        KeyError, ValueError: there is no such array.
    """
    data = group[name]
    sound = isinstance(data, h5py.Dataset) and data.dtype.kind in "biuf" and len(data.shape or ()) == len(shape)
    if not sound or any(wanted not in (None, own) for own, wanted in zip(data.shape, shape, strict=True)):
        raise ValueError(f"{data.name} is no array of {shape}".replace("None", "any length"))
    if not is_whole(data):
        raise ValueError(f"{data.name} is not whole")
    return np.asarray(data[:])


def is_whole(data: h5py.Dataset) -> bool:
    """Whether the file holds as much as a data set's shape, which can be forged, says."""
    offset = data.id.get_offset()
    return not data.size or (offset is not None and offset + data.nbytes <= Path(data.file.filename).stat().st_size)


__all__ = [
    "SOFTWARE",
    "Strings",
    "artifact_name",
    "check_table",
    "check_target",
    "composed",
    "damaged",
    "digest",
    "encoded",
    "joined",
    "kind_of",
    "locked",
    "open_h5",
    "places",
    "read_bytes",
    "read_json",
    "read_numbers",
    "read_strings",
    "read_text",
    "replace_text",
    "replacing",
    "replacing_h5",
    "replacing_table",
    "reserve",
    "sync",
    "write_strings",
    "write_text",
]
