"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Folder with interactions.csv and images/, or `sample` "
        "[default: $VBPR_DATA, else what the file records, else sample]",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto (CUDA where there is one), cpu, cuda or cuda:N")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON; - for standard output")]
Grid = Annotated[Path | None, typer.Option("--grid", help="Draw the pictures into this PNG, JPEG or WebP file")]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Backbone weights: .safetensors, or a tensors-only .pt")
]
HowToSplit = Annotated[
    str, typer.Option("--split", help="auto, random, time, global-time, file, or none: train on all")
]
SplitSeed = Annotated[int, typer.Option("--split-seed", min=0, max=2**63 - 1, help="Seed of a random split")]
MinInteractions = Annotated[
    int, typer.Option("--min-interactions", min=3, help="random, time: users with fewer items are left out")
]
KCore = Annotated[int, typer.Option("--k-core", min=0, help="Keep only users and items with this many interactions")]
Category = Annotated[str | None, typer.Option(help="Only items of this category (a column of the data set's items)")]
Allowed = Annotated[Path | None, typer.Option(help="Only items in this file of ids, one a line")]
OnePer = Annotated[
    str | None, typer.Option(help="Column of the data set's items, as product: one item of each, none of those taken")
]

__all__ = [
    "Allowed",
    "Category",
    "Data",
    "Device",
    "Grid",
    "HowToSplit",
    "Json",
    "KCore",
    "MinInteractions",
    "OnePer",
    "SplitSeed",
    "Weights",
]
