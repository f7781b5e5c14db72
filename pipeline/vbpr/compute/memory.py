"""What memory there is, and memory that lies on the disk, whose rows are asked for ahead of their use."""

import contextlib
import ctypes
import mmap
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor

from ..base.errors import VbprError


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take, by the machine and by the control groups (a container's) that it is in.

    Args:
        root: where the system's `proc` and `sys` are.
    """
    machine = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
    found = [int(machine["MemAvailable"].split()[0]) * 1024]
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, old = root / "sys/fs/cgroup" / controllers, bool(controllers)
        limit, usage = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):  # in a container, the path may be one of the machine outside
            with contextlib.suppress(OSError, ValueError, KeyError):  # no such group, or one without a limit
                told = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                files = sum(int(told["total_" * old + name]) for name in ("inactive_file", "active_file"))
                found.append(int((folder / limit).read_text()) - int((folder / usage).read_text()) + files)
            if folder == base:
                break
    return max(0, min(found))


def memory_on_disk(size: int, folder: Path | None, what: str = "prepared features") -> mmap.mmap:
    """Memory that the kernel may put on the disk: a file in `folder` that has no name, and goes with the process.

    Raises:
        VbprError: no room there for what it shall hold.
    """
    with tempfile.TemporaryFile(prefix=".prepared-", dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise VbprError(
                f"no room for {size / 1e9:.1f} GB of {what} beside the model: "
                f"{error.strerror}; free some, set fewer `axes` in --config, or give --out on another disk"
            ) from error
        return mmap.mmap(file.fileno(), size)


def give_back() -> None:
    """Return to the system what the allocators of Arrow and of the C library keep of memory that is free again: after
    a table of millions of rows was read, that is as much as it took."""
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError):  # not the GNU library
        ctypes.CDLL(None).malloc_trim(0)


T = TypeVar("T")


def read_ahead(
    work: Iterable[T], rows: Callable[[T], list[tuple[Tensor | None, Tensor]]], mapped: Sequence[mmap.mmap]
) -> Iterator[T]:
    """The pieces of work, in order; the rows that each needs of mapped matrices are asked for `AHEAD` pieces early.

    Asked, not read by threads: a thread waits for one page at a time, and whenever it wakes, it takes a processor from
    a product, whose other half then waits for that one. Meanwhile the kernel leaves out the pages around these rows.
    """
    if not mapped:
        yield from work
        return
    for memory in mapped:
        memory.madvise(mmap.MADV_RANDOM)
    waiting: deque[T] = deque()
    for piece in work:
        for matrix, wanted in rows(piece):
            if matrix is not None:
                ask(matrix, wanted)
        waiting.append(piece)
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting
    for memory in mapped:
        memory.madvise(mmap.MADV_NORMAL)


AHEAD = 8


def ask(matrix: Tensor, rows: Tensor) -> None:
    """Have the kernel read some rows of a mapped matrix, and do not wait for them."""
    size = matrix.shape[1] * matrix.itemsize
    begin = matrix.data_ptr() + np.sort(rows.numpy()) * size
    page = begin // mmap.PAGESIZE * mmap.PAGESIZE
    spans = np.stack([page, begin + size - page], 1)  # C's struct iovec: address, length
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError, OSError), os.fdopen(os.pidfd_open(os.getpid())) as this:
        for a in range(0, len(spans), MOST):
            part = spans[a : a + MOST]
            address, count = ctypes.c_void_p(part.ctypes.data), ctypes.c_size_t(len(part))
            if libc.process_madvise(this.fileno(), address, count, mmap.MADV_WILLNEED, 0) < 0:
                raise OSError("an old kernel, or a container that may not")
        return
    for address, length in spans.tolist():
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), mmap.MADV_WILLNEED)


MOST = 1024  # spans that the kernel takes at once

__all__ = ["available_memory", "give_back", "memory_on_disk", "read_ahead"]
