"""The tables of a comparison: its rows in compare.json, and their text for a terminal and for compare.md."""

import csv
import io
from typing import Any

import numpy as np

from ...base.arrays import Array
from ...data.converters.published import PUBLISHED
from ...evaluation.evaluate import PARTS
from ...evaluation.intervals import interval
from ...stores.features.store import FeatureStore
from .cells import USERS
from .methods import Method
from .tests import MEANS

PUBLISHED_PROTOCOLS = {
    "sampled-100": "share of 100 random items not taken that score strictly lower (DVBPR's code)",
    "sampled-1": "one random item not taken, strictly lower (the report); standard error about .4 / sqrt(users)",
    "best-epoch-on-test": "exact AUC of the epoch that the test items themselves chose (the report): too high",
}


def row_of(
    method: Method,
    cells: list[dict[str, Any]],
    users: dict[str, Array],
    spent: dict[str, Any],
    recognised: str | None,
    features: FeatureStore | None,
    untrained: bool,
) -> dict[str, Any]:
    """A method's row of compare.json: means over its cells, one a seed, and intervals of the users' mean AUC.

    Args:
        users: of each measure, every user's figure.
        spent: what the features cost: seconds, images.
        recognised: the published data set that this is, whose report has figures of its own.
        untrained: whether the model's network has random weights.
    """
    row: dict[str, Any] = {"method": method.name, "model": method.model, "seeds": len(cells)}
    if features is not None:
        row["backbone"], row["weights"] = method.backbone, features.provenance["weights"]
    row["random_weights"] = untrained or row.get("weights") == "random"
    for part in PARTS:
        summaries = [c["summary"][part] for c in cells]
        row[part] = {"users": summaries[0]["users"]}
        if "auc" in summaries[0]:
            row[part] |= {key: float(np.mean([s[key] for s in summaries])) for key in MEANS if key in summaries[0]}
            row[part]["auc_interval"] = interval(users[part])
    row["auc_by_seed"] = [c["summary"]["all"]["auc"] for c in cells]
    row["seconds_once"] = spent["seconds"]
    row["seconds"] = None if cells[0]["seconds"] is None else float(np.mean([c["seconds"] for c in cells]))
    row["images_encoded"] = spent["images"] or cells[0]["encoded"]
    names = [name for name in cells[0]["published"] if all(name in cell["published"] for cell in cells)]
    row["published_protocols"] = {name: float(np.mean([c["published"][name] for c in cells])) for name in names}
    row["report"] = PUBLISHED[recognised].auc.get(method.name) if recognised else None
    return row


