"""Images in tars, which are never unpacked."""

import contextlib
import itertools
import os
import re
import tarfile
from pathlib import Path
from typing import Any

from ...base.errors import VbprError
from .source import HEAD, MAX_BYTES, BadImage, Files, check_stamp, is_hidden, signature_of, stamp

FORGED = (ValueError, OverflowError, NotImplementedError, RecursionError)  # what numbers in forged headers provoke


class TarFiles(Files):
    """Files inside uncompressed tars, read in place; nothing is ever extracted to the disk."""

    def __init__(self, tars: list[Path]) -> None:
        found: list[tuple[str, Any]] = []
        seen: set[str] = set()
        self.tables = [table for tar in tars if (table := tar.with_suffix(".parquet")).is_file()]
        self.stamps = {tar: stamp(tar.stat()) for tar in tars}
        for tar in tars:
            try:
                with tar.open("rb") as handle:
                    members = list_tar(str(tar), handle, seen)
            except (tarfile.TarError, OSError, EOFError, *FORGED) as error:
                raise VbprError(
                    f"{tar} is not a readable uncompressed tar ({error}); make it again with tar -cf"
                ) from error
            found += [(name, (tar, offset, size, mtime)) for name, offset, size, mtime in members]
        super().__init__(str(tars[0]) if len(tars) == 1 else f"{tars[0].parent} ({len(tars)} tars)", found)

    def read(self, i: int) -> bytes:
        tar, offset, size, _ = self.hows[i]
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

    def head(self, i: int) -> bytes:
        tar, offset, size, _ = self.hows[i]
        with contextlib.suppress(OSError), tar.open("rb", buffering=0) as handle:
            return os.pread(handle.fileno(), min(size, HEAD), offset)
        return b""

    def signature(self, i: int) -> int:
        _, _, size, mtime = self.hows[i]
        return signature_of(size, mtime)

    def size(self, i: int) -> int:
        return int(self.hows[i][2])


def list_tar(tar: str, handle: Any, seen: set[str]) -> list[tuple[str, int, int, float]]:
    """(name, where it begins, bytes, modification time) of each file in an open tar, hidden ones left out.

    Args:
        tar: what messages call it. seen: names of all members so far, in any tar of the source.

    Raises:
        VbprError: a member is no plain file inside the tar, or occurs twice.
        tarfile.TarError: it is no tar, or damaged.
    """
    found = []
    with tarfile.open(fileobj=handle, mode="r:") as archive:
        for member in archive:
            if member.isdir():
                continue
            if member.issparse():  # it is not in the tar as it would be read
                raise VbprError(f"{tar}: member {member.name!r} is sparse; make the tar again without -S")
            if not member.isreg() or member.name.startswith("/") or ".." in member.name.split("/"):
                raise VbprError(
                    f"{tar}: member {member.name!r} is a link or leads outside; make a tar of plain files only"
                )
            if member.name in seen:
                raise VbprError(f"{tar}: member {member.name!r} occurs twice; keep one")
            seen.add(member.name)
            if not is_hidden(member.name):
                found.append((member.name, member.offset_data, member.size, member.mtime))
        handle.seek(archive.offset)
        if handle.read(512) != bytes(512):  # tarfile takes a damaged header for the end
            raise tarfile.ReadError(f"cut off or damaged at byte {archive.offset:,}")
        after = handle.read(2 * tarfile.RECORDSIZE)  # to which tars are filled up
        if is_header(after.lstrip(b"\0")[: tarfile.BLOCKSIZE]):
            raise VbprError(f"{tar} holds another tar after its end; keep them apart, as images-1.tar and images-2.tar")
    return found


def is_header(block: bytes) -> bool:
    with contextlib.suppress(tarfile.HeaderError):
        return bool(tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape"))
    return False


NUMBERED = re.compile(r"(.*?)(\d+)\.tar$")


def tars_in(folder: Path) -> list[Path]:
    """A folder's tars of images: those called so, or else those that are numbered, as WebDataset and img2dataset do."""
    return sorted(folder.glob("images*.tar")) or sorted(tar for tar in folder.glob("*.tar") if NUMBERED.match(tar.name))


def read_tars(path: Path) -> Files | None:
    if path.is_file():
        return TarFiles([path]) if path.suffix == ".tar" else None
    tars = tars_in(path)
    shards = sorted((found[1], int(found[2]), found[2]) for tar in tars if (found := NUMBERED.match(tar.name)))
    for (name, number, digits), (other, after, _) in itertools.pairwise(shards):
        if name == other and after != number + 1:
            missing = f"{name}{number + 1:0{len(digits)}}.tar"
            raise VbprError(f"{path} has {name}{digits}.tar and later ones but not {missing}; fetch the missing shards")
    return TarFiles(tars) if tars else None


__all__ = ["FORGED", "TarFiles", "list_tar", "read_tars", "tars_in"]
