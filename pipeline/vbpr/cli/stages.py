"""`vbpr extract`, `train` and `evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import VbprError, counted, some
from ..extraction.config import AUTOENCODER, ENCODING
from ..training.config import OPTIONS as TRAINING
from .options import (
    Cluster,
    Data,
    Device,
    HowToSplit,
    Json,
    KCore,
    MinInteractions,
    MinRating,
    SplitSeed,
    Weights,
    Where,
    optional,
    takes,
)
from .output import beside, tell_next, tell_others, tells_json

if TYPE_CHECKING:
    from ..extraction.extract import Extraction
    from ..training.train import Training


@takes("options", ENCODING)
@takes("cae", AUTOENCODER)
def extract(
    *,
    backbone: Annotated[str, typer.Option(help="inception, lite0, cae, or any timm model name[.tag]")] = "inception",
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Feature file [default: artifacts/BACKBONE.h5; inc.h5 for inception]")
    ] = None,
    weights: Weights = None,
    options: dict[str, Any],
    cae: dict[str, Any],
) -> None:
    """Stage one: encode every image once, into a feature file. Run again to resume, or to add new images."""
    from ..data.dataset import Dataset
    from ..extraction.extract import extract as run
    from ..extraction.request import feature_file
    from ..stores.features.store import FeatureStore

    if cae != {option.name: option.default for option in AUTOENCODER} and (
        backbone != "cae" or weights or options["random_weights"]
    ):
        raise VbprError("--recipe, --epochs and --image-size are for training --backbone cae; leave them out")
    out = feature_file(backbone, out)
    dataset = Dataset.resolve(data, FeatureStore(out).provenance["data"] if out.is_file() else None)
    done = run(dataset, backbone, out, weights=weights, cae=cae, **options)
    print_extraction(done, dataset.title)


def print_extraction(done: "Extraction", title: str) -> None:
    """What was encoded, skipped, kept and dropped, and the next command."""
    from ..extraction.extract import summary

    rate = f" at {done.rate:,.0f} images/s" if done.written else ""
    print(
        f"{done.path}: {done.items - len(done.failures):,} of {done.items:,} items of {title} have features; "
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


TRAINED_BY = (  # in the order of the help; the other fields of TrainConfig are for --config alone
    *("dim", "factors", "epochs", "batch", "shared_negatives", "negatives", "loss", "positives", "lr", "reg_users"),
    *(
        "reg_head",
        "patience",
        "memory_limit",
        "seed",
        "precision",
        "image_size",
        "images_per_step",
        "network",
        "objective",
    ),
)
NETWORK_WEIGHTS = optional(TRAINING["network_weights"], type=Path | None)  # in a configuration, text


@takes("given", (*(optional(TRAINING[name]) for name in TRAINED_BY), NETWORK_WEIGHTS))
def train(
    *,
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
    min_rating: MinRating = None,
    where: Where = None,
    split: HowToSplit = "auto",
    min_interactions: MinInteractions = 5,
    k_core: KCore = 0,
    split_seed: SplitSeed = 0,
    given: dict[str, Any],
    device: Device = "auto",
    plan: Annotated[
        bool, typer.Option("--plan", help="Only estimate memory and time for these data (visual, vbpr, bprmf)")
    ] = False,
) -> None:
    """Stage two: learn tastes on cached features, into a model file."""
    from ..data.dataset import Dataset
    from ..data.split import SplitConfig
    from ..data.where import Rows
    from ..stores.features.store import stores_of
    from ..training.configure import configure, refuse_idle
    from ..training.train import train as run

    files = features or []
    stores = stores_of(files)
    dataset = Dataset.resolve(data, stores[0].provenance["data"] if stores else None, Rows(where or "", min_rating))
    options = configure(model, preset, config, sum(store.dim for store in stores), device=device, **given)
    refuse_idle(options.model, given)
    how = SplitConfig(split, min_interactions, k_core, split_seed)
    if plan:
        from ..compute.memory import available_memory
        from ..training.plan import estimate, told

        print(*told(estimate(dataset, stores, options, how), available_memory()), sep="\n")
        return
    out = out or beside(files, options.model, ".model.h5")
    done = run(dataset, stores, options, out, how)
    print_training(done, dataset.title)


def print_training(done: "Training", title: str) -> None:
    """What was trained on, what was missing, the best epoch, and the next command."""
    from ..answers.index_file import index_path

    f, record, out = done.factors, done.factors.record, done.path
    print(
        f"{out}: {record.title} on {title}, {len(f.user_ids):,} users, {len(f.item_ids):,} items, "
        f"{f.train.nnz:,} train interactions, {done.seconds:.1f} s"
    )
    print(f"split: {record.split}" + (f" ({counted(record.dropped_users, 'user')})" if record.dropped_users else ""))
    if record.read_columns:
        print("columns: " + ", ".join(f"{name} is {role}" for role, name in record.read_columns.items()))
    if strangers := int((f.train.getnnz(axis=1) == 0).sum()):
        print(f"{counted(strangers, 'user')} without train interactions, given the mean of the others' tastes")
    if done.without_features:
        print(
            f"{counted(len(done.without_features), 'item')} without features, given the mean: "
            f"{some(done.without_features)}"
        )
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
    cluster: Cluster = None,
    json_out: Json = None,
    device: Device = "auto",
) -> Any:
    """Exact metrics over every item that a user has not seen. All, cold (under 5 train interactions), unseen (none)."""
    from ..evaluation.evaluate import evaluate as run
    from ..pages.terminal import print_metrics
    from ..stores.model.factors import Factors

    summaries, grounds = [], []
    for path in model:
        factors = Factors.load(path)
        data, rule = (on_record or "not on record" for on_record in (factors.record.data, factors.record.split))
        digest = factors.split_digest()
        told = {"file": str(path), "held": held, "split": rule, "split_digest": digest}
        metrics = run(factors, held, device, users=users, cluster=cluster, path=path)
        summaries.append(told | metrics.summary())
        grounds.append(f"{len(factors.item_ids):,} items; data: {data}; split: {rule} (digest {digest[:8]})")
    print_metrics(summaries, held, drawn=users is not None)
    if len(set(grounds)) > 1:
        print("note: on other ground, or on ground that is not on record, figures do not compare:")
        for path, ground in zip(model, grounds, strict=True):
            print(f"  {path}: {ground}")
    return summaries[0] if len(summaries) == 1 else summaries


__all__ = ["evaluate", "extract", "train"]
