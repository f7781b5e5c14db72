"""Which methods differ by more than chance: paired tests with Holm's correction."""

from typing import Any

from ...base.arrays import Array
from ...evaluation.evaluate import PARTS
from ...evaluation.intervals import paired_tests
from .cells import USERS

MEANS = ("auc", "auc_strict", "ndcg@10", "recall@20", "hr@10", "mrr", "map", "coverage@10")


def told_apart(rows: list[dict[str, Any]], users: dict[str, dict[str, Array]]) -> list[dict[str, Any]]:
    """Paired tests by every measure, of the methods that have it; each measure is a family of its own."""
    out = []
    for name in USERS:
        part = name if name in PARTS else "all"
        values = {row["method"]: users[row["method"]][name] for row in rows if "auc" in row[part]}
        out += [{"measure": name} | test for test in paired_tests(values)]
    return out


__all__ = ["MEANS", "told_apart"]
