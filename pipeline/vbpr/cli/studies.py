"""`vbpr tune` and `compare`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..base.errors import VbprError, counted
from ..base.own import is_own
from ..extraction.config import AUTOENCODER
from ..training.config import OPTIONS as TRAINING
from .options import (
    Data,
    Device,
    HowToSplit,
    Json,
    KCore,
    MinInteractions,
    MinRating,
    SplitSeed,
    Where,
    optional,
    takes,
)
from .output import beside, keep_apart, tell_next, tells_json


@tells_json
def tune(
    features: Annotated[list[Path] | None, typer.Option(help="Feature file; may repeat: put side by side")] = None,
    model: Annotated[str, typer.Option(help="visual, vbpr, hybrid, bprmf, als, ease, ..., FILE.py:NAME")] = "visual",
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Best configuration; the study lies beside it [default: features' name + .tuned.json]"),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Configurations of the whole study, earlier runs included")] = 40,
    objective: Annotated[
        str, typer.Option(help="all, cold or unseen (AUC), ndcg@10, recall@20 or hr@10, on the validation items")
    ] = "all",
    min_rating: MinRating = None,
    where: Where = None,
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

    from ..data.dataset import Dataset
    from ..data.split import SplitConfig
    from ..data.where import Rows
    from ..stores.features.store import stores_of
    from ..studies.tune.tune import tune as run
    from .study_tables import print_trials

    files = features or []
    stores = stores_of(files)
    dataset = Dataset.resolve(data, stores[0].provenance["data"] if stores else None, Rows(where or "", min_rating))
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
    given += ["--min-rating", f"{min_rating:g}"] if min_rating is not None else []
    given += ["--where", where] if where else []
    given += ["--model", model] if is_own(model) else []
    tell_next("train", *given, "--config", done.path)
    return {"best": done.best, "trials": [dataclasses.asdict(trial) for trial in done.trials]}


DVBPR = (
    optional(TRAINING["epochs"], help="dvbpr: epochs [default: 20, as published]", ranged=True),
    optional(TRAINING["image_size"], help="dvbpr: pixels of a side [default: 224]", ranged=True),
    optional(TRAINING["network"]),
)
RECIPE, CAE_EPOCHS, _ = AUTOENCODER
CAE = (replace(CAE_EPOCHS, help="cae: epochs [default: the recipe's]", flag="--cae-epochs"), RECIPE)


@tells_json
@takes("dvbpr", DVBPR)
@takes("cae", CAE)
def compare(
    *,
    models: Annotated[
        str, typer.Option(help="Methods, comma-separated: models, backbones, or FILE.py:NAME", show_default=False)
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
    dvbpr: dict[str, Any],
    cae: dict[str, Any],
    min_rating: MinRating = None,
    where: Where = None,
    split: HowToSplit = "auto",
    min_interactions: MinInteractions = 5,
    k_core: KCore = 0,
    split_seed: SplitSeed = 0,
    json_out: Json = None,
    device: Device = "auto",
) -> Any:
    """Several methods under one protocol. The table of the 2021 report, with intervals, paired tests, and costs."""
    from ..data.dataset import Dataset
    from ..data.split import SplitConfig
    from ..data.where import Rows
    from ..studies.compare.compare import compare as run
    from ..studies.compare.compare import written_as
    from ..studies.compare.methods import Options, methods_of
    from ..training.configure import refuse_idle
    from .study_tables import print_comparison

    backbone = dvbpr["network"]
    files = named_files(weights, "--weights", "BACKBONE=FILE, as in --weights inception=inception_v3.safetensors")
    beside = named_files(fitted, "--fitted", "NAME=FILE, as in --fitted tuned=artifacts/inc.model.h5")
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names and not beside:
        raise VbprError("give --models, as in --models lite0,popularity, or --fitted NAME=FILE")
    backbones = {method.backbone for method in (methods_of(names) if names else [])}
    for name in files.keys() - {backbone, *backbones}:
        raise VbprError(f"--weights {name}={files[name]}: no backbone of --models is called so; mend the name")
    for method, options, values in (("dvbpr", DVBPR, dvbpr), ("cae", CAE, cae)):
        given = [option.flag for option in options if values[option.name] != option.default]
        if given and not any(name.startswith(method) for name in names):
            raise VbprError(f"{given[0]} is for {method}, which --models does not name; leave it out")
        if given and method == "cae" and "cae" in files:
            raise VbprError(f"{given[0]} is for training the autoencoder, and --weights cae= gives one; leave it out")
    if random_weights and not (backbone or backbones - {"", "cae"}):
        raise VbprError("--random-weights is for backbones, and --models names none that takes weights; leave it out")
    network = backbone and (str(files[backbone]) if backbone in files else "random" if random_weights else None)
    dvbpr["network_weights"] = network
    refuse_idle("dvbpr", dvbpr)
    how = Options(
        seeds=seeds,
        weights=files,
        random_weights=random_weights,
        dvbpr=dvbpr,
        cae={"recipe": cae["recipe"], "epochs": cae["epochs"]},  # in the order in which the feature file keeps them
        published=published,
        fitted=beside,
        split=SplitConfig(split, min_interactions, k_core, split_seed),
        device=device,
    )
    chosen: list[str | None] = [*data] if data else [None]
    rows = Rows(where or "", min_rating)
    result = run([Dataset.resolve(name, rows=rows) for name in chosen], names, out, how)
    print_comparison(result)
    print(f"written: {out / written_as(how.split)}.json, .md, .csv, .tex, .png")
    return result


def named_files(pairs: list[str] | None, option: str, wanted: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for pair in pairs or []:
        name, equals, file = pair.partition("=")
        if not equals or not file or name in files:
            raise VbprError(f"{option} {pair}: give {wanted}" + (", each name once" if name in files else ""))
        files[name] = Path(file)
    return files


__all__ = ["compare", "tune"]
