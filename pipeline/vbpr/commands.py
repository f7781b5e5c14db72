"""The command line: each command parses, calls one function of a stage, and prints. No torch at import."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import VbprError, some


class App(typer.Typer):
    """A Typer app whose faults end in one or two sentences and an exit code, never in a traceback of the user's making."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except VbprError as error:
            fail(str(error), error.code)
        except KeyboardInterrupt:
            fail("stopped; run the same command again to resume", 130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except MemoryError:
            fail("out of memory; lower --batch, or use fewer or narrower feature files", 2)
        except Exception as error:
            if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
                fail("out of memory; lower --batch, or choose --device cpu", 2)
            if os.environ.get("VBPR_TRACEBACK"):
                raise
            fail(
                f"internal failure: {type(error).__name__}: {error} (VBPR_TRACEBACK=1 shows where; please report it)", 1
            )


def fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


app = App(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Visually-aware recommendation: images go through a frozen backbone once, then a ranker trains in seconds.",
    epilog="Start with `vbpr demo`. Errors exit with 2 and say what to do.",
)

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


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"vbpr {installed('vbpr')}")
        raise typer.Exit


@app.command()
def extract(
    backbone: Annotated[str, typer.Option(help="inception, lite0, cae, or any timm model name[.tag]")] = "inception",
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Feature file [default: artifacts/BACKBONE.h5; inc.h5 for inception]")
    ] = None,
    weights: Weights = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained weights, written down as such")
    ] = False,
    precision: Annotated[str, typer.Option(help="exact (within 1e-3 of float32) or fast (bfloat16)")] = "exact",
    engine: Annotated[str, typer.Option(help="auto, torch, or openvino (CPU; the `openvino` extra)")] = "auto",
    device: Device = "auto",
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step [default: 16 on a CPU, 256 on a GPU]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Decoding threads [default: one a core]")] = None,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Largest share of images that may be unusable")] = 0.05,
    recipe: Annotated[str, typer.Option(help="cae: improved, or report: as published")] = "improved",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="cae: passes over the images [default: the recipe's]")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, help="cae: pixels of a side [default: the recipe's]")
    ] = None,
) -> None:
    """Stage one: encode every image once, into a feature file. Run again to resume, or to add new images."""
    from .datasets import Dataset
    from .extract import extract as run
    from .extract import summary

    dataset = Dataset.resolve(data)
    done = run(
        dataset,
        backbone,
        out,
        weights=weights,
        random_weights=random_weights,
        precision=precision,
        engine=engine,
        device=device,
        batch=batch,
        threads=threads,
        max_bad=max_bad,
        cae={"recipe": recipe, "epochs": epochs, "image_size": image_size},
    )
    rate = f" at {done.rate:,.0f} images/s" if done.written else ""
    print(
        f"{done.path}: {done.items - len(done.failures):,} of {done.items:,} items of {dataset.title} have features; "
        f"{done.written:,} written now{rate}"
    )
    if done.failures:
        print(
            f"skipped {len(done.failures):,} images: {summary(done.failures)} "
            f"({some((i for i, _ in done.failures), len(done.failures))}); vbpr info {done.path} --failures lists them"
        )
    print(f"next: vbpr train --features {done.path}")


