"""Images in a folder, at any depth."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from ...base.errors import VbprError, some
from ...base.files import read_bytes
from .source import MAX_BYTES, REASONS_OF_OS, BadImage, ImageSource, Members, endings, is_image_name, signature_of


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


def read_folder(path: Path) -> ImageSource | None:
    folder = path / "images" if (path / "images").is_dir() else path
    return FolderImages(folder) if folder.is_dir() else None


__all__ = ["FolderImages", "read_folder"]
