"""Images in tars, which are never unpacked."""

import contextlib
import itertools
import os
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

from ...base.errors import VbprError
from .source import MAX_BYTES, BadImage, ImageSource, Members, check_stamp, endings, is_image_name, signature_of, stamp

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


__all__ = ["FORGED", "TarImages", "read_tars"]
