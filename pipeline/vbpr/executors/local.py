"""This process alone: one part after another."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from .job import Job, Place


class Local:
    """A crew of one."""

    workers = 1

    def __init__(self, address: str, job: Job) -> None:
        self.job = job

    def __enter__(self) -> "Local":
        self.work = self.job.begin(Place())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing is left to end."""

    @property
    def about(self) -> dict[str, Any]:
        return self.work.about

    def run(self, parts: Iterable[Any], stopping: Callable[[], bool] = lambda: False) -> Iterator[tuple[int, Any, Any]]:
        """See `Crew.run`."""
        for number, part in enumerate(parts):
            if stopping():
                return
            yield number, part, self.work(part)


__all__ = ["Local"]
