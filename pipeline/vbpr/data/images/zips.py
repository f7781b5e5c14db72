"""Images in a zip."""

import os
import threading
import zipfile
from pathlib import Path

from ...base.errors import VbprError
from .source import MAX_BYTES, BadImage, ImageSource, Members, check_stamp, endings, is_image_name, signature_of, stamp
from .tars import FORGED


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


def read_zip(path: Path) -> ImageSource | None:
    path = path / "images.zip" if path.is_dir() else path
    return ZipImages(path) if path.suffix == ".zip" and path.is_file() else None


__all__ = ["ZipImages", "read_zip"]
