"""HDF5 files of ours: opened with checks that no forged or damaged file gets past; texts, ids and numbers in them."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .arrays import Strings
from .errors import VbprError, errno_in, first_line, some


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
        actual = kind_in(handle, Path(path)) or "nothing of vbpr's"
        if actual != kind:
            raise VbprError(f"{path} holds {actual}, not {kind}; {MAKES[kind]}")
    except BaseException:
        handle.close()
        raise
    return handle


def opened(path: Path, make: str) -> h5py.File:
    """Open an HDF5 file for reading.

    Args:
        make: how to get one, for the message.

    Raises:
        VbprError: there is none, or it cannot be read.
    """
    try:
        if path.is_symlink() and not path.exists():
            raise VbprError(f"{path} is a link to what is not there; {make}")
        if not path.exists():
            siblings = sorted(str(p) for p in path.parent.glob("*.h5")) if path.parent.is_dir() else []
            hint = f"; there is {some(siblings, 5)}" if siblings else ""
            raise VbprError(f"{path} does not exist{hint}; {make}")
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
    """What an open HDF5 file is: see `kind_of`."""
    try:
        return read_text(handle, "vbpr") if "vbpr" in handle.attrs else ""
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:  # h5py raises any of these
        raise VbprError(damaged(path, error)) from error


def damaged(path: Path, error: Exception, mend: str = "make it again") -> str:
    """The message for a file that cannot be read, and how to `mend` that."""
    if number := errno_in(error):  # the disk's fault, not the file's
        return cannot_be_read(path, number)
    return f"{path} is damaged ({first_line(error)}); {mend}"


def cannot_be_read(path: Path, number: int) -> str:
    """The message for a fault of the disk or of permissions (an errno)."""
    return f"{path} cannot be read ({os.strerror(number)}); mend its disk or permissions"


MAKES = {
    "features": "make one with `vbpr extract --backbone NAME --data FOLDER`, or `vbpr import FILE` for what you have",
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
        return decoded(data[:].astype(f"S{data.dtype.itemsize}"))
    except UnicodeDecodeError as error:
        raise VbprError(f"{path} is damaged: {name} is no UTF-8; make it again") from error


def decoded(strings: np.ndarray[Any, Any]) -> Strings:
    """UTF-8 of fixed length as strings.

    Raises:
        UnicodeDecodeError: it is none.
    """
    ascii = not len(strings) or strings.view(np.uint8).max() < 128
    return strings.astype(np.str_) if ascii else np.char.decode(strings, "utf-8")


def read_numbers(group: h5py.Group, name: str, shape: tuple[int | None, ...]) -> np.ndarray[Any, Any]:
    """Read an array of this shape, in which None stands for any length.

    Raises:
        KeyError, ValueError: there is no such array.
    """
    data = group[name]
    sound = isinstance(data, h5py.Dataset) and data.dtype.kind in "biuf" and len(data.shape or ()) == len(shape)
    if not sound or any(wanted not in (None, size) for size, wanted in zip(data.shape, shape, strict=True)):
        raise ValueError(f"{data.name} is no array of {shape}".replace("None", "any length"))
    if not is_whole(data):
        raise ValueError(f"{data.name} is not whole")
    return np.asarray(data[:])


def is_whole(data: h5py.Dataset) -> bool:
    """Whether the file holds as much as a data set's shape, which can be forged, says."""
    offset = data.id.get_offset()
    return not data.size or (offset is not None and offset + data.nbytes <= Path(data.file.filename).stat().st_size)


__all__ = [
    "check_closed",
    "damaged",
    "decoded",
    "encoded",
    "kind_in",
    "kind_of",
    "open_h5",
    "opened",
    "read_numbers",
    "read_strings",
    "read_text",
    "write_strings",
    "write_text",
]
