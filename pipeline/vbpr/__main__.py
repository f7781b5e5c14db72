"""`python -m vbpr` is `vbpr`."""

import os
import signal

from .stopping import SIGNALS, interruptible


def main() -> None:
    """The command line, for a process of its own; Ctrl-C ends it in a word even while it is being imported."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file to be opened would take its place, and what is said goes into it
            os.open(os.devnull, os.O_RDWR)
    os.environ.pop("HDF5_DRIVER", None)  # our files are read and written in place: another driver's are not ours
    try:
        with interruptible():
            from .commands import app

            app()
    finally:
        for number in SIGNALS:  # Python's own handler would interrupt its tidying up, with a traceback
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
