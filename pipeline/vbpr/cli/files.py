"""`vbpr info`, `pictures` and `convert`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..base.errors import VbprError
from .options import Json, MinRating, Where
from .output import keep_apart, tell_next, tells_json


@tells_json
def info(
    file: Annotated[Path, typer.Argument(help="Feature file, model file or index")],
    failures: Annotated[bool, typer.Option("--failures", help="List the images that could not be used")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every block of a feature file with its digest")
    ] = False,
    json_out: Json = None,
) -> Any:
    """What a file is, what made it, and how complete it is."""
    from ..base.hdf5 import kind_of

    keep_apart(json_out, {"file": file})
    kind = kind_of(file)
    if (failures or verify) and kind != "features":
        raise VbprError(f"--failures and --verify are for feature files; {file} is another kind ({kind or 'unknown'})")
    if kind == "features":
        return {"kind": kind} | print_features(file, failures, verify)
    if kind == "index":
        return {"kind": kind} | print_index(file)
    if kind == "model":
        return {"kind": kind} | print_model(file)
    raise VbprError(f"{file} is no feature file, model file or index of vbpr's")


def print_features(file: Path, failures: bool, verify: bool) -> dict[str, Any]:
    """How complete a feature file is, what made it, and on request its failures and whether its digests agree."""
    from ..extraction.extract import summary
    from ..stores.features.store import FeatureStore

    store = FeatureStore(file)
    failed = store.failures()
    counts = {"items": len(store), "dim": store.dim, "done": len(store.done), "pending": len(store.pending)}
    noun = "pictures" if "pictures" in store.provenance else "items"
    print(
        f"{file}: features, {counts['items']:,} {noun} x {store.dim}, {counts['done']:,} done, {counts['pending']:,} "
        f"pending, {len(failed):,} failed" + (f" ({summary(failed)})" if failed else "")
    )
    made: tuple[str, ...] = (
        "backbone",
        "own",
        "weights",
        "weights_digest",
        "preprocessing",
        "precision",
        "data",
        "images",
        "views",
    )
    made = (*made, "max_shared", "versions", "imported")
    about = {key: store.provenance[key] for key in made if key in store.provenance}
    for key, value in about.items():
        print(f"  {key}: {value}")
    if failures:
        for item_id, reason in failed:
            print(f"{item_id!r}: {reason}")
    if verify:
        store.check(store.verify())
        print(f"  verified: {store.sealed_rows():,} of {len(store):,} items lie in blocks whose digest agrees")
    return counts | {"failed": {str(item_id): reason for item_id, reason in failed}, "about": about}


def print_index(file: Path) -> dict[str, Any]:
    """What an index holds, and what made it."""
    from ..answers.index_file import read_index

    data, ids, about, _ = read_index(file)
    print(f"{file}: index, {len(ids):,} items, {data.nbytes / 2**20:,.1f} MB")
    for key, value in about.items():
        print(f"  {key}: {value}")
    return {"items": len(ids), "bytes": data.nbytes, "about": about}


def print_model(file: Path) -> dict[str, Any]:
    """What a model file holds, and what made it."""
    from ..stores.model.stored import model_in

    factors = model_in(file)
    print(f"{file}: {factors}")
    held = factors.interactions
    print(f"  interactions: {', '.join(f'{count:,} {name}' for name, count in held.items())}")
    for key, value in factors.about.items():
        if key == "blend":
            print(
                "  blend: weights of warm and cold items, validation AUC of each part alone, what the blend gains by it"
            )
            for part in value:
                print("    " + ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in part.items()))
            continue
        print(f"  {key}: {value if key != 'curve' else f'{len(value)} points, last {value[-1:]}'}")
    sizes = {"users": len(factors.users), "items": len(factors.items), "dim": int(factors.users.shape[1])}
    return sizes | {"interactions": held, "about": factors.about}


def pictures(
    data: Annotated[Path, typer.Argument(help="Folder with images, and perhaps interactions")],
    suffixes: Annotated[
        bool, typer.Option("--suffixes", help="Take i0_2, i0-150x150 and i0 (1) for further pictures of i0")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write it [default: standard output]")] = None,
) -> None:
    """Whose picture each file is. As the table that images.csv may be: item_id, file, position; to look at or mend."""
    from ..base.files import replace_text
    from ..data.dataset import Dataset
    from ..data.images.table import table_of

    if out is not None and out.exists():
        raise VbprError(f"{out} is there; move it away, or choose another place with --out")
    text = table_of(Dataset.resolve(data), suffixes)
    if out is None:
        print(text, end="")
    else:
        replace_text(out, text, errors="surrogateescape")
        print(f"{out}: {text.count(chr(10)) - 1:,} pictures")


def list_layouts(wanted: bool) -> None:
    """Every layout with its sentence, and whether `--data` reads it or `vbpr convert` does."""
    if wanted:
        from ..data.layouts import LAYOUTS

        for name, layout in LAYOUTS.items():
            print(f"{name}: {layout.about} [{'--data' if layout.read else 'convert'}]")
        raise typer.Exit


def convert(
    source: Annotated[Path, typer.Argument(help="File or folder of any of the layouts that --list names")],
    out: Annotated[Path, typer.Argument(help="Folder to make")],
    min_rating: MinRating = None,
    where: Where = None,
    layouts: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=list_layouts, help="Name the layouts, and stop")
    ] = False,
) -> None:
    """A foreign data set into a folder for every other command. Run again to resume."""
    from ..data.converters import convert as run
    from ..data.where import Rows
    from ..extraction.importers import IMPORTERS

    try:
        done = run(source, out, Rows(where or "", min_rating))
    except VbprError as error:
        if any(importer.takes(source) for importer in IMPORTERS.values()):
            raise VbprError(
                f"{error}. If it holds features, and no images: vbpr import {source} --out FILE.h5"
            ) from error
        raise
    print(f"{done.path}: " + ", ".join(f"{count:,} {name}" for name, count in done.counts.items()))
    for note in done.notes:
        print(f"note: {note}")
    tell_next("extract", "--backbone", "inception", "--data", done.path)


__all__ = ["convert", "info", "pictures"]
