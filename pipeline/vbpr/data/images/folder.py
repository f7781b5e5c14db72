"""Images in a folder, at any depth."""

import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from ...base.errors import VbprError, some
from ...base.files import read_bytes
from .source import HEAD, MAX_BYTES, REASONS_OF_OS, BadImage, Files, is_hidden, is_image_name, signature_of


class FolderFiles(Files):
    """Files at any depth below a folder, hidden ones left out."""

    def __init__(self, folder: Path) -> None:
        found: list[tuple[str, Any]] = []
        passed: Counter[str] = Counter()
        unreadable: list[str] = []
        root = os.path.join(folder, "")  # noqa: PTH118
        try:
            for base, below, files in os.walk(root, onerror=lambda error: unreadable.append(str(error.filename))):
                inside = base[len(root) :]
                # A folder called x.jpg is taken down too, to be reported: `read` refuses what is no regular file.
                names = [f for f in files if not is_hidden(f)] + [f for f in below if is_image_name(f)]
                found += [(os.path.join(inside, f), os.path.join(base, f)) for f in names]  # noqa: PTH118
                passed["links to folders"] += sum(os.path.islink(os.path.join(base, f)) for f in below)  # noqa: PTH114, PTH118
        except RecursionError as error:
            raise VbprError(f"{folder} has folders that lie too deep in each other; move the images up") from error
        if unreadable:
            raise VbprError(f"{some(unreadable)} cannot be listed; make it readable or move it away")
        super().__init__(str(folder), found, +passed)

    def read(self, i: int) -> bytes:
        try:
            return read_bytes(self.hows[i], MAX_BYTES)
        except MemoryError as error:
            raise BadImage("unreadable") from error
        except OSError as error:
            raise BadImage(REASONS_OF_OS.get(error.errno or 0, "unreadable")) from error

    def head(self, i: int) -> bytes:
        try:
            if not stat.S_ISREG(os.stat(self.hows[i]).st_mode):  # noqa: PTH116
                return b""
            with open(self.hows[i], "rb", buffering=0) as handle:  # noqa: PTH123
                return handle.read(HEAD) or b""
        except OSError:
            return b""

    def signature(self, i: int) -> int:
        try:
            status = os.stat(self.hows[i])  # noqa: PTH116
        except OSError:
            return 0
        return signature_of(status.st_size, status.st_mtime_ns)

    def size(self, i: int) -> int:
        try:
            return os.stat(self.hows[i]).st_size  # noqa: PTH116
        except OSError:
            return 0


def read_folder(path: Path) -> Files | None:
    folder = path / "images" if (path / "images").is_dir() else path
    return FolderFiles(folder) if folder.is_dir() else None


__all__ = ["FolderFiles", "read_folder"]
