"""`vbpr extract`, `train` and `evaluate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..base.errors import VbprError, counted, some
from .options import Data, Device, HowToSplit, Json, KCore, MinInteractions, SplitSeed, Weights
from .output import beside, tell_next, tell_others, tells_json


def extract(
    backbone: Annotated[str, typer.Option(help="inception, lite0, cae, or any timm model name[.tag]")] = "inception",
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Feature file [default: artifacts/BACKBONE.h5; inc.h5 for inception]")
    ] = None,
    weights: Weights = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained weights, recorded as such")
    ] = False,
    precision: Annotated[str, typer.Option(help="exact (within 1e-3 of float32) or fast (bfloat16)")] = "exact",
    engine: Annotated[str, typer.Option(help="auto, torch, or openvino (CPU; the `openvino` extra)")] = "auto",
    device: Device = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, max=65536, help="Images a step [default: 16; on a GPU the fastest that fits]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Decoding threads [default: one a core]")] = None,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Largest share of images that may be unusable")] = 0.05,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the file's digests first; encode anew what has changed in it")
    ] = False,
    recipe: Annotated[str, typer.Option(help="cae: improved, or report: as published")] = "improved",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="cae: passes over the images [default: the recipe's]")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, help="cae: pixels of a side [default: the recipe's]")
    ] = None,
) -> None:
    """Stage one: encode every image once, into a feature file. Run again to resume, or to add new images."""
    from ..data.dataset import Dataset
    from ..extraction.extract import extract as run
    from ..extraction.extract import summary
    from ..extraction.request import feature_file
    from ..stores.features.store import FeatureStore

    if (backbone != "cae" or weights or random_weights) and (recipe != "improved" or epochs or image_size):
        raise VbprError("--recipe, --epochs and --image-size are for training --backbone cae; leave them out")
    out = feature_file(backbone, out)
    dataset = Dataset.resolve(data, FeatureStore(out).provenance["data"] if out.is_file() else None)
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
        verify=verify,
        cae={"recipe": recipe, "epochs": epochs, "image_size": image_size},
    )
    if done.rank:  # the first of several processes speaks for all
        return
    rate = f" at {done.rate:,.0f} images/s" if done.written else ""
    print(
        f"{done.path}: {done.items - len(done.failures):,} of {done.items:,} items of {dataset.title} have features; "
        f"{done.written:,} written now{rate}"
    )
    if done.failures:
        first = some(repr(item)[1:-1] for item, _ in done.failures)
        print(
            f"skipped {counted(len(done.failures), 'image')}: {summary(done.failures)} ({first}); "
            f"vbpr info {done.path} --failures lists them"
        )
    if done.away:
        names = some(repr(item)[1:-1] for item in done.away)
        print(f"kept the features of {counted(len(done.away), 'item')} whose images cannot be looked at now ({names})")
    if done.dropped:
        print(f"dropped {counted(done.dropped, 'item')} whose images are gone")
    if done.odd:
        odd = some(f"{item!r:.100} is {size}" for item, size in done.odd)
        print(f"warning: {counted(len(done.odd), 'image')} so small or narrow as to say little ({odd})")
    tell_others(done.others)
    tell_next("train", "--features", done.path)


def train(
    features: Annotated[list[Path] | None, typer.Option(help="Feature file; may repeat: put side by side")] = None,
    model: Annotated[
        str | None, typer.Option(help="visual, vbpr, hybrid, bprmf, als, dvbpr, ... [default: --config's, else visual]")
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Model file [default: the first feature file's name + .model.h5]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON file of options, as vbpr tune writes; options given here win over it")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="default, report (visual, as in the 2021 report), published (vbpr) or efficient (dvbpr)")
    ] = "default",
    split: HowToSplit = "auto",
    min_interactions: MinInteractions = 5,
    k_core: KCore = 0,
    split_seed: SplitSeed = 0,
    dim: Annotated[int | None, typer.Option(help="K of the visual part; 0 switches it off")] = None,
    factors: Annotated[int | None, typer.Option(help="K of the latent part; 0 switches it off")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the train interactions")] = None,
    batch: Annotated[int | None, typer.Option(help="Positives a step")] = None,
    shared_negatives: Annotated[int | None, typer.Option(help="Negatives shared by a batch; 0: one own each")] = None,
    negatives: Annotated[
        str | None, typer.Option(help="uniform, popularity (a share of them: popularity_share in --config) or in-batch")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="bpr, softmax or warp (these two: with shared negatives)")] = None,
    positives: Annotated[
        str | None,
        typer.Option(help="interactions: each once an epoch; or users: as often whoever it is, an item each"),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam")] = None,
    reg_users: Annotated[float | None, typer.Option(help="Penalty of user factors")] = None,
    reg_head: Annotated[float | None, typer.Option(help="Penalty of the head")] = None,
    patience: Annotated[int | None, typer.Option(help="Validations without gain that end training; 0: never")] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(help="GB of prepared features in memory, more are read from a file [default: as many as fit]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of the training")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16")] = None,
    image_size: Annotated[int | None, typer.Option(help="dvbpr: pixels of a side; 224 as published")] = None,
    images_per_step: Annotated[int | None, typer.Option(help="dvbpr: distinct images a step; 0: as published")] = None,
    backbone: Annotated[str | None, typer.Option(help="dvbpr: network to fine-tune instead of CNN-F")] = None,
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Stage two: learn tastes on cached features, into a model file."""
    from ..answers.index_file import index_path
    from ..data.dataset import Dataset
    from ..data.split import SplitConfig
    from ..stores.features.store import stores_of
    from ..training.configure import configure, refuse_idle
    from ..training.train import train as run

    files = features or []
    stores = stores_of(files)
    dataset = Dataset.resolve(data, stores[0].provenance["data"] if stores else None)
    given = {
        "dim": dim,
        "factors": factors,
        "epochs": epochs,
        "batch": batch,
        "shared_negatives": shared_negatives,
        "negatives": negatives,
        "loss": loss,
        "memory_limit": memory_limit,
        "positives": positives,
        "lr": lr,
        "reg_users": reg_users,
        "reg_head": reg_head,
        "patience": patience,
        "seed": seed,
        "precision": precision,
        "image_size": image_size,
        "images_per_step": images_per_step,
        "network": backbone,
        "network_weights": None if weights is None else str(weights),
    }
    options = configure(model, preset, config, sum(store.dim for store in stores), device=device, **given)
    refuse_idle(options.model, given)
    out = out or beside(files, options.model, ".model.h5")
    done = run(dataset, stores, options, out, SplitConfig(split, min_interactions, k_core, split_seed))
    f, record = done.factors, done.factors.record
    print(
        f"{done.path}: {record.title} on {dataset.title}, {len(f.user_ids):,} users, {len(f.item_ids):,} items, "
        f"{f.train.nnz:,} train interactions, {done.seconds:.1f} s"
    )
    print(f"split: {record.split}" + (f" ({counted(record.dropped_users, 'user')})" if record.dropped_users else ""))
    if strangers := int((f.train.getnnz(axis=1) == 0).sum()):
        print(f"{counted(strangers, 'user')} without train interactions, given the mean of the others' tastes")
    if done.without_features:
        print(
            f"{counted(len(done.without_features), 'item')} without features, given the mean: "
            f"{some(done.without_features)}"
        )
        if any(name != name.strip() for name in done.without_features):
            print("some of these ids have spaces around them, which makes them other ids; take the spaces off")
    curve = record.first_curve()
    if curve and f.validation.nnz:
        best = max(curve, key=lambda point: point["auc"])
        of = " of the visual part" if "part" in best else ""
        print(f"best epoch{of}: {best['epoch']} of {curve[-1]['epoch']}, validation AUC {best['auc']:.4f}")
    if index_path(out).exists():
        print(
            f"{index_path(out)} was made before; where the model has changed, run vbpr index {out} again or delete it"
        )
    if f.test.nnz:
        tell_next("evaluate", out)
    else:
        tell_next("recommend", out, "--all", "--out", "everyone.parquet")


