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
SETTLING = 3  # times that files are read which change meanwhile, as a list of what is in stock may all day


class Newest:
    """What answers: what the files hold now. When one is replaced, what was loaded answers until all is loaded anew,
    and goes on answering where that fails.

    Args:
        load: makes the answers. files: that it reads, there or not.
    """

    def __init__(self, load: Callable[[], Answers], files: Sequence[Path]) -> None:
        self.load, self.files, self.fault, self.due = load, files, "", math.inf
        self.answers = self.settled()

    def look(self) -> None:
        """Load anew if a file has changed since it was last looked at, or could not be loaded a while ago."""
        if stamps(self.files) == self.known and time.monotonic() < self.due:
            return
        try:
            self.answers, self.fault, self.due = self.settled(), "", math.inf
        except Exception as error:
            if str(error) != self.fault:
                print(f"not loaded anew, and the model of before goes on: {error}", flush=True)
            self.fault, self.due = str(error), time.monotonic() + RETRY_SECONDS
        gc.collect()  # answers hold themselves

    def settled(self) -> Answers:
        """What `load` makes of files that were not replaced while it read them, if it ever finds them so."""
        for _ in range(SETTLING - 1):
            self.known = stamps(self.files)
            answers = self.load()
            if stamps(self.files) == self.known:
                return answers
            del answers
            gc.collect()
        self.known = stamps(self.files)
        return self.load()

    def watch(self) -> None:
        while True:
            time.sleep(WATCH_SECONDS)
            self.look()


def stamps(files: Sequence[Path]) -> list[tuple[int, ...] | None]:
    """What changes when a file is replaced or written; None where there is none."""
    out: list[tuple[int, ...] | None] = []
    for path in files:
        try:
            out.append(stamp(path.stat()))
        except OSError:
            out.append(None)
    return out


__all__ = ["Newest"]
