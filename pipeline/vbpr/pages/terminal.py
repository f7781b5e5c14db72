"""Tables on the terminal."""

import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def terminal() -> Console:
    """Standard output; lines are not wrapped where it is no terminal, and no markup is read into ids and titles."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    return console


def harmless(text: str) -> str:
    """Text whose control characters, which could steer a terminal or turn the writing direction, are replaced."""
    return re.sub("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


SHOWN = ("ndcg", "recall", "hr", "mrr", "coverage")  # measures, at whatever cut-offs; --json has more


def print_metrics(summaries: list[dict[str, Any]], held: str = "test", drawn: bool = False) -> None:
    """A table with three lines a model: all, cold and unseen items.

    Args:
        summaries: of `Metrics.summary`.
        held: which held-out items these are of: test or validation.
        drawn: whether they are of a random sample of the users.
    """
    data = {summary["data"] for summary in summaries}
    of = f" of {data.pop()}" if len(data) == 1 and all(data) else ""
    sample = ", users drawn at random" if drawn else ""
    table = Table(title=f"{held} items{of}{sample}, exact over all items not taken", title_justify="left")
    shown = [name for name in summaries[0]["all"] if name.partition("@")[0] in SHOWN]
    for column in ("model", "items", "users", "AUC (95% interval)", *shown):
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
                    *(f"{values[key]:.4f}" if key in values else "" for key in shown),
                ]
            else:
                cells = ["-"] * (1 + len(shown))
            table.add_row(name if part == "all" else "", part, f"{values['users']:,}", *cells)
    terminal().print(table)


def print_items(title: str, ids: list[str], scores: Sequence[float], names: list[str], measure: str) -> None:
    """A table of items, best first; `measure` heads the column of scores, which may be counts (int)."""
    table = Table(title=harmless(title))
    for column in ("", "item", measure, "title"):
        table.add_column(column, justify="right" if column in ("", measure) else "left", overflow="fold")
    for n, (item, score, name) in enumerate(zip(ids, scores, names, strict=True), start=1):
        value = f"{score:,}" if isinstance(score, int) else f"{score:.4f}"
        table.add_row(str(n), harmless(item), value, harmless(name))
    terminal().print(table)


def print_explanation(told: dict[str, Any], title: str, names: list[str]) -> None:
    """A table of what speaks for an item, and the lines that make its sum the score.

    Args:
        told: of `Explanation.to_json`. title, names: of the item, and of those that speak for it.
    """
    ids = [each["item_id"] for each in told["because"]]
    heading = f"why {told['user']} gets {told['item']} {title}".rstrip()
    print_items(heading, ids, [each["share"] for each in told["because"]], names, "share")
    others, popularity = told["others"], told["popularity"]
    lines = [f"{others['items']:,} other items: {others['share']:.4f}"] if others["items"] else []
    lines += [f"{name}: {told[key]:.4f}" for key, name in SUMMANDS.items() if told[key]]
    place = "the user has it" if told["place"] is None else f"place {told['place']:,} of what the user does not have"
    lines.append(f"score: {told['score']:.4f}, {place}")
    lines.append(shares_are(told))
    for part in told["parts"]:
        of = f"{part['share']:.4f}" if "share" in part else f"weight {part['warm']:g} warm, {part['cold']:g} cold"
        lines.append(f"part {part['part']}: {of}")
    lines.append(
        f"popularity: {popularity['purchases']:,} train purchases, place {popularity['place']:,} of "
        f"{popularity['items']:,} items"
    )
    print("\n".join(harmless(line) for line in lines))


def shares_are(told: dict[str, Any]) -> str:
    """What the shares of `Explanation.to_json` are, in words: exact or near, by which rule, and how near."""
    near = "" if told["explained"] is None else f" ({told['explained']:.1%} of what tells the user's scores apart)"
    return f"shares are {'exact' if told['exact'] else 'approximate'}: {told['method']}{near}"


SUMMANDS = {"constant": "the same for every taste", "bias": "the item itself", "rest": "not explained"}

__all__ = ["print_explanation", "print_items", "print_metrics", "shares_are", "terminal"]
