"""`vbpr import` and `export`."""

from pathlib import Path
from typing import Annotated

import typer

from ..base.errors import counted, some
from .options import HowToSplit, KCore, MinInteractions, SplitSeed
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


def export(
    source: Annotated[Path, typer.Argument(help="Model file, feature file, or data set (a folder, or `sample`)")],
    to: Annotated[
        str,
        typer.Option(
            help="Vectors: npy, parquet, safetensors, faiss, pgvector, qdrant; a split: recbole, mmrec, elliot, cornac"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make; an earlier export in it is replaced")],
    features: Annotated[
        list[Path] | None, typer.Option(help="With a split: feature file whose rows go along; may repeat")
    ] = None,
    split: HowToSplit = "auto",
    min_interactions: MinInteractions = 5,
    k_core: KCore = 0,
    split_seed: SplitSeed = 0,
) -> None:
    """Vectors for other programs, or the very split."""
    from ..answers.exporters.exporting import export as run
    from ..data.split import SplitConfig

    done = run(source, to, out, features=features or [], split=SplitConfig(split, min_interactions, k_core, split_seed))
    files = ", ".join(f"{name} ({size / 2**20:,.1f} MB)" for name, size in done.files.items())
    print(f"{done.path}: {done.source}")
    print(f"files: {files}")
    for note in done.notes:
        print(f"note: {note}")


__all__ = ["export", "import_features"]
