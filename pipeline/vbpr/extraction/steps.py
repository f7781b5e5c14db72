"""Images on their way through: decoded ahead in threads, encoded, handed over to be written."""

import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ..base.arrays import Array
from ..data.images.source import BadImage, ImageSource, Pixels
from ..networks.prepare import Preprocessing, prepare

WINDOW = 64  # full steps that are dealt out at a time
QUEUE = 4
Reads = list[Callable[[], bytes]]


@dataclasses.dataclass
class Encoded:
    """What came of some rows.

    Attributes:
        rows: (n,) that have features. features: (n, D) float32, or float16 as the file keeps them.
        failed: (m,) whose image cannot be used. reasons: of each.
        odd: (row, "W x H") of images that are tiny or slivers.
    """

    rows: Array
    features: Array
    failed: Array
    reasons: list[str]
    odd: list[tuple[int, str]]


@dataclasses.dataclass
class Batch:
    """One step's images on their way through: decoded, encoded.

    An image has its own place in `pixels`, for an engine's last bits may depend on it; the other places are black.
    Memory is bounded by the number of these: `encoder.depth` under way, and one more than that (at least two) decoding.
    """

    rows: Array
    places: Array
    pixels: Pixels
    reasons: list[str]  # "" for an image that is fine
    decoding: list[Future[None]]
    odd: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    good: Array = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    features: Callable[[], Array] | None = None


def encoded(
    source: ImageSource,
    encoder: Any,
    how: Preprocessing,
    steps: Iterator[tuple[Array, Array]],
    threads: int,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Encoded]:
    """Decode ahead in threads, encode; yields what came of each step, in their order.

    Three things go on at once: threads decode the steps to come, the encoder has up to `depth` steps, and the caller
    writes the one that is ready. When `stopping`, it finishes the steps that the encoder has.

    Args:
        how: what the backbone wants its images to be.
        steps: rows to encode, at most `encoder.batch` at a time, and their places: see `in_steps`.
    """

    def decode(batch: Batch, part: Array, reads: Reads) -> None:
        for at in part:
            row = int(batch.rows[at])

            def note(width: int, height: int, row: int = row) -> None:
                batch.odd.append((row, f"{width} x {height}"))

            try:
                batch.pixels[batch.places[at]] = prepare(reads[at](), how, note)
            except BadImage as error:
                batch.reasons[at] = str(error)

    def ended(batch: Batch) -> Encoded:
        features = np.empty((0, encoder.dim), np.float32)
        if batch.features is not None:
            features = batch.features()[batch.places[batch.good]]
        bad = np.flatnonzero([reason != "" for reason in batch.reasons])
        return Encoded(batch.rows[batch.good], features, batch.rows[bad], [batch.reasons[i] for i in bad], batch.odd)

    with ThreadPoolExecutor(threads, "decode") as pool, ThreadPoolExecutor(max(1, source.ahead), "read") as readers:
        decoding: deque[Batch] = deque()
        encoding: deque[Batch] = deque()
        size = encoder.batch
        waiting = read_ahead(source, steps, readers)

        def ahead() -> None:
            while len(decoding) <= max(1, encoder.depth) and (step := next(waiting, None)) is not None:
                rows, places, reads = step
                pixels = np.zeros((size, how.size, how.size, 3), np.uint8)
                batch = Batch(rows, places, pixels, [""] * len(rows), [])
                parts = np.array_split(np.arange(len(rows)), min(len(rows), 4 * threads))
                batch.decoding = [pool.submit(decode, batch, part, reads) for part in parts]
                decoding.append(batch)

        try:
            ahead()
            while decoding and not stopping():
                batch = decoding.popleft()
                for future in batch.decoding:
                    future.result()
                ahead()
                batch.good = np.flatnonzero([reason == "" for reason in batch.reasons])
                if len(batch.good):
                    batch.features = encoder.start(batch.pixels[: batch.places[batch.good].max() + 1])
                encoding.append(batch)
                if len(encoding) > encoder.depth:
                    yield ended(encoding.popleft())
            while encoding:
                yield ended(encoding.popleft())
        finally:
            for each in (readers, pool):
                each.shutdown(wait=False, cancel_futures=True)


def read_ahead(
    source: ImageSource, steps: Iterator[tuple[Array, Array]], readers: ThreadPoolExecutor
) -> Iterator[tuple[Array, Array, Reads]]:
    """Each step with what reads its images. A server's are asked for before: so many as `QUEUE` times its `ahead`."""
    waiting: deque[tuple[Array, Array, Reads]] = deque()
    asked = 0
    for rows, places in steps:
        if not source.ahead:
            yield rows, places, [functools.partial(source.read, int(row)) for row in rows]
            continue
        waiting.append((rows, places, [readers.submit(source.read, int(row)).result for row in rows]))
        asked += len(rows)
        while asked > QUEUE * source.ahead:
            asked -= len(waiting[0][0])
            yield waiting.popleft()
    yield from waiting


def in_steps(rows: Array, size: int) -> Iterator[tuple[Array, Array]]:
    """Rows in steps of at most `size`, with a place for each, which is `row % size`; all rows: in order.

    Rows so scattered that this would take many more steps are packed instead. They are dealt out `WINDOW` full steps
    at a time, so that the memory does not grow with the catalogue.
    """
    for first in range(0, len(rows), WINDOW * size):
        window = rows[first : first + WINDOW * size]
        order = np.argsort(window % size, kind="stable")
        place = (window % size)[order]
        nth = np.arange(len(window)) - np.searchsorted(place, place)  # rows before it that want its place
        if 1 + nth.max() > 1 + 1.25 * -(-len(window) // size):
            packed = (window[a : a + size] for a in range(0, len(window), size))
            yield from ((step, np.arange(len(step))) for step in packed)
            continue
        again = order[np.argsort(nth, kind="stable")]
        for start, end in itertools.pairwise([0, *np.cumsum(np.bincount(nth))]):
            step = np.sort(window[again[start:end]])
            yield step, step % size


__all__ = ["Encoded", "encoded", "in_steps"]
