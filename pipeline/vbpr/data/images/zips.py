"""Images in a zip."""

import contextlib
import os
import threading
import zipfile
from pathlib import Path

from ...base.errors import VbprError
from .source import HEAD, MAX_BYTES, BadImage, Files, check_stamp, is_hidden, is_image_name, signature_of, stamp
from .tars import FORGED


class ZipFiles(Files):
    """Files inside a zip, read in place."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
            infos = [info for info in self.archive.infolist() if not (info.is_dir() or is_hidden(info.filename))]
            self.path, self.stamp = path, stamp(os.fstat(self.archive.fp.fileno()))  # type: ignore[union-attr]
        except (zipfile.BadZipFile, OSError, *FORGED) as error:
            raise VbprError(f"{path} is not a readable zip ({error}); make it again") from error
        for info in infos:
            if is_image_name(info.filename):
                self.check(path, info)
        super().__init__(str(path), [(info.filename, info) for info in infos])
        self.lock = threading.Lock()

    def check(self, path: Path, info: zipfile.ZipInfo) -> None:
        """
        Raises:
            VbprError: a member is packed in a way that Python does not bound.
        """
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise VbprError(f"{path}: {info.filename!r} is neither stored nor deflated; make it again with zip -r")

    def read(self, i: int) -> bytes:
        info = self.hows[i]
        self.check(self.path, info)
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

    def head(self, i: int) -> bytes:
        with contextlib.suppress(Exception), self.lock, self.archive.open(self.hows[i]) as member:  # see `read`
            return member.read(HEAD)
        return b""

    def signature(self, i: int) -> int:
        info = self.hows[i]
        return signature_of(info.file_size, info.CRC)

    def size(self, i: int) -> int:
        return int(self.hows[i].file_size)

    def content(self, i: int) -> bytes:
        return int(self.hows[i].CRC).to_bytes(4, "little")  # beside the size; no need to unpack it


def read_zip(path: Path) -> Files | None:
    path = path / "images.zip" if path.is_dir() else path
    return ZipFiles(path) if path.suffix == ".zip" and path.is_file() else None


__all__ = ["ZipFiles", "read_zip"]