@app.command()
def train(
    features: Annotated[list[Path] | None, typer.Option(help="Feature file; may repeat: put side by side")] = None,
    model: Annotated[str, typer.Option(help="visual, vbpr, bprmf, dvbpr, popularity, knn or random")] = "visual",
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Model file [default: the first feature file's name + .model.h5]")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="default, report (the published hyper-parameters) or efficient (dvbpr)")
    ] = "default",
    split: Annotated[str, typer.Option(help="auto, random, time, global-time or file")] = "auto",
    min_interactions: Annotated[int, typer.Option(min=3, help="Users with fewer items are left out")] = 5,
    k_core: Annotated[int, typer.Option(min=0, help="Keep only users and items with this many interactions")] = 0,
    split_seed: Annotated[int, typer.Option(help="Seed of a random split")] = 0,
    dim: Annotated[int | None, typer.Option(help="K of the visual part; 0 switches it off")] = None,
    factors: Annotated[int | None, typer.Option(help="K of the latent part; 0 switches it off")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes of |train| positives")] = None,
    batch: Annotated[int | None, typer.Option(help="Positives a step")] = None,
    shared_negatives: Annotated[int | None, typer.Option(help="Negatives shared by a batch; 0: one own each")] = None,
    negatives: Annotated[str | None, typer.Option(help="uniform or popularity")] = None,
    positives: Annotated[str | None, typer.Option(help="interactions or users")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam")] = None,
    reg_users: Annotated[float | None, typer.Option(help="Penalty of user factors")] = None,
    reg_head: Annotated[float | None, typer.Option(help="Penalty of the head")] = None,
    patience: Annotated[int | None, typer.Option(help="Validations without gain that end training; 0: never")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16")] = None,
    image_size: Annotated[int | None, typer.Option(help="dvbpr: pixels of a side; 224 as published")] = None,
    images_per_step: Annotated[int | None, typer.Option(help="dvbpr: distinct images a step; 0: as published")] = None,
    backbone: Annotated[str | None, typer.Option(help="dvbpr: network to fine-tune instead of CNN-F")] = None,
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Stage two: learn tastes on cached features, into a model file."""
    from .datasets import Dataset
    from .features import FeatureStore
    from .models import configure
    from .train import train as run

    files = features or []
    recorded = FeatureStore(files[0]).provenance["data"] if files else None
    dataset = Dataset.resolve(data, recorded)
    config = configure(
        model,
        preset,
        dim=dim,
        factors=factors,
        epochs=epochs,
        batch=batch,
        shared_negatives=shared_negatives,
        negatives=negatives,
        positives=positives,
        lr=lr,
        reg_users=reg_users,
        reg_head=reg_head,
        patience=patience,
        seed=seed,
        precision=precision,
        image_size=image_size,
        images_per_step=images_per_step,
        network=backbone,
        network_weights=None if weights is None else str(weights),
        device=device,
    )
    if out is None:
        stem = files[0].with_suffix("") if files else Path("artifacts") / model
        name = stem.name if not files or model == "visual" else f"{stem.name}.{model}"
        out = stem.with_name(f"{name}.model.h5")
    done = run(
        dataset, files, config, out, how=split, min_interactions=min_interactions, k_core=k_core, split_seed=split_seed
    )
    f = done.factors
    print(
        f"{done.path}: {f.about['title']} on {dataset.title}, {len(f.user_ids):,} users, {len(f.item_ids):,} items, "
        f"{f.train.nnz:,} train interactions, {done.seconds:.1f} s"
    )
    print(f"split: {f.about['split']}" + (f" ({f.about['dropped_users']:,} users)" if f.about["dropped_users"] else ""))
    if done.without_features:
        print(
            f"{len(done.without_features):,} items have no image and get the mean features: "
            f"{some(done.without_features, len(done.without_features))}"
        )
    if f.about.get("curve"):
        best = max(f.about["curve"], key=lambda point: point.get("auc", point["epoch"]))
        auc = f", validation AUC {best['auc']:.4f}" if "auc" in best else ""
        print(f"best epoch: {best['epoch']} of {f.about['curve'][-1]['epoch']}{auc}")
    print(f"next: vbpr evaluate {done.path}")


@app.command()
def evaluate(
    model: Annotated[list[Path], typer.Argument(help="Model files, one row each")],
    held: Annotated[str, typer.Option(help="test or validation")] = "test",
    json_out: Json = None,
    device: Device = "auto",
) -> None:
    """Exact metrics over every item that a user has not seen: all, cold (under 5 train interactions), unseen (none)."""
    from .evaluate import evaluate as run
    from .factors import Factors
    from .tables import print_metrics

    if held not in ("test", "validation"):
        raise VbprError(f"--held {held} is not known; choose test or validation")
    summaries = [run(Factors.load(path), held, device).summary() for path in model]
    print_metrics(summaries, held)
    write_json(json_out, summaries[0] if len(summaries) == 1 else summaries)


@app.command()
def recommend(
    model: Annotated[Path, typer.Argument(help="Model file")],
    user: Annotated[str, typer.Option(help="User id")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many")] = 10,
    data: Data = None,
    json_out: Json = None,
    grid: Grid = None,
) -> None:
    """The items that a user will like best, without those the user has."""
    from .factors import Factors
    from .pictures import Photos, Row, save_grid
    from .tables import print_items

    factors = Factors.load(model)
    at = factors.user_index(user)
    items, scores = factors.recommend(at, k)
    ids = [str(i) for i in factors.item_ids[items]]
    photos = Photos(dataset_of(data, factors.about))
    names = photos.titles(factors.item_ids[items])
    simulated = " (a simulated shopper)" if factors.about.get("simulated") else ""
    print_items(f"for {user}{simulated}", ids, scores.tolist(), names, "score")
    if grid:
        seen = [str(i) for i in factors.item_ids[factors.seen_by(at)]]
        old = photos.titles(factors.item_ids[factors.seen_by(at)])
        save_grid(
            grid,
            [
                Row(f"what {user}{simulated} took ({len(seen)})", seen[:20], captions(seen, old)[:20]),
                Row(f"recommended by {factors.about.get('title')}", ids, captions(ids, names)),
            ],
            photos,
        )
        print(f"pictures: {grid}")
    write_json(
        json_out, {"user": user, "items": [{"item_id": i, "score": float(s)} for i, s in zip(ids, scores, strict=True)]}
    )


@app.command()
def similar(
    file: Annotated[Path, typer.Argument(help="Model file (its item vectors) or feature file (raw features)")],
    item: Annotated[str | None, typer.Option(help="Item id to start from")] = None,
    image: Annotated[Path | None, typer.Option(help="Photo to start from")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many")] = 10,
    data: Data = None,
    weights: Weights = None,
    json_out: Json = None,
    grid: Grid = None,
) -> None:
    """The items nearest to an item or a photo."""
    from .images import load
    from .nearest import Nearest, encode_photo
    from .pictures import Photos, Row, save_grid
    from .tables import print_items

    if (item is None) == (image is None):
        raise VbprError("give one of --item ID and --image PHOTO")
    nearest = Nearest.of(file)
    if item is not None:
        found, query = nearest.search(nearest.query_item(item), k, leave_out=item), item
    else:
        found, query = (
            nearest.search(nearest.query_features(encode_photo(str(image), nearest.backbone, weights)), k),
            str(image),
        )
    ids, scores = [i for i, _ in found], [s for _, s in found]
    photos = Photos(dataset_of(data, {"data": nearest.data}))
    names = photos.titles(ids)
    print_items(f"like {query}", ids, scores, names, "cosine")
    if grid:
        if image is not None:
            photos.extra[query] = load(image.read_bytes())
        save_grid(
            grid,
            [
                Row("query", [query], captions([query], photos.titles([query]))),
                Row("nearest", ids, captions(ids, names)),
            ],
            photos,
        )
        print(f"pictures: {grid}")
    write_json(json_out, {"query": query, "items": [{"item_id": i, "cosine": s} for i, s in found]})


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="Feature file or model file")],
    failures: Annotated[bool, typer.Option("--failures", help="List the images that could not be used")] = False,
) -> None:
    """What a file is, what made it, and how far it is."""
    from .files import kind_of

    kind = kind_of(file)
    if kind == "features":
        from .extract import summary
        from .features import FeatureStore

        store = FeatureStore(file)
        failed = store.failures()
        print(
            f"{file}: features, {len(store):,} items x {store.dim}, {len(store.done):,} done, {len(store.pending):,} "
            f"pending, {len(failed):,} failed" + (f" ({summary(failed)})" if failed else "")
        )
        for key in ("backbone", "weights", "weights_digest", "preprocessing", "precision", "data", "versions"):
            print(f"  {key}: {store.provenance[key]}")
        if failures:
            for item_id, reason in failed:
                print(f"{item_id!r}: {reason}")
    elif kind == "model":
        from .factors import Factors

        factors = Factors.load(file)
        print(f"{file}: {factors}")
        parts = ", ".join(f"{getattr(factors, part).nnz:,} {part}" for part in ("train", "validation", "test"))
        print(f"  interactions: {parts}")
        for key, value in factors.about.items():
            print(f"  {key}: {value if key != 'curve' else f'{len(value)} points, last {value[-1:]}'}")
    else:
        raise VbprError(f"{file} is neither a feature file nor a model file of vbpr's")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="*ImgPartitioned.npy, reviews_*.json.gz or tradesy.json.gz")],
    out: Annotated[Path, typer.Argument(help="Folder to make")],
) -> None:
    """A foreign data set into the folder that every other command reads. Run again to resume."""
    from .datasets.convert import convert as run

    done = run(source, out)
    print(f"{done.path}: " + ", ".join(f"{count:,} {name}" for name, count in done.counts.items()))
    for note in done.notes:
        print(f"note: {note}")
    print(f"next: vbpr extract --backbone inception --data {done.path}")


@app.command()
def compare(
    models: Annotated[str, typer.Option(help="Methods, comma-separated: models, dvbpr-efficient, or backbones")],
    data: Annotated[
        list[str] | None, typer.Option(help="Data set; may repeat [default: $VBPR_DATA, else sample]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results; finished cells in it are kept")] = Path(
        "artifacts/compare"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each trained method")] = 1,
    weights: Annotated[list[str] | None, typer.Option(help="BACKBONE=FILE; may repeat")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained backbones where no file is given, named so in the table")
    ] = False,
    published: Annotated[
        bool | None, typer.Option(help="The published protocols too [default: where the data set is recognised]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="dvbpr: epochs [default: 20, as published]")] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="dvbpr: pixels of a side [default: 224]")] = None,
    backbone: Annotated[str | None, typer.Option(help="dvbpr: network to fine-tune instead of CNN-F")] = None,
    cae_epochs: Annotated[int | None, typer.Option(min=1, help="cae: epochs [default: the recipe's]")] = None,
    recipe: Annotated[str, typer.Option(help="cae: improved, or report: as published")] = "improved",
    split: Annotated[str, typer.Option(help="auto, random, time, global-time or file")] = "auto",
    split_seed: Annotated[int, typer.Option(help="Seed of a random split")] = 0,
    min_interactions: Annotated[int, typer.Option(min=3, help="Users with fewer items are left out")] = 5,
    json_out: Json = None,
    device: Device = "auto",
) -> None:
    """The report's table: methods under one protocol, with intervals, paired tests, time and images encoded."""
    from .compare import Options, print_comparison
    from .compare import compare as run
    from .datasets import Dataset

    files = {}
    for pair in weights or []:
        name, equals, file = pair.partition("=")
        if not equals:
            raise VbprError(f"--weights {pair}: give BACKBONE=FILE, as in --weights inception=inception_v3.safetensors")
        files[name] = Path(file)
    network = backbone and (str(files[backbone]) if backbone in files else "random" if random_weights else None)
    tuned = {"epochs": epochs, "image_size": image_size, "network": backbone, "network_weights": network}
    options = Options(
        seeds=seeds,
        weights=files,
        random_weights=random_weights,
        dvbpr=tuned,
        cae={"recipe": recipe, "epochs": cae_epochs},
        published=published,
        split=split,
        split_seed=split_seed,
        min_interactions=min_interactions,
        device=device,
    )
    chosen: list[str | None] = [*data] if data else [None]
    result = run([Dataset.resolve(name) for name in chosen], models.split(","), out, options)
    print_comparison(result)
    write_json(json_out, result)
    print(f"written: {out}/compare.json, compare.md, compare.png")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results")] = Path("artifacts/demo"),
) -> None:
    """The whole job on the embedded sample, on a CPU and without a model hub: features, ranker, metrics, pictures."""
    from .demo import run

    run(out)


def dataset_of(data: str | None, about: dict[str, Any]) -> Any:
    """The data set whose pictures and titles to show; where it is gone, there are none, which is no fault."""
    from .datasets import Dataset

    try:
        return Dataset.resolve(data, about.get("data"))
    except VbprError:
        if data is not None:
            raise
        return Dataset(Path(str(about.get("data"))))


def captions(ids: list[str], names: list[str]) -> list[str]:
    return [f"{i} {name}".strip() for i, name in zip(ids, names, strict=True)]


def write_json(path: Path | None, value: Any) -> None:
    if path is None:
        return
    text = json.dumps(value, indent=1)
    if str(path) == "-":
        print(text)
        return
    from .files import replacing

    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
