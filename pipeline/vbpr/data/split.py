"""Interactions into train, validation and test.

split = Split.make(Interactions.read("data/interactions.csv"), SplitConfig(seed=0))
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import scipy.sparse as sp

from ..base.arrays import Array, Strings
from ..base.errors import VbprError
from ..base.progress import console
from .interactions import Interactions
from .parts import MATRICES, Parts, csr
from .readers.columns import column_key


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """How interactions are split; each default has its home here.

    Attributes:
        rule: random or time (one item of each user for test, one for validation), global-time (the last tenth of all
            events for test, the tenth before for validation, each as near to that as events of one moment allow), file
            (its own `split` column), none (all of them to train on, for use rather than for figures: nothing chooses
            the epoch, and nothing can be evaluated), auto (file where there is one, else random).
        min_interactions: users with fewer items are left out (random and time; never below 3).
        k_core: first, users and items with fewer interactions are left out, over and over (0: none are).
        seed: of what is random.
    """

    rule: str = "auto"
    min_interactions: int = 5
    k_core: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--min-interactions", self.min_interactions, 1),
            ("--k-core", self.k_core, 0),
            ("--split-seed", self.seed, 0),
        ):
            if value < least:
                raise VbprError(f"{option} is {value}; it must be at least {least}")


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Split(Parts):
    """Interactions in three parts over one catalogue. Every matrix is (U, I), float32 ones.

    Attributes:
        user_ids, item_ids, train, validation, test: see `Parts`.
        rule: how it was made, in words.
        dropped_users: users left out because they have too few interactions.
        columns: what the file calls its user_id, item_id, timestamp and split, where it calls them otherwise.

    Raises:
        VbprError: see `Parts`.
    """

    rule: str = ""
    dropped_users: int = 0
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {getattr(self, name).nnz:,}" for name in MATRICES)
        return f"Split({len(self.user_ids):,} users, {len(self.item_ids):,} items, {parts}; {self.rule})"

    @property
    def observed(self) -> sp.csr_matrix:
        """(U, I): everything a user took, whichever part it is in."""
        return self.train + self.validation + self.test

    @property
    def item_counts(self) -> Array:
        """(I,) int64: train interactions of each item."""
        return np.bincount(self.train.indices, minlength=len(self.item_ids))

    @classmethod
    def make(
        cls, interactions: Interactions, config: SplitConfig = SplitConfig(), *, catalogue: Strings | None = None
    ) -> "Split":
        """Split as configured.

        Args:
            catalogue: item ids to rank besides those in the interactions.

        Raises:
            VbprError: interactions without what the rule needs, or a part that would be empty.
        """
        how, total = config.rule, len(interactions.user_ids)
        prefix = f"{interactions.rows}; " if interactions.rows else ""
        if how == "auto":
            how = "random" if interactions.splits is None and "split" not in interactions.unread else "file"
        if how not in SPLIT_RULES:
            raise VbprError(f"--split {how} is not known; choose from auto, {', '.join(SPLIT_RULES)}")
        if config.rule in DETERMINISTIC and config.min_interactions != SplitConfig.min_interactions:
            raise VbprError(f"--min-interactions does nothing for --split {how}; leave it out, or give --k-core")
        if config.rule in DETERMINISTIC and config.seed != SplitConfig.seed:
            raise VbprError(f"--split-seed does nothing for --split {how}, which draws nothing; leave it out")
        if config.k_core:
            before = interactions.item_ids
            interactions, prefix = interactions.k_core(config.k_core), f"{prefix}{config.k_core}-core; "
            if catalogue is not None:  # what was left out is not ranked: people have taken it
                catalogue = np.setdiff1d(catalogue, np.setdiff1d(before, interactions.item_ids))
        if how in ("random", "time"):
            least = max(3, config.min_interactions)
            enough = np.bincount(interactions.users) >= least
            if not enough.any():
                raise VbprError(
                    f"none of {len(enough):,} users has {least} distinct items, which --split {how} needs "
                    "(one for test, one for validation, the rest to learn from); lower --min-interactions"
                )
            interactions = interactions.select(enough[interactions.users])
        part, rule = SPLIT_RULES[how](interactions, config.seed)
        for column, why in interactions.unread.items():
            console.print(f"note: {why} (left alone: --split {how} needs no {column})")
        rule = prefix + rule
        if how in ("random", "time"):
            rule += f"; users with fewer than {least} items left out"
        item_ids = interactions.item_ids if catalogue is None else np.union1d(interactions.item_ids, catalogue)
        items = np.searchsorted(item_ids, interactions.item_ids)[interactions.items]
        shape = (len(interactions.user_ids), len(item_ids))
        train, validation, test = (csr(interactions.users[part == p], items[part == p], shape) for p in range(3))
        if not train.nnz or not (test.nnz or how == "none"):
            raise VbprError(
                f"the split ({rule}) leaves {train.nnz:,} interactions to train on and {test.nnz:,} to "
                "test; both are needed; choose another --split, or none to train on all without a test"
            )
        dropped = total - len(interactions.user_ids)
        columns = {role: name for role, name in interactions.named.items() if column_key(name) != column_key(role)}
        return cls(interactions.user_ids, item_ids, train, validation, test, rule, dropped, columns)


def leave_one_out(interactions: Interactions, rank: Array) -> Array:
    """(P,) uint8: each user's pair of highest rank goes to test, the next to validation."""
    order = np.lexsort((rank, interactions.users))
    ends = np.cumsum(np.bincount(interactions.users)) - 1
    part = np.zeros(len(order), np.uint8)
    part[order[ends]], part[order[ends - 1]] = 2, 1
    return part


