"""Tables on the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_metrics(summaries: list[dict[str, Any]], held: str = "test") -> None:
    """The table of the terminal: a line a model and part."""
    first = summaries[0]
    table = Table(title=f"{held} items of {first['data']}, exact over all unseen items")
    keys = [key for key in first["all"] if key not in ("users", "auc", "auc_interval")]
    for column in ("model", "items", "users", "AUC", "95% interval", *keys):
        table.add_column(column, justify="left" if column in ("model", "items") else "right")
    for summary in summaries:
        for part in ("all", "cold", "unseen"):
            values = summary[part]
            if "auc" in values:
                low, high = values["auc_interval"]
                cells = [
                    f"{values['auc']:.4f}",
                    f"{low:.4f}-{high:.4f}",
                    *(f"{values[key]:.4f}" if key in values else "" for key in keys),
                ]
            else:
                cells = ["-"] * 2 + ["-"] * len(keys)
            table.add_row(summary["model"] if part == "all" else "", part, f"{values['users']:,}", *cells)
    console = Console()
    Console(width=max(130, console.width) if not console.is_terminal else None).print(table)


def print_items(title: str, ids: list[str], scores: Sequence[float], names: list[str], what: str) -> None:
    table = Table(title=title)
    for column in ("", "item", what, "title"):
        table.add_column(column, justify="right" if column in ("", what) else "left")
    for n, (item, score, name) in enumerate(zip(ids, scores, names, strict=True), start=1):
        table.add_row(str(n), item, f"{score:.4f}", name)
    Console().print(table)


__all__ = ["print_items", "print_metrics"]
