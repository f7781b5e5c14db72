"""Decoded images kept as uint8 in one memory-mapped file, so that a network that looks at them many times decodes once.

cache = PixelCache.build("hm.224.pixels", data.images(), Preprocessing(224, 1.0, "nearest", ...)); cache.rows[7]
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import update_with_ids
from ..base.errors import VbprError
from ..base.files import read_json, replace_text
from ..base.locks import locked
from ..base.progress import Progress
from ..base.stopping import Stopped, stop_signals
from ..base.targets import check_target
from ..data.images.source import BadImage, ImageSource, Pixels
from .prepare import Preprocessing, prepare

DONE, FAILED = 1, 2
GREY = 127  # what stands for an image that cannot be used
BLOCK = 256


class PixelCache:
    """The images of a source at one size.

    Attributes:
        rows: (N, size, size, 3) uint8, in the order of the source; grey where `usable` is False.
        usable: (N,) bool.
    """

    def __init__(self, rows: Pixels, usable: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        self.rows, self.usable = rows, usable

    @classmethod
    def build(cls, path: Path | str, source: ImageSource, how: Preprocessing) -> "PixelCache":
        """Open the cache at `path`, after decoding what it lacks; one of other images or another size is made anew.

        Raises:
            VbprError: no space, or no image can be used.
            Stopped: Ctrl-C or SIGTERM; what was decoded is kept.
        """
        path = Path(path)
        check_target(path)
        n, each = len(source), how.size * how.size * 3
        identity = hashlib.blake2b(f"{how.size} {how.crop} {how.squash} {how.interpolation}".encode(), digest_size=16)
        update_with_ids(identity, source.item_ids)
        identity.update(np.fromiter((source.signature(i) for i in range(n)), np.uint64, n).tobytes())
        mark = path.with_name(path.name + ".json")
        with locked(path):
            if not (path.exists() and read_json(mark).get("images") == identity.hexdigest()):
                path.unlink(missing_ok=True)
                allocate(path, n * (each + 1))
                replace_text(mark, json.dumps({"images": identity.hexdigest(), "size": how.size, "count": n}))
            rows = np.memmap(path, np.uint8, "r+", 0, (n, how.size, how.size, 3))
            state = np.memmap(path, np.uint8, "r+", n * each, (n,))
            fill(rows, state, source, how, path)
        usable = np.asarray(state == DONE)
        if not usable.any():
            raise VbprError(f"none of the {n:,} images of {source.name} could be used; give --data readable images")
        return cls(np.memmap(path, np.uint8, "r", 0, (n, how.size, how.size, 3)), usable)


def allocate(path: Path, size: int) -> None:
    """Take the space before any work is done."""
    try:
        with path.open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise VbprError(
            f"{path} needs {size / 2**30:,.1f} GB ({error.strerror}); free some space, or lower --image-size"
        ) from error


def fill(rows: Any, state: Any, source: ImageSource, how: Preprocessing, path: Path) -> None:
    """Decode the images that are not yet there."""

    def decode(i: int) -> tuple[int, Pixels | None]:
        try:
            return i, prepare(source.read(i), how)
        except BadImage:
            return i, None

    pending = np.flatnonzero(np.asarray(state) != DONE)  # failed ones are tried again: it costs little
    with (
        Progress(f"decode at {how.size} px", len(pending), "images") as bar,
        ThreadPoolExecutor(min(16, len(os.sched_getaffinity(0)))) as pool,
        stop_signals() as stopping,
    ):
        for a in range(0, len(pending), BLOCK):
            block, bad = pending[a : a + BLOCK], []
            for i, pixels in pool.map(decode, block.tolist()):
                rows[i] = GREY if pixels is None else pixels
                bad += [i] if pixels is None else []
            rows.flush()
            state[block] = DONE
            state[bad] = FAILED
            state.flush()
            bar.advance(len(block))
            if stopping():
                raise Stopped(f"stopped with {path} part full; run the same command again to resume")


__all__ = ["GREY", "PixelCache"]
