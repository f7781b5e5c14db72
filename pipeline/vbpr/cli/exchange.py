"""`vbpr import` and `export`."""

from pathlib import Path
from typing import Annotated

import typer

from ..base.errors import counted, some
from .output import tell_next


def import_features(
    source: Annotated[
        Path,
        typer.Argument(
            help=".npy, .npz, image_features_*.b, .safetensors, .h5, .parquet, or a folder: clip-retrieval's, Parquet "
            "files, one .npy an item"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Feature file to make")],
    ids: Annotated[
        str, typer.Option(help="File of ids, a row each (text, CSV, Parquet, JSON, i_id_mapping.csv), or `numbers`")
    ] = "",
    column: Annotated[
        str, typer.Option(help="Column, tensor, data set or array of the vectors, where there are several")
    ] = "",
    id_column: Annotated[str, typer.Option(help="Column of the ids, in SOURCE or in --ids")] = "",
    duplicates: Annotated[str, typer.Option(help="An item that comes twice: refuse, or take the first")] = "refuse",
    max_bad: Annotated[float, typer.Option(help="Largest share of rows that may be unusable")] = 0.05,
    data: Annotated[
        str | None, typer.Option(help="Data set that the features are for: its items are counted, and train finds it")
    ] = None,
) -> None:
    """Features made elsewhere into a feature file, by id. Run again to resume."""
    from ..extraction.extract import summary
    from ..extraction.importers.importing import import_features as run

    done = run(
        source,
        out,
        ids=ids,
        column=column,
        id_column=id_column,
        duplicates=duplicates,
        max_bad=max_bad,
        data=data,
    )
    usable = done.items - len(done.failures)
    print(
        f"{done.path}: {usable:,} of {counted(done.items, 'item')} x {done.dim:,} ({done.source}); "
        f"{done.written:,} written now"
    )
    if done.failures:
        first = some(repr(item)[1:-1] for item, _ in done.failures)
        print(
            f"skipped {counted(len(done.failures), 'row')}: {summary(done.failures)} ({first}); "
            f"vbpr info {done.path} --failures lists them"
        )
    for note in done.notes:
        print(f"note: {note}")
    tell_next("train", "--features", done.path, *(["--data", data] if data else []))


__all__ = ["import_features"]
