"""`vbpr explain`, `similar`, `index` and `add-items`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import VbprError, counted, some
from .options import Allowed, Category, Data, Device, Grid, Json, OnePer, Weights
from .output import tell_next, tell_others, tells_json

if TYPE_CHECKING:
    from ..answers.answer import Answer


@tells_json
def explain(
    model: Annotated[Path, typer.Argument(help="Model file")],
    user: Annotated[str, typer.Option(help="User id")],
    item: Annotated[str, typer.Option(help="Item id")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many of the user's items")] = 5,
    data: Data = None,
    json_out: Json = None,
    grid: Grid = None,
) -> Any:
    """Why a user gets an item. What each thing that the user took adds to its score, and how popular it is."""
    from ..answers.explain import explain as run
    from ..pages.grid import Row, check_grid, save_grid
    from ..pages.photos import Photos
    from ..pages.terminal import print_explanation

    check_grid(grid)
    found, factors, dataset = run(model, user, item, data)
    photos, told = Photos(dataset, factors.record.added), found.to_json(k)
    ids = [each["item_id"] for each in told["because"]]
    print_explanation(told, photos.titles([item])[0], photos.titles(ids))
    if grid:
        why = f"because {user} took"
        save_grid(grid, [Row(f"for {user}", [found.item]), Row(why, ids)], photos)
        print(f"pictures: {grid}")
    return told


def index(
    file: Annotated[Path, typer.Argument(help="Model file (its item vectors) or feature file (raw features)")],
    kind: Annotated[str, typer.Option(help="auto (by size), flat (exact), hnsw or ivfpq")] = "auto",
    metric: Annotated[str, typer.Option(help="cosine or inner (product)")] = "cosine",
    out: Annotated[Path | None, typer.Option(help="Index file [default: the file's name with .index]")] = None,
) -> None:
    """Save a FAISS index for `similar` and `serve`. Once the model changes, it is passed over."""
    import time

    from ..answers.index_file import index_path
    from ..answers.nearest import Nearest
    from ..base.targets import check_target

    path = out or index_path(file)
    check_target(path, "index")
    started = time.monotonic()
    near = Nearest.of(file, kind, metric)
    near.save(path)
    seconds, effort = time.monotonic() - started, {"hnsw": "efSearch", "ivfpq": "nprobe"}
    print(f"{path}: {near.kind} ({near.reason}), {len(near.item_ids):,} items by {metric}, {seconds:.1f} s")
    if near.kind in effort:
        print(f"recall@10 {near.recall:.3f} against exact search at {effort[near.kind]} {near.effort}")
    tell_next("similar", file, "--item", "ID", *(["--index", str(path)] if out else []))


@tells_json
def similar(
    file: Annotated[Path, typer.Argument(help="Model file (its item vectors) or feature file (raw features)")],
    item: Annotated[list[str] | None, typer.Option(help="Item id to start from; may repeat: what they share")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="Photo to start from; may repeat: what they share")] = None,
    items: Annotated[
        Path | None, typer.Option(help="File of item ids, one a line, each asked for; needs --out")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many")] = 10,
    category: Category = None,
    allowed: Allowed = None,
    one_per: OnePer = None,
    unseen_by: Annotated[
        str | None, typer.Option(help="Only items that this user has not taken (needs a model file)")
    ] = None,
    index: Annotated[Path | None, typer.Option(help="Index file [default: the one beside FILE, else exact]")] = None,
    out: Annotated[Path | None, typer.Option(help="Parquet or CSV file for --items")] = None,
    data: Data = None,
    weights: Weights = None,
    json_out: Json = None,
    grid: Grid = None,
) -> Any:
    """The items nearest to items or photos."""
    from ..answers.similar import similar as run
    from ..answers.similar import similar_to_many

    if sum([bool(item), bool(image), items is not None]) != 1:
        raise VbprError("give one of --item ID, --image PHOTO and --items FILE")
    refuse_weights(weights, image)
    check_place(grid)
    filters: dict[str, Any] = {
        "category": category,
        "allowed": allowed,
        "one_per": one_per,
        "unseen_by": unseen_by,
        "index": index,
        "data": data,
    }
    if items is not None:
        if out is None or grid or json_out:
            raise VbprError("--items writes a table; give --out NAME.parquet or NAME.csv, without --grid and --json")
        done = similar_to_many(file, out, items, k, **filters)
        print(f"{out}: {counted(done.rows, 'row')} for {counted(done.queries, 'item')}")
        return None
    if out is not None:
        raise VbprError("--out is for --items; --json FILE or --grid FILE keeps what one query finds")
    return show(run(file, item or [], k, images=image or [], weights=weights, **filters), grid, image)


def add_items(
    model: Annotated[Path, typer.Argument(help="Model file; it is replaced in one step")],
    images: Annotated[Path, typer.Argument(help="Folder, tar or zip of new images; a file's stem is the item's id")],
    duplicates: Annotated[str, typer.Option(help="Items that the model has already: skip or refuse")] = "skip",
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """New items from their images alone, without retraining. They are ranked for every user at once."""
    from ..answers.add_items import add_items as run
    from ..extraction.extract import summary

    done = run(model, images, weights=weights, duplicates=duplicates, device=device)
    names = f" ({some(done.item_ids)})" if done.item_ids else ""
    print(f"{model}: {counted(len(done.item_ids), 'item')} added{names}")
    if done.skipped:
        print(f"in the model already, left as they were: {len(done.skipped):,} ({some(done.skipped)})")
    if done.failures:
        first = some(i for i, _ in done.failures)
        print(f"skipped {counted(len(done.failures), 'image')}: {summary(done.failures)} ({first})")
    tell_others(done.others)
    if done.index:
        print(f"index: {done.index} has them too")


def show(answer: "Answer", grid: Path | None, image: list[Path] | None) -> dict[str, Any]:
    """Print an answer, draw it where that was asked for, and return it as JSON."""
    from ..pages.terminal import print_items

    print_items(answer.title, answer.item_ids, answer.scores, answer.data.titles(answer.item_ids), answer.metric)
    if grid:
        from ..pages.grid import Row, save_grid
        from ..pages.photos import Photos

        photos = Photos(answer.data, answer.added)
        for path in image or []:
            photos.add(path)
        save_grid(grid, [Row(answer.given_as, answer.given), Row(answer.listed_as, answer.item_ids)], photos)
        print(f"pictures: {grid}")
    return answer.to_json()


def check_place(grid: Path | None) -> None:
    """See `check_grid`."""
    if grid is not None:
        from ..pages.grid import check_grid

        check_grid(grid)


def refuse_weights(weights: Path | None, image: list[Path] | None) -> None:
    if weights and not image:
        raise VbprError("--weights are for the backbone that encodes --image; leave them out")


__all__ = ["add_items", "check_place", "explain", "index", "refuse_weights", "show", "similar"]
