"""Jobs for tests of those who run them: squares of numbers, by workers that can be watched and held up."""

import dataclasses
import os
import time
from pathlib import Path

import numpy as np

from vbpr.base.errors import VbprError
from vbpr.executors.job import Unfit


@dataclasses.dataclass(frozen=True)
class Squares:
    """The square of each part, `width` times; each worker leaves a file of its process id and of each part begun.

    Attributes:
        held: parts that wait until the file `go` is there. fatal: that end the process. wrong: that are refused.
        unfit_at: ports of nodes that cannot begin; those that find out with a part: unfit_later.
    """

    folder: str
    held: tuple[int, ...] = ()
    fatal: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    unfit: bool = False
    later: bool = False
    width: int = 1
    device: str = "cpu"
    cores: int = 1
    overlap: int = 1

    def begin(self, place):
        (Path(self.folder) / f"worker-{os.getpid()}").touch()
        if self.unfit:
            raise VbprError("it has no numbers")
        return Work(self)


class Work:
    about = {"kind": "squares"}

    def __init__(self, job):
        self.job, self.stopped = job, False

    def agree(self, first):
        assert first == self.about

    def stop(self):
        self.stopped = True

    def __call__(self, part):
        folder = Path(self.job.folder)
        (folder / f"part-{part}-{os.getpid()}").touch()
        if self.job.later:
            raise Unfit("it has lost its numbers")
        if part in self.job.wrong:
            raise VbprError(f"{part} has no square; give another")
        if part in self.job.fatal:
            os._exit(1)
        while part in self.job.held and not self.stopped and not (folder / "go").exists():
            time.sleep(0.01)
        return np.full(self.job.width, part * part)
