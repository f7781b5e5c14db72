"""What a job is, for whoever runs it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ..base.errors import VbprError


class Unfit(VbprError):
    """Of a part: this machine cannot do it, as others may. It is left out, and the part goes to another."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a worker is.

    Attributes:
        node: the machine, as people know it: "host (address:port)"; "" for this process.
        cores: that it may keep busy; 0: all of this process's.
        gpu: whether it has one to itself.
    """

    node: str = ""
    cores: int = 0
    gpu: bool = False


class Work(Protocol):
    """What one worker has made ready, once: the backbone is loaded, the model read.

    Attributes:
        about: JSON values that the driver learns of the first worker, before it hands out the first part.
    """

    about: dict[str, Any]

    def agree(self, first: dict[str, Any]) -> None:
        """
        Args:
            first: `about` of the first worker.

        Raises:
            VbprError: this one would do the work otherwise.
        """

    def stop(self) -> None:
        """Have the parts in hand end early, with as much as is done; may do nothing."""

    def __call__(self, part: Any) -> Any:
        """The result of a part, which depends on nothing else."""


class Job(Protocol):
    """A job whose parts do not depend on each other; pickled, so made of paths and numbers.

    Attributes:
        device: auto (a GPU where a machine has one), cpu or cuda.
        cores: of a worker without a GPU, at most; 0: see `CORES`.
        overlap: parts that a worker has in hand at once, in threads.
    """

    @property
    def device(self) -> str: ...

    @property
    def cores(self) -> int: ...

    @property
    def overlap(self) -> int: ...

    def begin(self, place: Place) -> Work:
        """Make ready for the parts, in the process and on the machine of a worker.

        Raises:
            VbprError: this machine cannot: it sees other data, or none. It is left out, by name.
        """


class Crew(Protocol):
    """Those who work at one job.

    Attributes:
        about: of the first worker, for which it waits.
        workers: how many there are now, or begin; known while parts are run.
    """

    workers: int

    @property
    def about(self) -> dict[str, Any]: ...

    def run(self, parts: Iterable[Any], stopping: Callable[[], bool] = lambda: False) -> Iterator[tuple[int, Any, Any]]:
        """(number, part, result) of each part, in the order in which they end; parts are taken as they are needed.

        When `stopping`, no further part is begun, and those in hand end early.

        Raises:
            VbprError: the work cannot go on; what was yielded stands.
        """


CORES = 16  # of a worker without a GPU: more threads of one Python process get in each other's way


def layout(device: str, most: int, cores: int, gpus: int) -> tuple[int, int, bool]:
    """(workers, cores of each, whether each has a GPU) on a machine: one a GPU, or one for some cores; none where it
    has not what the job needs.

    Args:
        device, most: `device` and `cores` of the job.
    """
    if gpus and device != "cpu":
        return gpus, cores // gpus, True
    if device == "cuda" or not cores:
        return 0, 0, False
    workers = -(-cores // (most or CORES))
    return workers, cores // workers, False


__all__ = ["CORES", "Crew", "Job", "Place", "Unfit", "Work", "layout"]
