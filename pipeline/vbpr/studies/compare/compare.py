"""Several methods on several data sets under one protocol: the report's table 7.1, with everything it left out.

    compare([Dataset.resolve("data")], ["dvbpr", "cae", "inception", "popularity"], "artifacts/compare")

A method is an entry of MODELS, `dvbpr-efficient`, or the name of a backbone: its features under the model `visual`;
model files of the same split can stand beside them. One split for all; exact AUC over every item that a user has not
taken; intervals by bootstrap over users and paired t-tests (AUC of all, cold and unseen items, NDCG@10), with Holm's
correction over the pairs of methods. A finished cell (data set, split, method, seed) is kept and not computed again.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ...base.errors import VbprError
from ...base.files import replace_text
from ...base.stopping import Stopped, stop_signals
from ...compute.device import pick_device
from ...data.converters.published import recognise
from ...data.dataset import Dataset
from ...data.split import SplitConfig
from ...training.catalogue import prepare
from ...training.fit import versions
from ...training.models import MODELS
from .cells import PROTOCOL, cell, features_of, fitted_cell, fitted_on, users_of
from .methods import Method, Options, check_methods, config_of, methods_of, slug
from .plot import draw_bars
from .table import as_csv, as_latex, markdown, row_of
from .tests import told_apart


def compare(
    data_sets: Sequence[Dataset], names: Sequence[str], out: Path | str, options: Options | None = None
) -> dict[str, Any]:
    """Run every cell that is not yet there and write the results into `out`: compare.json, .md, .csv, .tex, .png.

    Raises:
        VbprError: an unknown method, data without interactions, or without images that a method needs; or whatever a
            stage raises.
        Stopped: Ctrl-C or SIGTERM; run again to resume.
    """
    options, folder = options or Options(), Path(out)
    methods = methods_of(names) if names or not options.fitted else []
    if len({slug(data) for data in data_sets}) < len(data_sets):
        raise VbprError("--data takes distinct data sets; one of them is given twice")
    for name in options.fitted:
        if name in names or not name.strip():
            raise VbprError(f"--fitted {name}={options.fitted[name]}: give it a name that no method has")
    if options.fitted and len(data_sets) > 1:
        raise VbprError("--fitted is for one --data: a model file is of one data set; leave one of them out")
    device = pick_device(options.device)  # a missing GPU is reported before the first method runs
    check_methods(data_sets, methods, folder, options)
    result: dict[str, Any] = {"protocol": PROTOCOL, "seeds": options.seeds}
    result |= {"versions": versions(), "device": str(device), "threads": torch.get_num_threads(), "data": []}
    with stop_signals() as stopping:  # one flag for every step within: a signal ends them all
        for data in data_sets:
            result["data"].append(compare_on(data, methods, folder / slug(data), options, stopping))
    texts = {".json": json.dumps(result, indent=1) + "\n", ".md": markdown(result)}
    texts |= {".csv": as_csv(result), ".tex": as_latex(result)}
    name = written_as(options.split)
    for ending, text in texts.items():
        replace_text(folder / f"{name}{ending}", text)
    draw_bars(result, folder / f"{name}.png")
    return result


def written_as(split: SplitConfig) -> str:
    """What the files of results are called, without an ending: those of another split seed have names of their own."""
    return f"compare-split-{split.seed}" if split.seed else "compare"


def compare_on(
    data: Dataset, methods: list[Method], folder: Path, options: Options, stopping: Callable[[], bool]
) -> dict[str, Any]:
    """All methods on one data set: its part of compare.json."""
    visual = any(method.backbone or MODELS[method.model].images for method in methods)
    split = prepare(data, [], config=options.split, images=data.images() if visual else None)
    if not split.test.nnz:
        raise VbprError("--split none holds nothing out to compare methods by; choose another --split")
    counts = (len(split.user_ids), len(split.item_ids), split.train.nnz + split.validation.nnz + split.test.nnz)
    recognised = recognise(*counts)
    published = recognised is not None if options.published is None else options.published
    fitted = {name: fitted_on(split, name, path) for name, path in options.fitted.items()}
    rows, users = [], {}
    for method in methods:
        features, spent = features_of(method, data, folder, options)
        cells = []
        for seed in range(options.seeds if "seed" in MODELS[method.model].reads else 1):
            config = config_of(method, options, features).changed(seed=seed)
            cells.append(cell(method, data, split, features, config, folder, published))
            if stopping():
                raise Stopped(f"stopped after {method.name}; run the same command again to resume")
        users[method.name] = users_of(cells)
        untrained = config.network_weights == "random"
        row = row_of(method, cells, users[method.name], spent, recognised, features, untrained)
        rows.append(row | {"config": config.to_json()})
    for name, factors in fitted.items():
        nothing = {"seconds": 0.0, "images": 0}
        record = fitted_cell(name, factors, folder, options.device, published)
        users[name] = users_of([record])
        method = Method(name, factors.record.model, "")
        row = row_of(method, [record], users[name], nothing, recognised, None, False)
        rows.append(row | {"config": factors.record.config, "file": str(options.fitted[name])})
    return {
        "data": data.name,
        "title": data.title,
        "recognised": recognised,
        "users": counts[0],
        "items": counts[1],
        "interactions": counts[2],
        "split": split.rule,
        "dropped_users": split.dropped_users,
        "published_protocols": published,
        "methods": rows,
        "tests": told_apart(rows, users),
    }


__all__ = ["compare", "written_as"]
