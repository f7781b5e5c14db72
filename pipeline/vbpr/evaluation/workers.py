"""The ranks of held-out items by the workers of a cluster: ranges of users, whose ranks do not depend on each other."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.progress import Progress
from ..executors import hired
from ..executors.job import Place
from ..executors.parts import Ranges
from ..stores.model.factors import Factors
from .ranks import Ranks, ranks_of_users

RANGE = 8192  # users of a part


@dataclasses.dataclass(frozen=True)
class RanksJob:
    """What each worker needs to know; see `Job`.

    Attributes:
        model: the model file, under a path that all machines have. digest: of it, as the driver has read it.
        held: test or validation.
    """

    model: str
    digest: str
    held: str
    device: str
    cores: int = 0
    overlap: int = 1

    def begin(self, place: Place) -> "RanksWork":
        """Read the model.

        Raises:
            VbprError: it is not there for this machine, or another.
        """
        factors = Factors.load(self.model)
        if factors.digest() != self.digest:
            raise VbprError(f"it sees another model in {self.model}")
        device = ("cuda" if self.device == "auto" else self.device) if place.gpu else "cpu"
        return RanksWork(factors, self.held, device)


class RanksWork:
    """A model at work on ranges of users; see `Work`."""

    def __init__(self, factors: Factors, held: str, device: str) -> None:
        self.factors, self.device, self.about = factors, device, {"range": RANGE}
        self.held: sp.csr_matrix = getattr(factors, held)

    def agree(self, first: dict[str, Any]) -> None:
        """They all do the same."""

    def stop(self) -> None:
        """A range takes seconds."""

    def __call__(self, part: Array) -> Ranks:
        """The ranks of these users' held-out items, in the order of the whole."""
        return ranks_of_users(self.factors, only(self.held, part), self.device)


def only(held: sp.csr_matrix, users: Array) -> sp.csr_matrix:
    """The held-out items of these users alone."""
    chosen = np.zeros(held.shape[0], np.float32)
    chosen[users] = 1
    part = sp.csr_matrix(held.multiply(chosen[:, None]))
    part.eliminate_zeros()
    return part


def shared_ranks(
    cluster: str, path: Path | str, factors: Factors, held: str, part: sp.csr_matrix, device: str
) -> Ranks:
    """The ranks of the held-out items `part` of a model in a file, as one process finds them.

    Raises:
        VbprError: see `Cluster`.
    """
    users = np.flatnonzero(np.diff(part.indptr))
    ranges = Ranges(part.shape[0], RANGE)
    job = RanksJob(str(Path(path).resolve()), factors.digest(), held, device)
    found: dict[int, Ranks] = {}
    with hired(cluster, job) as crew, Progress("evaluate", len(users), "users") as bar:
        for number, some, ranks in crew.run(ranges.left(users)):
            found[number] = ranks
            bar.advance(len(some))
    in_order = [found[number] for number in sorted(found)]
    names = [field.name for field in dataclasses.fields(Ranks)]
    return Ranks(*(np.concatenate([getattr(ranks, name) for ranks in in_order]) for name in names))


__all__ = ["only", "shared_ranks"]
