"""`python -m vbpr` is `vbpr`."""

import contextlib
import math
import os
import signal
from pathlib import Path

from .base.stopping import SIGNALS, interruptible

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container, as Linux gives it: "microseconds period", or "max period"


def share_processors() -> None:
    """Have the threads of a product do well beside other programs; to be called before torch is imported.

    Threads wait for each other awake, for a short while; torch's own milliseconds gain a twentieth on a machine of
    one's own, and on one with a busy neighbour they make training five times slower, for whoever waits awake is soon
    put aside when it has work. And a container that may use four processors of sixty-four gets four threads.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    with contextlib.suppress(OSError, ValueError):
        quota, period = CPU_QUOTA.read_text().split()
        processors = math.ceil(int(quota) / int(period))
        if processors < len(os.sched_getaffinity(0)):
            os.environ.setdefault("OMP_NUM_THREADS", str(processors))


def main() -> None:
    """The command line, for a process of its own; Ctrl-C ends it in a word even while it is being imported."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file to be opened would take its place, and what is said goes into it
            os.open(os.devnull, os.O_RDWR)
    share_processors()
    os.environ.pop("HDF5_DRIVER", None)  # our files are read and written in place: another driver's are not ours
    try:
        with interruptible():
            from .cli import app

            app()
    finally:
        for number in SIGNALS:  # Python's own handler would interrupt its tidying up, with a traceback
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
