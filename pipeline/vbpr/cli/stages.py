"""`vbpr extract`, `train` and `evaluate`."""

import dataclasses
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
from .output import beside, keep_apart, tell_next, tell_others, tells_json

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..extraction.extract import Extraction
    from ..training.train import Training


@takes("options", ENCODING)
@takes("cae", AUTOENCODER)
def extract(
    *,
    backbone: Annotated[
        str, typer.Option(help="inception, lite0, cae, any timm model name[.tag], or FILE.py:NAME")
    ] = "inception",
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Feature file [default: artifacts/BACKBONE.h5; inc.h5 for inception]")
    ] = None,
    weights: Weights = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Tell features, bytes and images/s after ten pictures, and stop")
    ] = False,
    options: dict[str, Any],
    cae: dict[str, Any],
) -> None:
    """Stage one: encode every image once, into a feature file. Run again to resume, or to add new images."""
    from ..data.dataset import Dataset
    from ..extraction.extract import extract as run
    from ..extraction.request import feature_file, with_layers
    from ..stores.features.store import FeatureStore

    if cae != {option.name: option.default for option in AUTOENCODER} and (
        backbone != "cae" or weights or options["random_weights"]
    ):
        raise VbprError("--recipe, --epochs and --image-size are for training --backbone cae; leave them out")
    backbone = with_layers(backbone, options.pop("layer"))
    out = feature_file(backbone, out)
    made = FeatureStore(out).provenance if out.is_file() else {}
    dataset = Dataset.resolve(data, made.get("data"))
    if data is None and made.get("data") == dataset.name:
        options["images"] = options["images"] or made.get("images")
    if plan:
        return print_plan(dataset, backbone, weights, options)
    done = run(dataset, backbone, out, weights=weights, cae=cae, **options)
    print_extraction(done, dataset.title)


def print_plan(dataset: "Dataset", backbone: str, weights: Path | None, options: dict[str, Any]) -> None:
    """What an extraction will take, and its command."""
    from ..extraction.plan import plan
    from ..extraction.request import placed

    if options["cluster"]:
        raise VbprError("--plan tries this machine; leave out --cluster")
    idle = ("max_bad", "verify", "cluster", "images", "id_field", "views", "max_shared")  # of a file that is written
    dataset = placed(dataset, options["images"], options["id_field"])
    known = plan(dataset, backbone, weights=weights, **{k: v for k, v in options.items() if k not in idle})
    print(
        f"{backbone}: D {known.dim:,}, {known.bytes / 1e6:,.1f} MB for {counted(known.images, 'image')} of "
        f"{dataset.title}; about {known.rate:,.0f} images/s by {known.engine}, {known.seconds / 60:,.1f} minutes"
    )
    if known.fallback:
        print(f"in place of the engine asked for: {known.fallback}")
    tell_next("extract", "--backbone", backbone, "--data", dataset.name)


def print_extraction(done: "Extraction", title: str) -> None:
    """What was encoded, and the next command."""
    rate = f" at {done.rate:,.0f} images/s" if done.written else ""
    print(
        f"{done.path}: {done.items - len(done.failures):,} of {done.items:,} items of {title} have features; "
        f"{done.written:,} written now{rate}"
    )
    if done.views is not None:
        print(
            f"each the mean of its pictures' features: {counted(done.views.items, 'picture')} in {done.views.path} "
            "(--views first takes the first alone)"
        )
        print_pictures(done.views, "picture")
    print_pictures(done, "item")
    tell_others(done.others)
    tell_next("train", "--features", done.path)


