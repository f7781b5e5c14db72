"""Tables for Arrow to read: inflated where they are gzipped, in memory of Arrow's own."""

import gzip
import shutil
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..base.errors import VbprError

UNREADABLE = (OSError, EOFError, zlib.error)  # what disks and gzip raise
UNFIT = (TypeError, ValueError, NotImplementedError, LookupError)  # bases of what Arrow raises of values it cannot read


class Inflated(gzip.GzipFile):
    """A gzipped table. Real ones shrink to a tenth; one that fills the memory from a few bytes is refused."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > BOMB and self.tell() > BOMB_RATIO * (packed := Path(self.name).stat().st_size):
            raise VbprError(
                f"{self.name} inflates to more than {BOMB_RATIO} times its {packed:,} bytes; this is no table of "
                "interactions (if it is, gunzip it)"
            )
        return data


BOMB, BOMB_RATIO = 256 * 2**20, 200  # bytes, above which the ratio counts


def open_bytes(path: Path) -> Any:
    """A file, inflated where it is gzipped; Arrow itself opens no name that is not UTF-8."""
    return Inflated(path) if path.suffix == ".gz" else path.open("rb")


def load(path: Path) -> pa.Buffer:
    """A file's bytes, inflated, in memory of Arrow's own. A file of Python's would be let go of by one of Arrow's
    threads, some time after the table is there: where Python is just ending, that aborts the process."""
    memory = pa.BufferOutputStream()
    with open_bytes(path) as handle:
        shutil.copyfileobj(handle, memory, 2**20)
    return memory.getvalue()


__all__ = ["UNFIT", "UNREADABLE", "load", "open_bytes"]