def table_of(data: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of one data set's table."""
    header = [
        "method",
        "AUC",
        "95% interval",
        "cold (users)",
        "unseen (users)",
        "NDCG@10",
        "HR@10",
        "coverage@10",
        "once, s",
        "train, s",
        "images encoded",
    ]
    names = list(PUBLISHED_PROTOCOLS) if data["published_protocols"] else []
    header += names + (["report"] if data["recognised"] else [])
    rows = []
    for row in data["methods"]:
        low, high = row["all"]["auc_interval"]
        cells = [
            row["method"] + (" (RANDOM weights)" if row.get("random_weights") else ""),
            f"{row['all']['auc']:.4f}",
            f"{low:.4f}-{high:.4f}",
            *(of_so_many(row[part]) for part in ("cold", "unseen")),
            f"{row['all']['ndcg@10']:.4f}",
            f"{row['all']['hr@10']:.4f}",
            f"{row['all']['coverage@10']:.4f}",
            f"{row['seconds_once']:,.0f}",
            "-" if row["seconds"] is None else f"{row['seconds']:,.1f}",
            f"{row['images_encoded']:,}",
        ]
        cells += [f"{row['published_protocols'][n]:.4f}" if n in row["published_protocols"] else "-" for n in names]
        if data["recognised"]:
            cells.append(f"{row['report']:.3f}" if row["report"] is not None else "-")
        rows.append(cells)
    return header, rows


def of_so_many(figures: dict[str, Any]) -> str:
    """An AUC and how many users it is of: of one user it may well be 1."""
    return f"{figures['auc']:.4f} ({figures['users']:,})" if "auc" in figures else "-"


def heading(data: dict[str, Any]) -> str:
    """The title of one data set's table."""
    published = f", the published {data['recognised']}" if data["recognised"] else ""
    counts = ", ".join(f"{data[name]:,} {name}" for name in ("users", "items", "interactions"))
    return f"{data['title']}{published}: {counts}"


def differences(data: dict[str, Any], intervals: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the paired tests: a line a pair of methods, a column a measure."""
    cells: dict[str, dict[str, str]] = {}
    for t in data["tests"]:
        interval_text = f" ({t['interval'][0]:+.4f} to {t['interval'][1]:+.4f})" if intervals else ""
        star = " *" if t["p_holm"] < 0.05 else ""
        pair = cells.setdefault(f"{t['a']} - {t['b']}", {})
        pair[t["measure"]] = f"{t['difference']:+.4f}{interval_text}, {shown_p(t['p_holm'])}{star}"
    names = [name for name in USERS if any(name in of for of in cells.values())]
    rows = [[pair, *(of.get(name, "-") for name in names)] for pair, of in cells.items()]
    return ["difference of means", *(USERS[name] for name in names)], rows


LEGEND = "*: told apart (p < 0.05 by a paired t-test, with Holm's correction over the pairs of a column)"


def shown_p(p: float) -> str:
    """A p-value as text."""
    return f"p {p:.2g}" if p >= 1e-9 else "p under 1e-9"


def markdown(result: dict[str, Any]) -> str:
    """compare.md: the tables and the tests."""
    lines = ["# Comparison", "", result["protocol"], f"Seeds: {result['seeds']}.", ""]
    for data in result["data"]:
        header, rows = table_of(data)
        lines += [f"## {heading(data)}", "", f"Split: {data['split']}.", ""]
        lines += page_table(header, rows)
        if data["published_protocols"]:
            lines += ["", *(f"- {name}: {about}." for name, about in PUBLISHED_PROTOCOLS.items())]
        if data["tests"]:
            lines += ["", *page_table(*differences(data, intervals=True)), "", LEGEND]
        lines.append("")
    return "\n".join(lines)


def as_csv(result: dict[str, Any]) -> str:
    """compare.csv: a row a data set, method and part (all, cold, unseen), a column a measure; empty: not measured."""
    names = ["users", *MEANS]
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(["data", "method", "seeds", "part", *names, "auc_low", "auc_high", "seconds_once", "seconds"])
    for data in result["data"]:
        for row in data["methods"]:
            for part in PARTS:
                ends = row[part].get("auc_interval", ["", ""])
                figures = [row[part].get(name, "") for name in names]
                cost = [row["seconds_once"], "" if row["seconds"] is None else row["seconds"]]
                lines.writerow([data["title"], row["method"], row["seeds"], part, *figures, *ends, *cost])
    return out.getvalue()


def as_latex(result: dict[str, Any]) -> str:
    """compare.tex: the tables of compare.md for LaTeX with the package booktabs."""
    lines = ["% \\usepackage{booktabs}"]
    for data in result["data"]:
        header, rows = table_of(data)
        body = [" & ".join(escaped(cell) for cell in row) + r" \\" for row in (header, *rows)]
        lines += [
            "% " + " ".join(heading(data).split()),
            r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
            r"\toprule",
        ]
        lines += [body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(LATEX.get(letter, letter) for letter in text)


LATEX = {letter: "\\" + letter for letter in "&%$#_{}"}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def page_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)]


__all__ = [
    "LEGEND",
    "PUBLISHED_PROTOCOLS",
    "as_csv",
    "as_latex",
    "differences",
    "escaped",
    "heading",
    "markdown",
    "row_of",
    "table_of",
]
