"""Tables on the terminal."""

import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def terminal() -> Console:
    """Standard output, without an end to its lines where it is no terminal; ids and titles are shown as they are."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    return console


def harmless(text: str) -> str:
    """Text without what would steer a terminal or turn the direction of what follows."""
    return re.sub("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


SHOWN = ("ndcg@10", "recall@20", "hr@10", "mrr", "coverage@10")  # the JSON has more


def print_metrics(summaries: list[dict[str, Any]], held: str = "test", drawn: bool = False) -> None:
    """A line a model and part of its items: all, cold, unseen; `drawn`: of some users, drawn at random."""
    data = {summary["data"] for summary in summaries}
    of = f" of {data.pop()}" if len(data) == 1 and all(data) else ""
    some = ", users drawn at random" if drawn else ""
    table = Table(title=f"{held} items{of}{some}, exact over all items not taken", title_justify="left")
    for column in ("model", "items", "users", "AUC (95% interval)", *SHOWN):
        table.add_column(column, justify="left" if column in ("model", "items") else "right", no_wrap=True)
    names = [summary["model"] for summary in summaries]
    for summary in summaries:
        name = summary["model"] if names.count(summary["model"]) == 1 else f"{summary['model']}: {summary['file']}"
        for part in ("all", "cold", "unseen"):
            values = summary[part]
            if "auc" in values:
                low, high = values["auc_interval"]
                cells = [
                    f"{values['auc']:.4f} ({low:.3f}-{high:.3f})",
                    *(f"{values[key]:.4f}" if key in values else "" for key in SHOWN),
                ]
            else:
                cells = ["-"] * (1 + len(SHOWN))
            table.add_row(name if part == "all" else "", part, f"{values['users']:,}", *cells)
    terminal().print(table)


def print_items(title: str, ids: list[str], scores: Sequence[float], names: list[str], what: str) -> None:
    table = Table(title=harmless(title))
    for column in ("", "item", what, "title"):
        table.add_column(column, justify="right" if column in ("", what) else "left", overflow="fold")
    for n, (item, score, name) in enumerate(zip(ids, scores, names, strict=True), start=1):
        table.add_row(str(n), harmless(item), f"{score:.4f}", harmless(name))
    terminal().print(table)


__all__ = ["print_items", "print_metrics", "terminal"]