def print_pictures(done: "Extraction", noun: str) -> None:
    """What was skipped, kept and dropped, and which pictures are odd or shared."""
    from ..extraction.extract import summary
    from ..extraction.shared import SHARED

    if done.failures:
        first = some(repr(item)[1:-1] for item, _ in done.failures)
        print(
            f"skipped {counted(len(done.failures), 'image')}: {summary(done.failures)} ({first}); "
            f"vbpr info {done.path} --failures lists them"
        )
    if done.away:
        names = some(repr(item)[1:-1] for item in done.away)
        print(f"kept the features of {counted(len(done.away), noun)} whose images cannot be looked at now ({names})")
    if done.dropped:
        print(f"dropped {counted(done.dropped, noun)} whose images are gone")
    if done.odd:
        odd = some(f"{item!r:.100} is {size}" for item, size in done.odd)
        print(f"warning: {counted(len(done.odd), 'image')} so small or narrow as to say little ({odd})")
    if done.shared:
        items, one = done.shared[0]
        more = f", {sum(n for n, _ in done.shared[1:]):,} others {counted(len(done.shared) - 1, 'more picture')}"
        told = items < SUSPECT or any(reason == SHARED for _, reason in done.failures)
        cure = "" if told else f"; if it stands for no photo, --max-shared {items // 2} leaves it out"
        print(f"{counted(items, 'item')} share one picture ({one!r:.100}){more * (len(done.shared) > 1)}{cure}")


SUSPECT = 5  # items with one picture; fewer may well be sizes of one product

TRAINED_BY = (  # in the order of the help; the other fields of TrainConfig are for --config alone
    *("dim", "hidden", "factors", "epochs", "batch", "shared_negatives", "negatives", "loss", "positives", "lr"),
    *("reg_users", "reg_head", "patience", "memory_limit", "shards", "seed", "precision", "image_size"),
    *("images_per_step", "network", "objective"),
)
NETWORK_WEIGHTS = optional(TRAINING["network_weights"], type=Path | None)  # in a configuration, text


@takes("given", (*(optional(TRAINING[name]) for name in TRAINED_BY), NETWORK_WEIGHTS))
def train(
    *,
    features: Annotated[list[Path] | None, typer.Option(help="Feature file; may repeat: put side by side")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="visual, vbpr, hybrid, als, dvbpr, ..., FILE.py:NAME [default: --config's, else visual]"),
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
    cluster: Cluster = None,
    device: Device = "auto",
    log: Annotated[
        str | None, typer.Option(help="Log the training: mlflow[:URI], wandb, or a hook of one's own, FILE.py:NAME")
    ] = None,
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
    options = configure(
        model, preset, config, sum(store.dim for store in stores), device=device, cluster=cluster, **given
    )
    refuse_idle(options.model, given | {"cluster": cluster})
    how = SplitConfig(split, min_interactions, k_core, split_seed)
    if plan:
        if cluster:
            raise VbprError("--plan tries this machine; leave out --cluster")
        from ..compute.memory import available_memory
        from ..training.plan import estimate, told

        print(*told(estimate(dataset, stores, options, how), available_memory()), sep="\n")
        return
    out = out or beside(files, options.model, ".model.h5")
    if log is None:
        done = run(dataset, stores, options, out, how)
    else:
        from ..training.logs import hook_of, logging_to

        told_of = {"data": dataset.name, "features": " ".join(map(str, files)), "split": split}
        with logging_to(hook_of(log), told_of | {"split_seed": split_seed} | dataclasses.asdict(options)) as to:
            done = run(dataset, stores, options, out, how)
            to.finish(done, device)
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
    holdout: Annotated[
        str | None,
        typer.Option(
            help="All models on one ground: a table of purchases, or last-week of the data set; with differences"
        ),
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="With --holdout: popularity as well")] = False,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", min=1, help="Cut-off of NDCG, recall and hit rate; may repeat [default: 10, recall 20]"),
    ] = None,
    per_user: Annotated[Path | None, typer.Option(help="A .parquet or .csv with a row a user and all figures")] = None,
    data: Data = None,
    cluster: Cluster = None,
    json_out: Json = None,
    device: Device = "auto",
) -> Any:
    """Exact metrics over every item that a user has not seen. All, cold (under 5 train interactions), unseen (none)."""
    from ..base.targets import check_table
    from ..evaluation.evaluate import evaluate as run
    from ..evaluation.evaluate import write_users
    from ..pages.terminal import print_metrics
    from ..stores.model.factors import Factors

    cuts: dict[str, Any] = {"k": k, "recall_k": k} if k else {}
    if per_user is not None:
        keep_apart(json_out, {"per-user": per_user})
        check_table(per_user, "--per-user")
        if len(model) > 1 or holdout is not None:
            raise VbprError("--per-user is for one model on its own split; leave the others and --holdout out")
    if holdout is not None:
        if held != "test" or users is not None or cluster is not None:
            raise VbprError(
                "--holdout says what is held out and ranks it here; leave out --held, --users and --cluster"
            )
        return on_holdout(model, holdout, baselines, data, device, cuts)
    if baselines or data is not None:
        raise VbprError(f"{'--baselines' if baselines else '--data'} is for --holdout; give that as well")
    summaries, grounds = [], []
    for path in model:
        factors = Factors.load(path)
        data, rule = (on_record or "not on record" for on_record in (factors.record.data, factors.record.split))
        digest = factors.split_digest()
        told = {"file": str(path), "held": held, "split": rule, "split_digest": digest}
        metrics = run(factors, held, device, users=users, cluster=cluster, path=path)
        summaries.append(told | metrics.summary(**cuts))
        if per_user is not None:
            write_users(per_user, metrics.of_users(**cuts), factors.user_ids)
        grounds.append(f"{len(factors.item_ids):,} items; data: {data}; split: {rule} (digest {digest[:8]})")
    print_metrics(summaries, held, drawn=users is not None)
    if len(set(grounds)) > 1:
        print("note: on other ground, or on ground that is not on record, figures do not compare:")
        for path, ground in zip(model, grounds, strict=True):
            print(f"  {path}: {ground}")
    return summaries[0] if len(summaries) == 1 else summaries