@tells_json
def evaluate(
    model: Annotated[list[Path], typer.Argument(help="Model files, one row each")],
    held: Annotated[str, typer.Option(help="test or validation")] = "test",
    users: Annotated[
        int | None, typer.Option(min=1, help="Rank this many users, drawn at random; each still against every item")
    ] = None,
    json_out: Json = None,
    device: Device = "auto",
) -> Any:
    """Exact metrics over every item that a user has not seen: all, cold (under 5 train interactions), unseen (none)."""
    from ..evaluation.evaluate import evaluate as run
    from ..pages.terminal import print_metrics
    from ..stores.model.factors import Factors

    summaries, grounds = [], []
    for path in model:
        factors = Factors.load(path)
        data, rule = (on_record or "not on record" for on_record in (factors.record.data, factors.record.split))
        digest = factors.split_digest()
        told = {"file": str(path), "held": held, "split": rule, "split_digest": digest}
        summaries.append(told | run(factors, held, device, users=users).summary())
        grounds.append(f"{len(factors.item_ids):,} items; data: {data}; split: {rule} (digest {digest[:8]})")
    print_metrics(summaries, held, drawn=users is not None)
    if len(set(grounds)) > 1:
        print("note: on other ground, or on ground that is not on record, figures do not compare:")
        for path, ground in zip(model, grounds, strict=True):
            print(f"  {path}: {ground}")
    return summaries[0] if len(summaries) == 1 else summaries


__all__ = ["evaluate", "extract", "train"]
