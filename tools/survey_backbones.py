"""Tries timm's networks by every engine, against torch in float32, and prints a table.

    python tools/survey_backbones.py                        # the smallest member of every family
    python tools/survey_backbones.py resnet50_gn levit_128s # these
    python tools/survey_backbones.py --limit 300            # give up on a network after 300 seconds

Weights are untrained but lively: batch norms have the statistics of smooth noise, and no layer scale, bias or table of
positions is near zero, as it is at timm's start, where errors would hide. Each network runs in a process of its own.
"""

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import time
import warnings

import numpy as np
import timm
import torch
from torch import nn

from vbpr.base.errors import VbprError, first_line
from vbpr.extraction.engines import Encoder
from vbpr.extraction.trial import eager
from vbpr.networks.backbone import Backbone, finish
from vbpr.networks.timm_models import check_tag
from vbpr.networks.untrained import measure_batch_norms, smooth_noise

RUNS = {"one photo": ("torch", 1), "torch": ("torch", 4), "openvino": ("openvino", 4)}
NEAR = 1e-3


def families() -> list[str]:
    """The smallest member of every family: of the names that begin alike, in each of timm's modules."""
    smallest: dict[tuple[str, str], tuple[int, str]] = {}
    for module in timm.list_modules():
        for name in timm.list_models(module=module):
            family = module, re.split(r"[_\d]", name)[0]
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    count = sum(p.numel() for p in timm.create_model(name).parameters())
                except Exception:  # it computes with its tables when it is built
                    continue
            smallest[family] = min(smallest.get(family, (count, name)), (count, name))
    return sorted(name for _, name in smallest.values())


@torch.no_grad()
def lively(module: nn.Module, size: int) -> nn.Module:
    """Random weights, none of which makes its layer say nothing."""
    for name, tensor in module.named_parameters():
        last = name.rpartition(".")[2]
        if last == "bias":
            tensor.normal_(0, 0.1)
        elif tensor.ndim == 1:  # gains of norms, and layer scales
            tensor.uniform_(0.5, 1.5)
        elif "pos" in last or tensor.abs().max() < 1e-3:
            tensor.normal_(0, 0.2)
    measure_batch_norms(module.eval(), smooth_noise(4, size))
    return module


def built(name: str) -> Backbone:
    """
    Raises:
        VbprError: see `load_backbone`.
    """
    check_tag(name, name)
    torch.manual_seed(0)
    backbone = finish(name, timm.create_model(name, num_classes=0), "random")
    lively(backbone.module, backbone.preprocessing.size)
    return backbone


def tried(name: str) -> dict[str, object]:
    """D, pixels, and for each engine how far its features are from torch's, and the seconds to start it."""
    try:
        backbone = built(name)
    except VbprError as error:
        return {"refused": str(error)}
    noise = smooth_noise(2, backbone.preprocessing.size).permute(0, 2, 3, 1)
    pixels = (noise * 50 + 128).clamp(0, 255).byte().numpy()
    expected = eager(backbone, pixels)
    row: dict[str, object] = {"D": backbone.dim, "px": backbone.preprocessing.size}
    for label, (engine, batch) in RUNS.items():
        print(json.dumps(row | {label: "ends the process"}), flush=True)  # what is known if it does
        start = time.monotonic()
        try:
            found = Encoder(backbone, "cpu", "exact", engine, batch)(pixels)
            row[label] = f"{np.linalg.norm(found - expected) / np.linalg.norm(expected):.1e}"
        except Exception as error:
            row[label] = f"fails: {first_line(error)[:60]}"
        row[f"{label}, s"] = round(time.monotonic() - start, 1)
    return row


def verdict(row: dict[str, object]) -> str:
    """What vbpr makes of a network."""
    if "refused" in row:
        return str(row["refused"])[:80]
    if "torch" not in row:
        return "not finished"
    if re.fullmatch(r"\S+e\S+", str(row.get("openvino"))) and float(str(row["openvino"])) <= NEAR:
        return "openvino"
    return "falls back to torch"


def survey(names: list[str], limit: int) -> None:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("timm", "torch", "openvino"))
    print(f"{len(names)} networks, {', '.join(versions)}, {torch.get_num_threads()} threads\n")
    columns = ["D", "px", *RUNS, *(f"{label}, s" for label in RUNS)]
    print("|".join(["", " network ", *(f" {column} " for column in columns), " runs by ", ""]))
    print("|" + "---|" * (len(columns) + 2))
    for name in names:
        try:
            child = subprocess.run(
                [sys.executable, __file__, "--one", name], capture_output=True, text=True, timeout=limit
            )
            lines = child.stdout.splitlines()
            row = json.loads(lines[-1]) if lines else {"refused": (child.stderr.splitlines() or ["no word"])[-1]}
        except subprocess.TimeoutExpired:
            row = {}
        cells = [name, *(str(row.get(column, "")) for column in columns), verdict(row)]
        print("|".join(["", *(f" {cell} " for cell in cells), ""]), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--one")
    given = parser.parse_args()
    if given.one:
        warnings.simplefilter("ignore")
        print(json.dumps(tried(given.one)))
    else:
        survey(given.names or families(), given.limit)
