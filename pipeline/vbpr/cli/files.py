"""`vbpr info` and `convert`."""

from pathlib import Path
from typing import Annotated

import typer

from ..base.errors import VbprError
from .output import tell_next


def info(
    file: Annotated[Path, typer.Argument(help="Feature file, model file or index")],
    failures: Annotated[bool, typer.Option("--failures", help="List the images that could not be used")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every block of a feature file with its digest")
    ] = False,
) -> None:
    """What a file is, what made it, and how complete it is."""
    from ..base.hdf5 import kind_of

    kind = kind_of(file)
    if (failures or verify) and kind != "features":
        raise VbprError(f"--failures and --verify are for feature files; {file} is another kind ({kind or 'unknown'})")
    if kind == "features":
        print_features(file, failures, verify)
    elif kind == "index":
        print_index(file)
    elif kind == "model":
        print_model(file)
    else:
        raise VbprError(f"{file} is no feature file, model file or index of vbpr's")


def print_features(file: Path, failures: bool, verify: bool) -> None:
    """How complete a feature file is, what made it, and on request its failures and whether its digests agree."""
    from ..extraction.extract import summary
    from ..stores.features.store import FeatureStore

    store = FeatureStore(file)
    failed = store.failures()
    print(
        f"{file}: features, {len(store):,} items x {store.dim}, {len(store.done):,} done, {len(store.pending):,} "
        f"pending, {len(failed):,} failed" + (f" ({summary(failed)})" if failed else "")
    )
    for key in ("backbone", "weights", "weights_digest", "preprocessing", "precision", "data", "versions"):
        if key in store.provenance:
            print(f"  {key}: {store.provenance[key]}")
    if failures:
        for item_id, reason in failed:
            print(f"{item_id!r}: {reason}")
    if verify:
        store.check(store.verify())
        print(f"  verified: {store.sealed_rows():,} of {len(store):,} items lie in blocks whose digest agrees")


def print_index(file: Path) -> None:
    """What an index holds, and what made it."""
    from ..answers.index_file import read_index

    data, ids, about, _ = read_index(file)
    print(f"{file}: index, {len(ids):,} items, {data.nbytes / 2**20:,.1f} MB")
    for key, value in about.items():
        print(f"  {key}: {value}")


def print_model(file: Path) -> None:
    """What a model file holds, and what made it."""
    from ..data.parts import MATRICES
    from ..stores.model.factors import Factors

    factors = Factors.load(file)
    print(f"{file}: {factors}")
    parts = ", ".join(f"{getattr(factors, name).nnz:,} {name}" for name in MATRICES)
    print(f"  interactions: {parts}")
    for key, value in factors.about.items():
        if key == "blend":
            print(
                "  blend: weights of warm and cold items, validation AUC of each part alone, what the blend gains by it"
            )
            for part in value:
                print("    " + ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in part.items()))
            continue
        print(f"  {key}: {value if key != 'curve' else f'{len(value)} points, last {value[-1:]}'}")


def convert(
    source: Annotated[
        Path, typer.Argument(help="*ImgPartitioned.npy, reviews_*.json.gz, tradesy.json.gz, or Parquet files of images")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to make")],
) -> None:
    """A foreign data set into the folder that every other command reads. Run again to resume."""
    from ..data.converters import convert as run

    done = run(source, out)
    print(f"{done.path}: " + ", ".join(f"{count:,} {name}" for name, count in done.counts.items()))
    for note in done.notes:
        print(f"note: {note}")
    tell_next("extract", "--backbone", "inception", "--data", done.path)


__all__ = ["convert", "info"]
