"""`vbpr report`, `serve` and `demo`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..base.errors import VbprError
from .options import Allowed, Data, Device, OnePer, Weights


def report(
    model: Annotated[Path, typer.Argument(help="Model file")],
    out: Annotated[Path | None, typer.Option(help="HTML file [default: the model's name with .html]")] = None,
    users: Annotated[int, typer.Option(min=1, help="Users to show, beside the best and the worst")] = 6,
    map_items: Annotated[int, typer.Option(min=0, help="Items on the style map at most; 0 leaves it out")] = 4000,
    rank_users: Annotated[
        int | None, typer.Option(min=1, help="Measure on this many users, drawn at random [default: everyone]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the sampled users and items")] = 0,
    data: Data = None,
    device: Device = "auto",
) -> None:
    """One HTML page to judge a model by. Metrics, people, neighbours, tastes, a map of styles; needs no network."""
    from ..pages.report.report import report as run

    path = run(model, out, users=users, map_items=map_items, rank_users=rank_users, seed=seed, data=data, device=device)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser")


def serve(
    model: Annotated[Path, typer.Argument(help="Model file")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one")] = 8000,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name by which a proxy on this machine asks, as shop.example; may repeat")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Path before every address, as /looks, for a proxy")] = "",
    max_upload: Annotated[int, typer.Option(min=1, help="Largest request body in MB")] = 16,
    allowed: Allowed = None,
    one_per: OnePer = None,
    photos: Annotated[
        bool, typer.Option(help="Take photos to ask with, for which the backbone is loaded (and torch: a GB of memory)")
    ] = True,
    access_log: Annotated[bool, typer.Option("--access-log", help="A line for every request")] = False,
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Answer over HTTP, with a page for people. Typed JSON (/docs, /openapi.json); loopback only, unless told.

    A model, index or --allowed list that is replaced meanwhile is taken up.
    """
    if weights and not photos:
        raise VbprError("--weights are for the backbone that encodes photos; leave them out, or --no-photos")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read by NumPy at import; a user's scores are no work for two
    from ..pages.serve.serve import serve as run

    run(
        model,
        host=host,
        port=port,
        names=allow_host or [],
        max_upload=max_upload * 2**20,
        data=data,
        weights=weights,
        allowed=allowed,
        one_per=one_per,
        by_photo=photos,
        access_log=access_log,
        prefix=prefix,
    )


def demo(out: Annotated[Path, typer.Option(help="Folder for the results")] = Path("artifacts/demo")) -> None:
    """The whole job on the embedded sample. On a CPU and without a model hub: features, ranker, metrics, pictures."""
    from ..pages.demo import run

    run(out)


__all__ = ["demo", "report", "serve"]
