"""`python -m vbpr` is `vbpr`."""

import signal

from .stopping import SIGNALS, interruptible


def main() -> None:
    """The command line; Ctrl-C ends it in a word even while it is being imported."""
    try:
        with interruptible():
            from .commands import app

            app()
    finally:
        for number in SIGNALS:  # Python's own handler would interrupt its tidying up, with a traceback
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
