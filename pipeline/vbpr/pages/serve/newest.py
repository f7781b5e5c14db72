"""A model that is replaced while it is served: what was loaded answers until the new one is loaded."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...data.images.source import stamp
from .answers import Answers

WATCH_SECONDS = 2.0  # between looks at whether the files were replaced
RETRY_SECONDS = 30.0  # after which what could not be loaded is tried again
LOADS = 3  # attempts at files that change while they are read, as a list of what is in stock may all day


class Newest:
    """The answers that the files give now. When a file is replaced, the former answers serve until all files are loaded
    again, and go on serving where that fails.

    Args:
        load: makes the answers.
        files: what it reads; they need not exist.
    """

    def __init__(self, load: Callable[[], Answers], files: Sequence[Path]) -> None:
        self.load, self.files, self.fault, self.due = load, files, "", math.inf
        self.answers = self.load_consistently()

    def look(self) -> None:
        """Load again if a file has changed since the last look, or if loading failed RETRY_SECONDS ago."""
        if stamps(self.files) == self.stamps and time.monotonic() < self.due:
            return
        try:
            self.answers, self.fault, self.due = self.load_consistently(), "", math.inf
        except Exception as error:
            if str(error) != self.fault:
                print(f"not loaded anew, and the model of before goes on: {error}", flush=True)
            self.fault, self.due = str(error), time.monotonic() + RETRY_SECONDS
        gc.collect()  # answers refer to themselves, through their caches

    def load_consistently(self) -> Answers:
        """Load until no file changed meanwhile, LOADS times at most; the last attempt counts in any case."""
        for _ in range(LOADS - 1):
            self.stamps = stamps(self.files)
            answers = self.load()
            if stamps(self.files) == self.stamps:
                return answers
            del answers
            gc.collect()
        self.stamps = stamps(self.files)
        return self.load()

    def watch(self) -> None:
        """Look every WATCH_SECONDS, for ever."""
        while True:
            time.sleep(WATCH_SECONDS)
            self.look()


def stamps(files: Sequence[Path]) -> list[tuple[int, ...] | None]:
    """Of each file, what changes when it is replaced or written; None where there is no file."""
    out: list[tuple[int, ...] | None] = []
    for path in files:
        try:
            out.append(stamp(path.stat()))
        except OSError:
            out.append(None)
    return out


__all__ = ["Newest"]