def random_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    rank = np.random.default_rng(seed).random(len(interactions))
    return leave_one_out(interactions, rank), f"leave one out at random, seed {seed}"


def time_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    times = needed(interactions, interactions.times, "time", "timestamp")
    tie = np.random.default_rng(seed).random(len(interactions))  # events of one moment: in random order
    rank = np.empty(len(interactions))
    rank[np.lexsort((tie, times))] = np.arange(len(interactions))
    return leave_one_out(interactions, rank), f"each user's last item by time, seed {seed} among equal times"


def global_time_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    times = needed(interactions, interactions.times, "global-time", "timestamp")
    moments, counts = np.unique(times, return_counts=True)
    later = len(times) - np.cumsum(counts)  # events after each moment
    if len(moments) < 2:
        raise VbprError("--split global-time needs events of two moments at least; choose --split random")
    end = int(np.argmin(np.abs(later[:-1] - len(times) / 10)))  # the last moment that is not tested on
    begin = int(np.argmin(np.abs(later[: end + 1] - later[end] - len(times) / 10)))
    part = np.where(times > moments[end], 2, np.where(times > moments[begin], 1, 0)).astype(np.uint8)
    return part, "the last tenth of all events by time"


def file_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    return needed(interactions, interactions.splits, "file", "split"), "the file's own split column"


def none_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    return np.zeros(len(interactions), np.uint8), "none: every interaction is trained on"


def needed(interactions: Interactions, column: Array | None, how: str, name: str) -> Array:
    if name in interactions.unread:
        raise VbprError(interactions.unread[name])
    if column is None:
        raise VbprError(f"--split {how} needs a {name} column in the interactions; add one or choose --split random")
    return column


SPLIT_RULES: dict[str, Callable[[Interactions, int], tuple[Array, str]]] = {
    "random": random_rule,
    "time": time_rule,
    "global-time": global_time_rule,
    "file": file_rule,
    "none": none_rule,
}
DETERMINISTIC = {"global-time", "file", "none"}  # which leave nobody out and draw nothing

__all__ = ["SPLIT_RULES", "Split", "SplitConfig"]
