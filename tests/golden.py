"""Makes a feature file and a model of every entry of MODELS, of the sample and with one thread; prints what they hold.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python tests/golden.py FOLDER > tests/golden.json

`tests/test_golden.py` compares this with `tests/golden.json`. Whoever changes a format, a default or the arithmetic on
purpose makes that file anew, and the commit says why.
"""

import hashlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
import typer.main

from vbpr import MODELS, Dataset, Factors, FeatureStore, configure, extract, train

BRIEF = {"device": "cpu", "precision": "float32", "seed": 3}
TINY = {"network": "test_resnet", "network_weights": "random"}
SMALL = {  # of each model: so small that all of them take half a minute
    "visual": {"dim": 16, "epochs": 2},
    "vbpr": {"dim": 16, "factors": 8, "epochs": 1},
    "hybrid": {"dim": 16, "factors": 8, "epochs": 1},
    "bprmf": {"factors": 8, "epochs": 2},
    "als": {"factors": 8, "epochs": 3},
    "bpr": {"factors": 8, "epochs": 5},
    "ease": {"factors": 16},
    "feature-als": {"factors": 8, "epochs": 3},
    "spectral": {"factors": 8},
    "dvbpr": {"dim": 8, "epochs": 1, "batch": 2048, "images_per_step": 64, **TINY},
}
PASSING = {"seconds", "versions"}  # of `about`: another in every run, or with every release


def layout_of(path: Path, places: bool) -> list[str]:
    """Every data set of an HDF5 file: name, type, shape and, if `places`, where it lies."""
    found: list[str] = []

    def note(name: str, data: object) -> None:
        if isinstance(data, h5py.Dataset):
            found.append(f"{name} {data.dtype.str} {data.shape}" + (f" at {data.id.get_offset()}" if places else ""))

    with h5py.File(path) as handle:
        handle.visititems(note)
        return [f"attributes {', '.join(sorted(handle.attrs))}", *found]


def machine() -> str:
    """What decides the last bits of float32 sums."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    kernels = f"{torch.backends.cpu.get_cpu_capability()} {os.environ.get('OPENBLAS_CORETYPE', '')}".strip()
    packages = ("torch", "numpy", "scipy", "implicit", "timm", "pillow")
    return ", ".join([cpu, kernels, *(f"{name} {importlib.metadata.version(name)}" for name in packages)])


def feature_file(folder: Path) -> dict[str, object]:
    path = folder / "tiny.h5"
    extract("sample", "test_resnet", path, random_weights=True, engine="torch", device="cpu", batch=16)
    store = FeatureStore(path)
    told = {key: value for key, value in store.provenance.items() if key not in ("versions", "request")}
    rows = store.features[:].astype(np.float64)
    return {
        "layout": layout_of(path, places=True),
        "told": json.dumps(told, sort_keys=True),
        "ids": hashlib.sha256("\n".join(store.item_ids).encode()).hexdigest(),
        "figures": [len(store), store.dim, float(rows.mean()), float(rows.std())],
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def model_file(folder: Path, name: str) -> dict[str, object]:
    path = folder / f"{name}.model.h5"
    model = MODELS[name]
    features = [folder / "tiny.h5"] if model.visual else []
    config = configure(name, widest=FeatureStore(folder / "tiny.h5").dim, **{**SMALL.get(name, {}), **seeded(name)})
    train(Dataset.resolve("sample"), features, config, path)
    factors = Factors.load(path)
    about = {key: value for key, value in factors.about.items() if key not in PASSING | {"features", "curve", "config"}}
    if "blend" in about:  # its numbers are those of sums in float32, which are others elsewhere
        about["blend"] = [list(part) for part in about["blend"]]
        about["choice"] = {k: v for k, v in about["choice"].items() if isinstance(v, str)}
    config_told = {k: v for k, v in factors.about["config"].items() if k != "identity"}
    users = np.arange(0, len(factors.user_ids), 50)
    scores = factors.scores(users).astype(np.float64)
    return {
        "layout": layout_of(path, places=False),  # `about` is as long as the seconds' digits
        "about": json.dumps(about, sort_keys=True),
        "config": json.dumps(config_told, sort_keys=True),
        # of `dvbpr` it tells when the pictures were last changed
        "identity": "" if model.images else factors.about["config"]["identity"],
        "split": factors.split_digest(),
        "figures": [*map(float, (scores.mean(), scores.std(), np.abs(factors.users).sum()))],
        "digest": factors.digest(),
    }


def seeded(name: str) -> dict[str, object]:
    """What keeps a model to one thread's arithmetic, as far as it reads such options."""
    return {key: value for key, value in BRIEF.items() if key == "device" or key in MODELS[name].reads}


def help_of() -> dict[str, list[str]]:
    """What `--help` says, of the program and of every command, 100 columns wide."""
    from vbpr.cli import app

    group = typer.main.get_command(app)
    top = group.make_context("vbpr", [], resilient_parsing=True, max_content_width=100, terminal_width=100)
    told = {"vbpr": group.get_help(top)}
    for name, command in group.commands.items():
        told[name] = command.get_help(command.make_context(name, [], parent=top, resilient_parsing=True))
    return {name: text.splitlines() for name, text in told.items()}


def made(folder: Path) -> dict[str, object]:
    """All of it; digests hold on one kind of machine, the rest everywhere."""
    torch.set_num_threads(1)
    return {
        "machine": machine(),
        "help": help_of(),
        "features": feature_file(folder),
        "models": {name: model_file(folder, name) for name in MODELS},
    }


if __name__ == "__main__":
    print(json.dumps(made(Path(sys.argv[1])), indent=1))
