"""Checks of a place that is going to be written, made before any work: it can be written, and holds nothing else."""

import contextlib
import errno
import os
import re
import stat
from pathlib import Path

import h5py

from .errors import VbprError
from .hdf5 import kind_of


def check_table(path: Path | str, option: str = "--out") -> None:
    """Refuse a place where no table of answers can be written; see `check_target`.

    Raises:
        VbprError: the name of a table does not tell its format, or the place holds something else.
    """
    if Path(path).suffix.lower() not in (".parquet", ".csv"):
        raise VbprError(f"{option} {path}: give a name that ends in .parquet or .csv")
    check_target(Path(path), "answers", option)


def check_target(path: Path, kind: str = "", option: str = "--out") -> None:
    """Make the folder of `path`, and refuse a place that cannot be written, or holds something else, before any work.

    Args:
        kind: what is going to be written: of our HDF5 files see `open_h5`, of others `PLAIN`; "" for any other file.
        option: by which the user chose the place.

    Raises:
        VbprError: the folder cannot be made or written; or at `path` lies what is no file, or a file of another kind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.parent / f".{path.name}.{os.getpid()}.probe"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        fault = f"{path} cannot be written" if error.errno == errno.ENAMETOOLONG else f"{path.parent} is not writable"
        raise VbprError(f"{fault} ({error.strerror}); choose another place with {option}") from error
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:  # a link to itself
        raise VbprError(f"{path} cannot be written ({error.strerror}); choose another place with {option}") from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        fault = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise VbprError(f"{path} is {fault}; give {option} a file name")
    try:
        content = (kind_of(path) or "something else") if status.st_size else kind
    except VbprError as error:
        if h5py.is_hdf5(path):
            raise VbprError(f"{error}; or delete it, or choose another place with {option}") from error
        content = (plain_kind(path) if kind in PLAIN else "something else") if kind else ""
    if content != kind:
        raise VbprError(f"{path} is there and holds {content}; choose another place with {option}")


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
    if re.match(
        rb"((query|user_id),rank,item_id|user_id(,fallback)?,item_1|user_id,held_out,auc),", start.replace(b'"', b"")
    ):
        return "answers"
    from PIL import Image

    with contextlib.suppress(Exception), Image.open(path) as image:  # whatever Pillow raises of what is no picture
        return "a picture of ours" if image.getexif().get(SOFTWARE) == "vbpr" else "something else"
    return "something else"


__all__ = ["SOFTWARE", "check_table", "check_target"]
