"""How long steps speak to people: a bar with rate and time left on a terminal, a line now and then elsewhere.

with Progress("extract", total=9069, unit="images") as bar: bar.advance(16)
"""

import contextlib
import contextvars
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TextIO, cast

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class Unfailing:
    """Standard error, if any, whose faults are no reason to end: a full disk behind it, a terminal that has gone."""

    @property
    def file(self) -> Any:  # which a bar stands before while it is shown
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    @property
    def encoding(self) -> str:
        return getattr(self.file, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return self.file is not None and bool(self.file.isatty())

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            if self.file is not None:
                self.file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            if self.file is not None:
                self.file.flush()


console = Console(file=cast(TextIO, Unfailing()), highlight=False, markup=False, emoji=False)
LINE_EVERY = 10.0  # seconds between lines where there is no terminal
BRIEF = 1.0  # seconds; a step that takes no longer says nothing there


class Progress:
    """A progress display on standard error; of several processes at one job, one shows it, and of a job within
    another, the outer one."""

    live: ClassVar[bool] = False

    def __init__(self, label: str, total: int, unit: str = "items", shown: bool = True) -> None:
        self.label, self.total, self.unit, self.shown = label, total, unit, shown
        self.done, self.printed, self.note = 0, 0, ""
        self.start = self.spoken = time.monotonic()
        self.bar: Bar | None = None

    def __enter__(self) -> "Progress":
        self.shown = self.shown and not Progress.live
        if console.is_terminal and self.shown:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=console,
            )
            self.bar.start()
            self.task = self.bar.add_task(self.label, total=self.total, rate="", note="")
        Progress.live = Progress.live or self.shown
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        Progress.live = Progress.live and not self.shown
        if self.bar is not None:
            self.bar.stop()
        elif self.done > self.printed and time.monotonic() - self.start > BRIEF:
            self._line()

    @property
    def rate(self) -> float:
        """Units a second so far."""
        return self.done / max(1e-9, time.monotonic() - self.start)

    @property
    def speed(self) -> str:
        return f"{self.rate:,.0f}" if self.rate >= 10 else f"{self.rate:.2g}"

    def advance(self, count: int, note: str = "") -> None:
        self.done += count
        self.note = note or self.note
        if self.bar is not None:
            self.bar.update(self.task, advance=count, rate=f"{self.speed} {self.unit}/s", note=self.note)
        elif time.monotonic() - self.spoken > LINE_EVERY:
            self._line()

    def _line(self) -> None:
        self.spoken, self.printed = time.monotonic(), self.done
        if not self.shown:
            return
        left = (self.total - self.done) / max(1e-9, self.rate)
        text = f"{self.label}: {self.done:,} of {self.total:,} {self.unit}, {self.speed}/s, {left:,.0f} s left"
        print(text + (f", {self.note}" if self.note else ""), file=console.file, flush=True)


Listener = Callable[[int, dict[str, float]], None]
LISTENER: contextvars.ContextVar[Listener | None] = contextvars.ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have training under this context tell `listener(epoch, figures)`; what it raises ends the training."""
    token = LISTENER.set(listener)
    try:
        yield
    finally:
        LISTENER.reset(token)


def report_epoch(epoch: int, **figures: float) -> None:
    """Tell whoever listens how an epoch of a training went: its `loss`, and `auc` of the validation items where it is
    known, by which `vbpr tune` ends what promises little. An exception from there ends the training."""
    listener = LISTENER.get()
    if listener is not None:
        listener(epoch, figures)


__all__ = ["Progress", "console", "listening", "report_epoch"]
