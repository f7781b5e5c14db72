"""How good a fitted model is, exactly: every held-out item against every item that its user has not seen.

metrics = evaluate(Factors.load("artifacts/inc.model.h5")); metrics.summary()["all"]["auc"]
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..base.arrays import Array, Strings
from ..base.errors import VbprError
from ..base.files import replacing_table
from ..base.progress import Progress
from ..executors.cluster import check_cluster
from ..stores.model.factors import Factors
from . import metrics
from .intervals import intervals
from .ranks import Ranks, ranks_of_users, subset
from .workers import only, shared_ranks

COLD = 5  # an item with fewer train interactions is cold; one with none is unseen
PARTS = {"all": np.inf, "cold": COLD, "unseen": 1}  # the parts of the evaluation: items with fewer than so many


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Ranks of the held-out items in three parts, and their summaries.

    Attributes:
        ranks: of each part: all, cold (item with fewer than 5 train interactions), unseen (none).
        model, data: what was evaluated, in words.
        coverage: share of the catalogue that is among the first ten of any user (of 2,000 drawn at random, if more).
        scores_unseen: whether the model can score an item without interactions; where it cannot, that part is left out.
    """

    ranks: dict[str, Ranks]
    model: str
    data: str
    coverage: float
    scores_unseen: bool = True

    def summary(self, k: int | Sequence[int] = 10, recall_k: int | Sequence[int] = 20) -> dict[str, Any]:
        """Means over users, each with a 95% bootstrap interval; JSON values.

        Args:
            k: cut-offs of NDCG and hit rate. recall_k: of recall.
        """
        out: dict[str, Any] = {"model": self.model, "data": self.data}
        for part, ranks in self.ranks.items():
            if not len(ranks.users):
                out[part] = {"users": 0}
            elif part == "unseen" and not self.scores_unseen:
                out[part] = {"users": len(np.unique(ranks.users))}
            else:
                out[part] = summary_of(ranks, k, recall_k)
        out["all"][f"coverage@{COVERAGE_K}"] = self.coverage
        return out

    def of_users(self, k: int | Sequence[int] = 10, recall_k: int | Sequence[int] = 20) -> dict[str, Array]:
        """(n,) columns, a row a user with held-out items: `user`, its position; `held_out`, how many items; every
        measure of `summary`; the AUC of its cold and unseen items (NaN: it has none, or the model cannot score them).
        """
        ranks = self.ranks["all"]
        users, held_out = np.unique(ranks.users, return_counts=True)
        out: dict[str, Array] = {"user": users, "held_out": held_out, **measures_of(ranks, k, recall_k)}
        for part in ("cold", "unseen"):
            out[f"{part}_auc"] = np.full(len(users), np.nan)
            if part == "cold" or self.scores_unseen:
                some = self.ranks[part]
                out[f"{part}_auc"][np.searchsorted(users, np.unique(some.users))] = metrics.mean_auc(some)
        return out


def measures_of(ranks: Ranks, k: int | Sequence[int], recall_k: int | Sequence[int]) -> dict[str, Array]:
    """(n,) figures of each user with held-out items, by every measure."""
    ks, recall_ks = (sorted({each} if isinstance(each, int) else set(each)) for each in (k, recall_k))
    return {
        "auc": metrics.mean_auc(ranks),
        "auc_strict": metrics.mean_auc(ranks, strict=True),
        **{f"ndcg@{n}": metrics.ndcg(ranks, n) for n in ks},
        **{f"recall@{n}": metrics.recall(ranks, n) for n in recall_ks},
        **{f"hr@{n}": metrics.hit_rate(ranks, n) for n in ks},
        "mrr": metrics.mrr(ranks),
        "map": metrics.average_precision(ranks),
    }


def summary_of(ranks: Ranks, k: int | Sequence[int], recall_k: int | Sequence[int]) -> dict[str, Any]:
    """The number of users of a part, the mean over them of every measure, and the interval of each mean."""
    values = measures_of(ranks, k, recall_k)
    means, ends = {name: float(value.mean()) for name, value in values.items()}, intervals(values)
    return {
        "users": len(values["auc"]),
        "auc": means.pop("auc"),
        "auc_interval": ends.pop("auc"),
        **means,
        "intervals": ends,
    }


COVERAGE_K, COVERAGE_USERS = 10, 2000


def evaluate(
    factors: Factors,
    held: str = "test",
    device: str = "auto",
    *,
    users: int | None = None,
    seed: int = 0,
    cluster: str | None = None,
    path: Path | str | None = None,
) -> Metrics:
    """Rank the held-out items of a fitted model.

    Args:
        held: test or validation.
        users: rank those of so many users only, drawn at random by `seed`; None for everyone. The time goes with them.
        cluster: `local`, or HOST:PORT of a Ray cluster's head, whose workers share the users; None: this process.
        path: of the model file, which they read.

    Raises:
        VbprError: there is no such part, it is empty in the model's split, or no user is asked for.
    """
    if held not in ("test", "validation"):
        raise VbprError(f"--held {held} is not known; choose test or validation")
    part: sp.csr_matrix = getattr(factors, held)
    if not part.nnz:
        raise VbprError(f"this model's split has no {held} items; train with another --split")
    if users is not None:
        part = sample_users(part, users, seed)
    if cluster is not None:
        if path is None:
            raise VbprError("workers of a cluster read the model from its file; give its path as well")
        check_cluster(cluster, device)
        ranks = shared_ranks(cluster, path, factors, held, part, device)
    else:
        with Progress("evaluate", int(np.count_nonzero(np.diff(part.indptr))), "users") as bar:
            ranks = ranks_of_users(factors, part, device, bar.advance)
    count = factors.train.getnnz(axis=0)[ranks.items]
    parts = {name: subset(ranks, count < fewer) for name, fewer in PARTS.items()}
    record = factors.record
    return Metrics(
        parts,
        record.title,
        record.data_title,
        coverage(factors, None if users is None else np.unique(ranks.users)),
        record.scores_unseen,
    )


def sample_users(held: sp.csr_matrix, users: int, seed: int) -> sp.csr_matrix:
    """The held-out items of `users` of those who have any, drawn without replacement.

    Raises:
        VbprError: no user is asked for.
    """
    if users < 1:
        raise VbprError(f"users is {users}; it must be at least 1")
    who = np.flatnonzero(np.diff(held.indptr))
    return only(held, np.random.default_rng(seed).permutation(who)[:users])


def coverage(factors: Factors, among: Array | None = None, seed: int = 0) -> float:
    """Share of the catalogue among the first ten of any of up to 2,000 users (a seeded sample), of those `among`."""
    among = np.arange(len(factors.user_ids)) if among is None else among
    users = np.random.default_rng(seed).choice(among, min(len(among), COVERAGE_USERS), replace=False)
    shown = factors.recommend_all(np.sort(users), COVERAGE_K)[0]
    return len(np.unique(shown[shown >= 0])) / len(factors.item_ids)


def write_users(path: Path | str, columns: Mapping[str, Array], user_ids: Strings) -> None:
    """Write a row a user as Parquet or CSV. Atomic.

    Args:
        columns: of `Metrics.of_users`; what is not a number is left empty.
    """
    import pyarrow as pa

    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items() if name != "user"}
    table = pa.table({"user_id": pa.array(user_ids[columns["user"]].tolist(), pa.string()), **arrays})
    with replacing_table(path, table.schema) as writer:
        writer.write_table(table)


__all__ = ["COLD", "PARTS", "Metrics", "evaluate", "write_users"]