def on_holdout(
    paths: list[Path], holdout: str, baselines: bool, data: str | None, device: str, cuts: dict[str, Any]
) -> dict[str, Any]:
    """Models on one ground, and the paired differences between them.

    Args:
        cuts: of `Metrics.summary`.
    """
    from ..data.dataset import Dataset
    from ..data.interactions import Interactions
    from ..evaluation import metrics
    from ..evaluation.evaluate import evaluate as run
    from ..evaluation.holdout import last_week, on_one_ground
    from ..evaluation.intervals import paired_tests
    from ..pages.terminal import print_metrics
    from ..stores.model.factors import Factors

    models = [Factors.load(path) for path in paths]
    week = holdout == "last-week"
    held = last_week(Dataset.resolve(data, models[0].record.data or None)) if week else Interactions.read(holdout)
    ground = on_one_ground(models, held, baselines)
    names = [str(path) for path in paths] + ["popularity"] * baselines
    found = [run(factors, device=device) for factors in ground.models]
    summaries = [{"file": name} | each.summary(**cuts) for name, each in zip(names, found, strict=True)]
    print_metrics(summaries, "held-out")
    first = ground.models[0]
    print(
        f"{counted(first.test.nnz, 'purchase')} on one ground of {len(first.user_ids):,} users and "
        f"{len(first.item_ids):,} items; left out: {ground.learned:,} that a model learned from, {ground.unknown:,} of "
        "users or items that not all know"
    )
    differences = {}
    for measure, of in (("auc", metrics.mean_auc), ("ndcg@10", lambda ranks: metrics.ndcg(ranks, 10))):
        differences[measure] = paired_tests({n: of(each.ranks["all"]) for n, each in zip(names, found, strict=True)})
        for test in differences[measure]:
            low, high = test["interval"]
            print(
                f"{measure}: {test['a']} less {test['b']} {test['difference']:+.4f} ({low:+.4f} to {high:+.4f}, "
                f"p {test['p_holm']:.2g})"
            )
    counts = {"purchases": int(first.test.nnz), "learned": ground.learned, "unknown": ground.unknown}
    return {"models": summaries, "differences": differences} | counts


__all__ = ["evaluate", "extract", "train"]
