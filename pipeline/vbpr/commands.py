"""The command line: each command parses, calls one function of a stage, and prints. No torch at import."""

import contextlib
import errno
import functools
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .base.errors import VbprError, counted, errno_in, some
from .base.stopping import INTERRUPTED, STOPPED, Stopped

OUT_OF_MEMORY = (
    "out of memory (or of threads); extract: lower --batch or --threads; train: --memory-limit GB keeps prepared "
    "features on the disk, a lower --dim or --batch needs less, --device cpu has more than a GPU; or give fewer or "
    "narrower feature files"
)
NO_MEMORY = ("out of memory", "allocate memory", "start new thread", "bad_alloc", "alloc_failed", "allocation_failed")
NO_ROOM_TO_LOAD = "failed to map segment from shared object"  # of a library; any other cause follows a colon


class App(typer.Typer):
    """A Typer app whose faults end in one or two sentences and an exit code, not in a traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("prog_name", "vbpr")
        if isinstance(sys.stdout, io.TextIOWrapper):  # an id that the terminal cannot show is no reason to end
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            Path.cwd()
        except OSError:  # MKL would end the process
            fail("the folder that this was started in is gone; start it in another", 2)
        try:
            return super().__call__(*args, **kwargs)
        except Stopped as stopped:
            end(str(stopped), STOPPED)
        except VbprError as error:
            fail(str(error), 2)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except MemoryError:
            fail(OUT_OF_MEMORY, 2)
        except Exception as error:
            if INTERRUPTED or os.environ.get("VBPR_TRACEBACK"):  # what was interrupted may raise anything
                raise
            no_room = str(error).endswith(NO_ROOM_TO_LOAD)
            if no_room or any(words in str(error).lower() for words in NO_MEMORY):
                fail(OUT_OF_MEMORY, 2)
            if number := errno_in(error):
                where, why = getattr(error, "filename", None), os.strerror(number)
                if number in (errno.ENOSPC, errno.EDQUOT):
                    fail(f"{where or 'the output'} cannot be written ({why}); make room, or write elsewhere", 2)
                fail(f"{where or 'a file'} cannot be used ({why}); give another, or mend its disk or permissions", 2)
            fail(
                f"internal failure: {type(error).__name__}: {error} (VBPR_TRACEBACK=1 shows where; please report it)", 1
            )


def fail(message: str, code: int) -> None:
    end(f"error: {message}", code)


def end(words: str, code: int) -> None:
    with contextlib.suppress(OSError):  # standard error may be full, or closed
        print(words, file=sys.stderr)
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
HowToSplit = Annotated[
    str, typer.Option("--split", help="auto, random, time, global-time, file, or none: train on all")
]
SplitSeed = Annotated[int, typer.Option("--split-seed", min=0, max=2**63 - 1, help="Seed of a random split")]
MinInteractions = Annotated[
    int, typer.Option("--min-interactions", min=3, help="random, time: users with fewer items are left out")
]
KCore = Annotated[int, typer.Option("--k-core", min=0, help="Keep only users and items with this many interactions")]


def keep_apart(json_out: Path | None, files: Mapping[str, Any]) -> None:
    """Refuse a `--json` that writes over what one of these options names."""
    for name, value in files.items():
        for path in value if isinstance(value, list) else [value]:
            if json_out is not None and isinstance(path, Path) and path.absolute() == json_out.absolute():
                raise VbprError(f"--json {json_out} is the file of {name.upper()} as well; give it another name")


def tells_json(command: Callable[..., Any]) -> Callable[..., None]:
    """A command whose result `--json` writes; where that is standard output, the rest goes to standard error."""

    @functools.wraps(command)
    def run(*args: Any, json_out: Path | None = None, **options: Any) -> None:
        apart = str(json_out) == "-"
        if apart:
            from .base.progress import console
        elif json_out is not None:
            from .base.targets import check_target

            check_target(json_out, "JSON", "--json")
            keep_apart(json_out, options)
        with contextlib.redirect_stdout(console.file if apart else sys.stdout):
            result = command(*args, json_out=json_out, **options)
        if apart:
            print(json.dumps(result, indent=1))
        elif json_out is not None:
            from .base.files import replace_text

            replace_text(json_out, json.dumps(result, indent=1) + "\n", "JSON")

    return run


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if context.invoked_subcommand != "extract" and "TORCHELASTIC_RUN_ID" in os.environ:  # it is torchrun's
        from .executors.world import launched

        if launched():
            raise VbprError("only vbpr extract shares its work among the processes of torchrun; start this without it")
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
    from .data.dataset import Dataset
    from .extraction.extract import extract as run
    from .extraction.extract import summary
    from .extraction.request import feature_file
    from .stores.features.store import FeatureStore

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


@app.command()
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
    from .answers.index_file import index_path
    from .data.dataset import Dataset
    from .data.split import SplitConfig
    from .stores.features.store import stores_of
    from .stores.model.about import first_curve
    from .training.configure import configure, refuse_idle
    from .training.train import train as run

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
    f = done.factors
    print(
        f"{done.path}: {f.about['title']} on {dataset.title}, {len(f.user_ids):,} users, {len(f.item_ids):,} items, "
        f"{f.train.nnz:,} train interactions, {done.seconds:.1f} s"
    )
    print(
        f"split: {f.about['split']}"
        + (f" ({counted(f.about['dropped_users'], 'user')})" if f.about["dropped_users"] else "")
    )
    if strangers := int((f.train.getnnz(axis=1) == 0).sum()):
        print(f"{counted(strangers, 'user')} without train interactions, given the mean of the others' tastes")
    if done.without_features:
        print(
            f"{counted(len(done.without_features), 'item')} without features, given the mean: "
            f"{some(done.without_features)}"
        )
        if any(name != name.strip() for name in done.without_features):
            print("some of these ids have spaces around them, which makes them other ids; take the spaces off")
    curve = first_curve(f.about)
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


def tell_others(others: Mapping[str, int]) -> None:
    """Which files a folder or archive of images holds that were not looked at."""
    if others:
        kinds = sorted((-count, repr(ending)[1:-1]) for ending, count in others.items())
        first = some(f"{-count:,} {ending}" for count, ending in kinds)
        print(f"passed over {counted(sum(others.values()), 'file')} not named like images ({first})")


def tell_next(*words: str | Path) -> None:
    """The command that usually follows, to be pasted into a shell."""
    print("next:", shlex.join(map(str, ["vbpr", *words])))


def beside(files: list[Path], model: str, suffix: str) -> Path:
    """Where what is made from feature files goes: artifacts/inc.h5 -> artifacts/inc.vbpr.model.h5."""
    stem = files[0].with_suffix("") if files else Path("artifacts") / model
    return stem.with_name(f"{stem.name}{'' if not files or model == 'visual' else f'.{model}'}{suffix}")


@app.command()
@tells_json
def tune(
    features: Annotated[list[Path] | None, typer.Option(help="Feature file; may repeat: put side by side")] = None,
    model: Annotated[str, typer.Option(help="visual, vbpr, hybrid, bprmf, als, bpr, ease or spectral")] = "visual",
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Best configuration; the study lies beside it [default: features' name + .tuned.json]"),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Configurations of the whole study, earlier runs included")] = 40,
    objective: Annotated[
        str, typer.Option(help="all, cold or unseen (AUC), ndcg@10, recall@20 or hr@10, on the validation items")
    ] = "all",
    split: HowToSplit = "auto",
    min_interactions: MinInteractions = 5,
    k_core: KCore = 0,
    split_seed: SplitSeed = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the search and of every training")] = 0,
    json_out: Json = None,
    device: Device = "auto",
) -> Any:
    """Search hyper-parameters on the validation items. Run again to resume, or with more --trials to go on."""
    import dataclasses

    from .data.dataset import Dataset
    from .data.split import SplitConfig
    from .stores.features.store import stores_of
    from .studies.tune.tune import tune as run
    from .study_tables import print_trials

    files = features or []
    stores = stores_of(files)
    dataset = Dataset.resolve(data, stores[0].provenance["data"] if stores else None)
    out = out or beside(files, model, ".tuned.json")
    keep_apart(json_out, {"out": out})
    config = SplitConfig(split, min_interactions, k_core, split_seed)
    done = run(dataset, stores, model, out, trials=trials, objective=objective, split=config, seed=seed, device=device)
    print_trials(objective, done.ranked)
    pruned = len(done.trials) - len(done.ranked)
    print(f"{done.path}: the best of {counted(len(done.trials), 'trial')} ({pruned:,} pruned)")
    given = [word for file in files for word in ("--features", str(file))] + (["--data", data] if data else [])
    options = ("--split", "--min-interactions", "--k-core", "--split-seed")
    for option, value, usual in zip(
        options, dataclasses.astuple(config), dataclasses.astuple(SplitConfig()), strict=True
    ):
        given += [option, str(value)] if value != usual else []
    tell_next("train", *given, "--config", done.path)
    return {"best": done.best, "trials": [dataclasses.asdict(trial) for trial in done.trials]}


@app.command()
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
    from .evaluation.evaluate import evaluate as run
    from .pages.terminal import print_metrics
    from .stores.model.factors import Factors

    summaries, grounds = [], []
    for path in model:
        factors = Factors.load(path)
        data, rule = (factors.about.get(key, "not on record") for key in ("data", "split"))
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


Category = Annotated[str | None, typer.Option(help="Only items of this category (a column of the data set's items)")]
Allowed = Annotated[Path | None, typer.Option(help="Only items in this file of ids, one a line")]
OnePer = Annotated[
    str | None, typer.Option(help="Column of the data set's items, as product: one item of each, none of those taken")
]


@app.command()
@tells_json
def recommend(
    model: Annotated[Path, typer.Argument(help="Model file")],
    user: Annotated[str | None, typer.Option(help="User id")] = None,
    users: Annotated[Path | None, typer.Option(help="File of user ids, one a line; needs --out")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every user; needs --out")] = False,
    liked: Annotated[
        list[str] | None, typer.Option(help="Instead of a user: an item that someone unknown likes; may repeat")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="Instead of a user: a photo of what someone unknown likes; may repeat")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many")] = 10,
    category: Category = None,
    allowed: Allowed = None,
    one_per: OnePer = None,
    seen: Annotated[bool, typer.Option("--seen", help="Allow items that the user already has")] = False,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Allow test and validation items, as for a list to be measured elsewhere")
    ] = False,
    diversity: Annotated[float, typer.Option(min=0, max=1, help="0: by score; towards 1: unlike each other")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="Parquet or CSV file for --users and --all")] = None,
    data: Data = None,
    weights: Weights = None,
    json_out: Json = None,
    grid: Grid = None,
) -> Any:
    """The items that a user will like best, without those the user has; for one user, many, or someone unknown."""
    import time

    from .answers.filters import allowed as allow
    from .answers.filters import groups_of, read_known
    from .base.targets import check_table
    from .data.dataset import Dataset
    from .pages.grid import Row, check_grid, save_grid
    from .pages.photos import Photos
    from .pages.terminal import print_items
    from .stores.model.factors import Factors

    if sum([user is not None, users is not None, everyone, bool(liked or image)]) != 1:
        raise VbprError("give one of --user ID, --users FILE, --all, or --liked ID and --image PHOTO")
    refuse_weights(weights, image)
    if held_out and (seen or liked or image):
        raise VbprError("--held-out is for a known user's list without what the user has; leave it out, or the others")
    check_grid(grid)
    factors = Factors.load(model)
    dataset = Dataset.behind(factors.about, data)
    columns = dataset.items() if category is not None or one_per is not None else {}
    groups = None if one_per is None else groups_of(factors.item_ids, columns, one_per)
    mask = allow(factors.item_ids, columns, category, read_known(allowed, factors.item_ids) if allowed else None)
    if held_out:
        factors = factors.before_holding_out()
    if users is not None or everyone:
        if out is None:
            raise VbprError("--users and --all write a table; give --out NAME.parquet or NAME.csv")
        check_table(out)
        if diversity or grid or json_out:
            idle = "--diversity" if diversity else "--grid" if grid else "--json"
            raise VbprError(f"{idle} is for one --user; --users and --all write the items of highest score into --out")
        many = None if users is None else factors.user_indices(read_known(users, factors.user_ids, "users"))
        started = time.monotonic()
        rows = factors.write_recommendations(out, k, many, seen, mask, groups)
        count, seconds = len(factors.user_ids) if many is None else len(many), time.monotonic() - started
        print(f"{out}: {counted(rows, 'row')} for {counted(count, 'user')}, {count / max(seconds, 1e-9):,.0f} users/s")
        return None
    if out is not None:
        raise VbprError("--out is for --users and --all; --json FILE or --grid FILE keeps what one user gets")
    photos = Photos(dataset, factors.about.get("added", []))
    if user is not None:
        at = factors.user_index(user)
        took, simulated = factors.seen_by(at), " (a simulated shopper)" if factors.about.get("simulated") else ""
        who, heading = f"{user}{simulated}", f"what {user}{simulated} took"
        items, scores = factors.recommend(at, k, seen, allowed=mask, diversity=diversity, groups=groups)
    else:
        took = factors.item_indices(list(dict.fromkeys(liked or [])))
        parts = [factors.items[took]]
        if image:
            from .extraction.photos import encode_photos

            parts.append(factors.encoded(encode_photos(image, factors.about.get("features", []), weights)))
        who, heading = "someone who likes these", "liked"
        items, scores = factors.choose(
            factors.fold_in(*parts),
            k,
            exclude=None if seen else took,
            allowed=mask,
            diversity=diversity,
            groups=groups,
        )
    ids = factors.item_ids[items].tolist()
    names = photos.titles(ids)
    print_items(f"for {who}", ids, scores.tolist(), names, "score")
    if grid:
        for path in image or []:
            photos.add(path)
        old = factors.item_ids[took].tolist() + [str(path) for path in image or []]
        save_grid(
            grid,
            [Row(f"{heading} ({len(old)})", old[:20]), Row(f"recommended by {factors.about.get('title')}", ids)],
            photos,
        )
        print(f"pictures: {grid}")
    asked = (
        {"user": user} if user is not None else {"liked": liked or [], "images": [str(path) for path in image or []]}
    )
    return {**asked, "items": [{"item_id": i, "score": float(s)} for i, s in zip(ids, scores, strict=True)]}


@app.command()
def index(
    file: Annotated[Path, typer.Argument(help="Model file (its item vectors) or feature file (raw features)")],
    kind: Annotated[str, typer.Option(help="auto (by size), flat (exact), hnsw or ivfpq")] = "auto",
    metric: Annotated[str, typer.Option(help="cosine or inner (product)")] = "cosine",
    out: Annotated[Path | None, typer.Option(help="Index file [default: the file's name with .index]")] = None,
) -> None:
    """Build and save the FAISS index that `similar` and `serve` use; once the model changes, it is refused."""
    import time

    from .answers.index_file import index_path
    from .answers.nearest import Nearest
    from .base.targets import check_target

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


@app.command()
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
    from .answers.everyone import write_answers
    from .answers.filters import allowed as allow
    from .answers.filters import read_known
    from .answers.nearest import Nearest
    from .base.targets import check_table
    from .data.dataset import Dataset
    from .extraction.photos import encode_photos
    from .pages.grid import Row, check_grid, save_grid
    from .pages.photos import Photos
    from .pages.terminal import print_items

    if sum([bool(item), bool(image), items is not None]) != 1:
        raise VbprError("give one of --item ID, --image PHOTO and --items FILE")
    refuse_weights(weights, image)
    check_grid(grid)
    if items is not None:
        if out is None or grid or json_out:
            raise VbprError("--items writes a table; give --out NAME.parquet or NAME.csv, without --grid and --json")
        check_table(out)
    elif out is not None:
        raise VbprError("--out is for --items; --json FILE or --grid FILE keeps what one query finds")
    near = Nearest.open(file, index)
    photos = Photos(Dataset.behind({"data": near.data}, data), near.added)
    mask = allow(near.item_ids, photos.data.items(), category, read_known(allowed, near.item_ids) if allowed else None)
    if unseen_by is not None:
        mask = near.not_taken(file, unseen_by, mask)
    if items is not None and out is not None:
        asked = read_known(items, near.item_ids)
        rows = write_answers(out, asked, near.search_items(asked, k, mask), near.metric)
        print(f"{out}: {counted(rows, 'row')} for {counted(len(asked), 'item')}")
        return None
    queries = item or [str(path) for path in image or []]
    query = near.query_item(*item) if item else near.query_photos(encode_photos(image or [], near.backbone, weights))
    found = near.search(query, k, leave_out=item, allowed=mask)
    ids, scores = [i for i, _ in found], [s for _, s in found]
    names = photos.titles(ids)
    print_items(f"like {', '.join(queries)}", ids, scores, names, near.metric)
    if grid:
        for path in image or []:
            photos.add(path)
        save_grid(grid, [Row("query", queries), Row("nearest", ids)], photos)
        print(f"pictures: {grid}")
    query_of = queries[0] if len(queries) == 1 else queries
    return {"query": query_of, "items": [{"item_id": i, near.metric: s} for i, s in found]}


@app.command("add-items")
def add_items(
    model: Annotated[Path, typer.Argument(help="Model file; it is replaced in one step")],
    images: Annotated[Path, typer.Argument(help="Folder, tar or zip of new images; a file's stem is the item's id")],
    duplicates: Annotated[str, typer.Option(help="Items that the model has already: skip or refuse")] = "skip",
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """New items from their images alone, ranked for every user at once, without retraining."""
    from .answers.add_items import add_items as run
    from .extraction.extract import summary

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


@app.command()
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
    """One HTML page to judge a model by: metrics, people, neighbours, tastes, a map of styles. Needs no network."""
    from .pages.report.report import report as run

    path = run(model, out, users=users, map_items=map_items, rank_users=rank_users, seed=seed, data=data, device=device)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser")


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="Model file")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one")] = 8000,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name by which a proxy on this machine asks, as shop.example; may repeat")
    ] = None,
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
    """Answer over HTTP (typed JSON, /openapi.json), with a page for people at /. Loopback only, unless told.

    A model, index or --allowed list that is replaced meanwhile is taken up.
    """
    if weights and not photos:
        raise VbprError("--weights are for the backbone that encodes photos; leave them out, or --no-photos")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read by NumPy at import; a user's scores are no work for two
    from .pages.serve.serve import serve as run

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
    )


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="Feature file, model file or index")],
    failures: Annotated[bool, typer.Option("--failures", help="List the images that could not be used")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every block of a feature file with its digest")
    ] = False,
) -> None:
    """What a file is, what made it, and how complete it is."""
    from .base.hdf5 import kind_of

    kind = kind_of(file)
    if kind == "features":
        from .extraction.extract import summary
        from .stores.features.store import FeatureStore

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
    elif failures or verify:
        raise VbprError(f"--failures and --verify are for feature files; {file} is another kind ({kind or 'unknown'})")
    elif kind == "index":
        from .answers.index_file import read_index

        data, ids, about = read_index(file)
        print(f"{file}: index, {len(ids):,} items, {data.nbytes / 2**20:,.1f} MB")
        for key, value in about.items():
            print(f"  {key}: {value}")
    elif kind == "model":
        from .data.parts import MATRICES
        from .stores.model.factors import Factors

        factors = Factors.load(file)
        print(f"{file}: {factors}")
        parts = ", ".join(f"{getattr(factors, name).nnz:,} {name}" for name in MATRICES)
        print(f"  interactions: {parts}")
        for key, value in factors.about.items():
            print(f"  {key}: {value if key != 'curve' else f'{len(value)} points, last {value[-1:]}'}")
    else:
        raise VbprError(f"{file} is no feature file, model file or index of vbpr's")


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="*ImgPartitioned.npy, reviews_*.json.gz, tradesy.json.gz, or Parquet files of images")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to make")],
) -> None:
    """A foreign data set into the folder that every other command reads. Run again to resume."""
    from .data.converters import convert as run

    done = run(source, out)
    print(f"{done.path}: " + ", ".join(f"{count:,} {name}" for name, count in done.counts.items()))
    for note in done.notes:
        print(f"note: {note}")
    tell_next("extract", "--backbone", "inception", "--data", done.path)


@app.command()
@tells_json
def compare(
    models: Annotated[
        str, typer.Option(help="Methods, comma-separated: models, dvbpr-efficient, or backbones", show_default=False)
    ] = "",
    data: Annotated[
        list[str] | None, typer.Option(help="Data set; may repeat [default: $VBPR_DATA, else sample]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results; finished cells in it are kept")] = Path(
        "artifacts/compare"
    ),
    fitted: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: a model file of the same split as a method more; may repeat")
    ] = None,
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
    split: HowToSplit = "auto",
    min_interactions: MinInteractions = 5,
    k_core: KCore = 0,
    split_seed: SplitSeed = 0,
    json_out: Json = None,
    device: Device = "auto",
) -> Any:
    """Several methods under one protocol: the table of the 2021 report, with intervals, paired tests, and costs."""
    from .data.dataset import Dataset
    from .data.split import SplitConfig
    from .studies.compare.compare import compare as run
    from .studies.compare.methods import Options, methods_of
    from .study_tables import print_comparison
    from .training.configure import refuse_idle

    files = named_files(weights, "--weights", "BACKBONE=FILE, as in --weights inception=inception_v3.safetensors")
    beside = named_files(fitted, "--fitted", "NAME=FILE, as in --fitted tuned=artifacts/inc.model.h5")
    names = [name for name in models.replace(" ", "").split(",") if name]
    if not names and not beside:
        raise VbprError("give --models, as in --models lite0,popularity, or --fitted NAME=FILE")
    backbones = {method.backbone for method in (methods_of(names) if names else [])}
    for name in files.keys() - {backbone, *backbones}:
        raise VbprError(f"--weights {name}={files[name]}: no backbone of --models is called so; mend the name")
    for method, own in {
        "dvbpr": {"--epochs": epochs, "--image-size": image_size, "--backbone": backbone},
        "cae": {"--cae-epochs": cae_epochs, "--recipe": None if recipe == "improved" else recipe},
    }.items():
        idle = [option for option, value in own.items() if value is not None]
        if idle and not any(name.startswith(method) for name in names):
            raise VbprError(f"{idle[0]} is for {method}, which --models does not name; leave it out")
        if idle and method == "cae" and "cae" in files:
            raise VbprError(f"{idle[0]} is for training the autoencoder, and --weights cae= gives one; leave it out")
    if random_weights and not (backbone or backbones - {"", "cae"}):
        raise VbprError("--random-weights is for backbones, and --models names none that takes weights; leave it out")
    network = backbone and (str(files[backbone]) if backbone in files else "random" if random_weights else None)
    tuned = {"epochs": epochs, "image_size": image_size, "network": backbone, "network_weights": network}
    refuse_idle("dvbpr", tuned)
    options = Options(
        seeds=seeds,
        weights=files,
        random_weights=random_weights,
        dvbpr=tuned,
        cae={"recipe": recipe, "epochs": cae_epochs},
        published=published,
        fitted=beside,
        split=SplitConfig(split, min_interactions, k_core, split_seed),
        device=device,
    )
    chosen: list[str | None] = [*data] if data else [None]
    result = run([Dataset.resolve(name) for name in chosen], names, out, options)
    print_comparison(result)
    print(f"written: {out}/compare.json, compare.md, compare.png")
    return result


def named_files(pairs: list[str] | None, option: str, wanted: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for pair in pairs or []:
        name, equals, file = pair.partition("=")
        if not equals or not file or name in files:
            raise VbprError(f"{option} {pair}: give {wanted}" + (", each name once" if name in files else ""))
        files[name] = Path(file)
    return files


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the results")] = Path("artifacts/demo")) -> None:
    """The whole job on the embedded sample, on a CPU and without a model hub: features, ranker, metrics, pictures."""
    from .pages.demo import run

    run(out)


def refuse_weights(weights: Path | None, image: list[Path] | None) -> None:
    if weights and not image:
        raise VbprError("--weights are for the backbone that encodes --image; leave them out")


__all__ = ["app"]
