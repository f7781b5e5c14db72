"""Who runs the parts of a job: this process (`local`), or workers on the machines of a Ray cluster (`ray`). Uses base
alone; Ray is imported in `ray.py` alone, which runs in a process of its own.

with hired("10.0.0.1:6379", job) as crew:
    for part, result in crew.run(parts): ...
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from .job import Crew, Job
from .local import Local


def on_cluster(cluster: str, job: Job) -> AbstractContextManager[Crew]:
    """See `Cluster`; what it imports takes as long as `vbpr --help`."""
    from .cluster import Cluster

    return Cluster(cluster, job)


EXECUTORS: dict[str, Callable[[str, Job], AbstractContextManager[Crew]]] = {"local": Local, "ray": on_cluster}


def hired(cluster: str | None, job: Job) -> AbstractContextManager[Crew]:
    """Workers for a job: on a Ray cluster (`local`, or its address), or this process alone where there is none.

    Raises:
        VbprError: see `Cluster`.
    """
    return EXECUTORS["local" if cluster is None else "ray"](cluster or "", job)


__all__ = ["EXECUTORS", "hired"]
