"""How commands are stopped: a long step ends after the batch in hand, or at once when asked again; all else at once.

    with stop_signals() as stopping: ...

Ending at once is safe, for a kill at any moment is: files are renamed into place, and rows have their state last. At
once is when the library call in hand returns: Python hears of a signal no sooner.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = 130  # the exit code, whichever of the two it was
ASKED: list[list[int]] = []  # the signals that came in the outermost `stop_signals` under way
INTERRUPTED: list[int] = []  # those that interrupted the command instead


class Stopped(BaseException):
    """The user or the system asked to stop; what was done is kept. No Exception, like Python's own KeyboardInterrupt:
    a loop that passes over what fails must end, too."""


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag that the loop asks for; a second one interrupts at once.

    Inside another such context it is that one's flag: what stops a training also stops the study that it is part of.
    """
    if ASKED or threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield lambda: any(ASKED)
        return
    asked: list[int] = []
    before: dict[int, Any] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        if asked:
            interrupt = before.get(number)
            (interrupt if callable(interrupt) else signal.default_int_handler)(number, frame)
        asked.append(number)
        say("stopping after the batch in hand (again: stop at once)")

    ASKED.append(asked)
    try:
        with handling(on_signal, before):
            yield lambda: bool(asked)
    finally:
        ASKED.pop()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """For a whole command: the first SIGINT or SIGTERM outside `stop_signals` interrupts it, the next ends the process.

    So does the first one while a module is imported.

    Raises:
        SystemExit: with code 130, after a word on how to go on.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        if INTERRUPTED or any(ASKED) or importing(frame):
            leave()
        INTERRUPTED.append(number)
        raise KeyboardInterrupt

    def unraisable(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):  # it came in a destructor, which would swallow it
            leave()
        hook(lost)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    INTERRUPTED.clear()
    try:
        with handling(on_signal, {}):
            yield
    except BaseException as error:  # what a library makes of the interrupt
        if not INTERRUPTED or (isinstance(error, SystemExit) and not error.code):
            raise
        say("stopped; run the same command again")
        raise SystemExit(STOPPED) from None
    finally:
        sys.unraisablehook = hook


@contextlib.contextmanager
def handling(on_signal: Callable[[int, FrameType | None], None], before: dict[int, Any]) -> Iterator[None]:
    """Have a function called at SIGINT and SIGTERM; `before` is filled with what was called, and will be afterwards.

    A signal that is ignored stays so: a shell's background jobs are not for Ctrl-C."""
    with contextlib.suppress(ValueError):  # only the main thread may; elsewhere signals stay as they are
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.getsignal(number)
                signal.signal(number, on_signal)
    try:
        yield
    finally:
        for restored, handler in before.items():
            signal.signal(restored, signal.SIG_DFL if handler is None else handler)


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: an exception there may pass through C++ code, which aborts the process."""
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def leave() -> None:
    """End the process and run nothing more; a progress bar may have hidden the terminal's cursor, which is shown."""
    with contextlib.suppress(OSError):
        os.write(2, b"\x1b[?25h" * os.isatty(2))
    say("stopped at once; run the same command again")
    os._exit(STOPPED)


def say(text: str) -> None:
    """Print without the console: a signal may have come while that prints, or while it is being imported."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


__all__ = ["INTERRUPTED", "SIGNALS", "STOPPED", "Stopped", "interruptible", "stop_signals"]
