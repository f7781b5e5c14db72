"""One writer a file: a lock file beside it, whose lock the kernel drops when its holder dies.

with locked("artifacts/inc.h5"): ...
"""

import contextlib
import fcntl
import glob
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from .errors import VbprError


def lock_of(path: Path) -> Path:
    """The lock file of a file."""
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold the right to write `path` (a lock file beside it; the kernel drops it when its holder dies).

    Raises:
        VbprError: another process holds it; the message names its pid and host.
    """
    path = Path(path).resolve()
    lock = lock_of(path)
    while True:
        try:
            how = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # neither a link nor a pipe to wait for
            handle = os.fdopen(os.open(lock, how, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise VbprError(f"{lock} cannot be opened ({error.strerror}); remove it or choose another place") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = repr((handle.read(200) or b"").decode(errors="replace").strip())[1:-1] or "another process"
            handle.close()
            raise VbprError(
                f"{path} is in use by {holder}; wait for it, or stop it and run the same command again to resume"
            ) from error
        except OSError as error:
            handle.close()
            lock.unlink(missing_ok=True)  # no process can hold it
            raise VbprError(f"{lock} cannot be locked ({error.strerror}); choose a disk that has locks") from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                break
        handle.close()  # its last holder removed this very file between our open and our lock
    with handle:
        with contextlib.suppress(
            OSError
        ):  # a full disk has no room even for that; the write that follows tells the user
            handle.truncate(0)
            handle.write(f"pid {os.getpid()} on {socket.gethostname()}".encode())
        leftover = re.compile(rf"\.{re.escape(path.name)}\.\d+\.(tmp|probe)")
        for left in lock.parent.glob(f".{glob.escape(path.name)}.*"):
            if leftover.fullmatch(left.name):  # of a run killed before its rename
                left.unlink(missing_ok=True)

        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                    lock.unlink()


__all__ = ["locked"]
