"""The tables that `vbpr compare` and `vbpr tune` print."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ..pages.terminal import terminal


def print_comparison(result: dict[str, Any]) -> None:
    """A table of each data set, and one of its paired tests."""
    from ..studies.compare.table import LEGEND, PUBLISHED_PROTOCOLS, differences, heading, table_of

    for data in result["data"]:
        tables = {heading(data): table_of(data)} | ({LEGEND: differences(data)} if data["tests"] else {})
        for title, (header, rows) in tables.items():
            table = Table(title=title, title_justify="left")
            for n, column in enumerate(header):
                table.add_column(column, justify="right" if n else "left")
            for row in rows:
                table.add_row(*row)
            terminal().print(table)
    if any(data["published_protocols"] for data in result["data"]):
        for name, about in PUBLISHED_PROTOCOLS.items():
            print(f"{name}: {about}")


def print_trials(objective: str, trials: Sequence[Any], shown: int = 10) -> None:
    """The best `shown` trials of a study, with a column for each parameter."""
    names = list(trials[0].params)
    table = Table(title=f"best trials by validation {objective}", title_justify="left")
    for column in ("trial", objective, "seconds", *names):
        table.add_column(column, justify="right", no_wrap=True)
    for trial in trials[:shown]:
        values = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in trial.params.values())
        table.add_row(str(trial.number), f"{trial.value:.4f}", f"{trial.seconds:.1f}", *values)
    terminal().print(table)


__all__ = ["print_comparison", "print_trials"]
