"""How commands end when something fails: in a sentence and an exit code, not in a traceback."""

import contextlib
import errno
import io
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer

from ..base.errors import VbprError, errno_in
from ..base.stopping import INTERRUPTED, STOPPED, Stopped

OUT_OF_MEMORY = (
    "out of memory (or of threads); extract: lower --batch or --threads; train: --memory-limit GB keeps prepared "
    "features on the disk, a lower --dim or --batch needs less, --device cpu has more than a GPU; or give fewer or "
    "narrower feature files"
)
# Words by which libraries say that memory is out.
NO_MEMORY = ("out of memory", "allocate memory", "start new thread", "bad_alloc", "alloc_failed", "allocation_failed")
NO_ROOM_TO_LOAD = "failed to map segment from shared object"  # at the end: with another cause, a colon follows


class App(typer.Typer):
    """A Typer app whose faults end in one or two sentences and an exit code, not in a traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("prog_name", "vbpr")
        if isinstance(sys.stdout, io.TextIOWrapper):  # an id that the terminal cannot show must not end the command
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            Path.cwd()
        except OSError:  # without a folder, MKL would end the process
            fail("the folder that this was started in is gone; start it in another", 2)
        every, asked = self.registered_commands, next(iter(kwargs.get("args") or sys.argv[1:]), "")
        only = [c for c in every if c.callback is not None and c.callback.__name__.replace("_", "-") == asked]
        self.registered_commands = only or every  # parsing the options of all takes as long as some answers
        try:
            return super().__call__(*args, **kwargs)
        except Stopped as stopped:
            end(str(stopped), STOPPED)
        except VbprError as error:
            fail(str(error), 2)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except MemoryError:
            fail(OUT_OF_MEMORY, 2)
        except Exception as error:
            if INTERRUPTED or os.environ.get("VBPR_TRACEBACK"):  # what is interrupted may raise anything
                raise
            fail(*explained(error))
        finally:
            self.registered_commands = every


def explained(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code for an error that no command expected."""
    if str(error).endswith(NO_ROOM_TO_LOAD) or any(words in str(error).lower() for words in NO_MEMORY):
        return OUT_OF_MEMORY, 2
    if number := errno_in(error):
        where, why = getattr(error, "filename", None), os.strerror(number)
        if number in (errno.ENOSPC, errno.EDQUOT):
            return f"{where or 'the output'} cannot be written ({why}); make room, or write elsewhere", 2
        return f"{where or 'a file'} cannot be used ({why}); give another, or mend its disk or permissions", 2
    return (
        f"internal failure: {type(error).__name__}: {error} (VBPR_TRACEBACK=1 shows where; please report it)",
        1,
    )


def fail(message: str, code: int) -> NoReturn:
    """End with an error message."""
    end(f"error: {message}", code)


def end(words: str, code: int) -> NoReturn:
    """End with words on standard error."""
    with contextlib.suppress(OSError):  # standard error may be full, or closed
        print(words, file=sys.stderr)
    raise SystemExit(code)


__all__ = ["App"]
