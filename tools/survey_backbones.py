"""Tries timm's networks by every engine, against torch in float32, and writes the table of docs/backbones.md.

    python tools/survey_backbones.py                          # the smallest member of every family, then the table
    python tools/survey_backbones.py resnet50_gn levit_128s   # these, printed and not written
    python tools/survey_backbones.py --minutes 8              # go on for so long; run again to go on from there

Each network runs in a process of its own, on one thread, for at most `--limit` seconds. What came of it is kept as a
line of JSON in `--kept`, by name and versions, and is not tried again. Weights are untrained but lively: batch norms
have the statistics of pictures, and no layer scale, bias or table of positions is near zero, as it is at timm's start,
where errors would hide. The pictures are of the sample catalogue. Where float32 itself is far from float64, as in
attention that is all but a choice, no two ways to compute agree: the table says so.
"""

import argparse
import contextlib
import copy
import importlib.metadata
import json
import math
import os
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from vbpr.base.errors import VbprError, first_line
from vbpr.base.files import replace_text
from vbpr.data.dataset import Dataset
from vbpr.extraction.engines import Encoder
from vbpr.extraction.trial import NEAR, eager, two_pictures
from vbpr.networks.backbone import Backbone, finish
from vbpr.networks.prepare import prepare
from vbpr.networks.timm_models import check_tag
from vbpr.networks.untrained import fault_of, measure_batch_norms

ENGINES = {"one photo": ("torch", 1), "torch": ("torch", 4), "openvino": ("openvino", 4)}
LARGEST = 120e6  # parameters of a network that is tried
MEASURED = 8  # pictures that batch norms have their statistics of
SECONDS = 2.0  # of processor time, that a speed is measured for
PAGE, HEADING = Path(__file__).parents[1] / "docs" / "backbones.md", "## Every family"
VERSIONS = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("timm", "torch", "openvino"))


def families() -> list[tuple[str, float]]:
    """The smallest member of every family, and its parameters: of the names that begin alike, in each of timm's
    modules."""
    smallest: dict[tuple[str, str], tuple[float, str]] = {}
    for module in timm.list_modules():
        for name in timm.list_models(module=module):
            family = module, re.split(r"[_\d]", name)[0]
            smallest[family] = min(smallest.get(family, (math.inf, name)), (parameters(name), name))
    return sorted((name, count) for count, name in smallest.values())


def parameters(name: str) -> float:
    """How many it has without a head; infinite where it cannot be built."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for device in ("meta", "cpu"):  # cpu: of those that compute with their tables when they are built
            try:
                with torch.device(device):
                    return sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())
            except Exception:
                continue
    return math.inf


@torch.no_grad()
def lively(module: nn.Module, images: torch.Tensor) -> nn.Module:
    """Random weights, none of which makes its layer say nothing.

    Args:
        images: (n, 3, size, size), that batch norms have their statistics of.
    """
    for name, tensor in module.named_parameters():
        last = name.rpartition(".")[2]
        if last == "bias":
            tensor.normal_(0, 0.1)
        elif tensor.ndim == 1:  # gains of norms, and layer scales
            tensor.uniform_(0.5, 1.5)
        elif "pos" in last or tensor.abs().max() < 1e-3:
            tensor.normal_(0, 0.2)
    measure_batch_norms(module.eval(), images)
    return module


def built(name: str) -> Backbone:
    """
    Raises:
        VbprError: see `load_backbone`.
    """
    check_tag(name, name)
    torch.manual_seed(0)
    backbone = finish(name, timm.create_model(name, num_classes=0), "random")
    source, how = Dataset.resolve("sample").images(), backbone.preprocessing
    pictures = np.stack([prepare(source.read(row), how) for row in range(1, len(source), len(source) // MEASURED)])
    lively(backbone.module, scaled(backbone, pictures))
    return backbone


def scaled(backbone: Backbone, pixels: np.ndarray) -> torch.Tensor:
    """(n, size, size, 3) uint8 as (n, 3, size, size) float32, as the network takes them."""
    how = backbone.preprocessing
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (how.mean, how.std))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std


def in_float64(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """(n, D) features in double precision, from pixels that are scaled in float32."""
    with torch.inference_mode():
        return copy.deepcopy(backbone.module).double()(scaled(backbone, pixels).double()).numpy()  # type: ignore[no-any-return]


def tried(name: str) -> dict[str, Any]:
    """D, pixels, and for each engine how far its features are from torch's (relative L2, the larger of two pictures),
    the processor time to start it, and images a second of it."""
    try:
        backbone = built(name)
    except VbprError as error:
        return {"refused": str(error)}
    pixels = two_pictures(Dataset.resolve("sample").images(), backbone.preprocessing)
    expected = eager(backbone, pixels)
    row: dict[str, Any] = {"D": backbone.dim, "px": backbone.preprocessing.size, "words": fault_of(expected)}
    with contextlib.suppress(Exception):  # a network that knows float32 alone
        row["float32"] = apart(expected, in_float64(backbone, pixels))
    for label, (engine, batch) in ENGINES.items():
        print(json.dumps(row | {label: "ends the process"}), flush=True)  # what is known if it does
        began = time.process_time()
        try:
            encoder = Encoder(backbone, "cpu", "exact", engine, batch)
            found = encoder(pixels)
            row[f"{label}, start"] = round(time.process_time() - began, 1)
            row[label] = apart(found, expected)
            if batch > 1:
                row[f"{label}, speed"] = speed(encoder, np.concatenate([pixels, pixels]))
        except Exception as error:
            row[label] = f"fails: {first_line(error)[:80]}"
    return row


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2, the largest of the rows."""
    return float(f"{(np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max():.1e}")


def speed(encoder: Encoder, pixels: np.ndarray) -> float:
    """Images for each second of processor time."""
    began = time.process_time()
    batches, spent = 0, 0.0
    while spent < SECONDS:
        encoder(pixels)
        batches, spent = batches + 1, time.process_time() - began
    return float(f"{batches * len(pixels) / spent:.3g}")


def tried_apart(name: str, limit: float) -> dict[str, Any]:
    """`tried` in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", name]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=settings, check=False)
    except subprocess.TimeoutExpired as error:
        lines = (error.stdout or b"").decode().splitlines()
        return {key: v for key, v in json.loads(lines[-1] if lines else "{}").items() if v != "ends the process"} | {
            "late": f"not finished in {limit:g} s"
        }
    lines = child.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {"refused": (child.stderr.splitlines() or ["no word"])[-1][:200]}


def passes(apart: object) -> bool:
    return isinstance(apart, float) and apart <= NEAR["exact"]


def verdict(row: dict[str, Any]) -> str:
    """What vbpr makes of a network."""
    if "refused" in row:
        return f"refused: {row['refused']}"
    if "tried" in row:
        return str(row["tried"])
    if row.get("words"):
        return f"refused: its features {row['words']}"
    if passes(row.get("openvino")):
        return "OpenVINO"
    if "late" in row:
        return str(row["late"])
    why = row.get("openvino")
    if isinstance(row.get("float32"), float) and row["float32"] > NEAR["exact"]:
        return f"torch (float32 itself is off by {row['float32']:.0e} from float64)"
    why = f"off by {why:.0e}" if isinstance(why, float) else str(why).removeprefix("fails: ")
    return f"torch (OpenVINO: {why})" if passes(row.get("torch")) else f"torch, untraced (OpenVINO: {why})"


def survey(kept: Path, limit: float, minutes: float) -> list[dict[str, Any]] | None:
    """The rows of all families, those in `kept` and the others; None where time is up before."""
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    rows = [row for row in rows if row["versions"] == VERSIONS]
    listed = next((row["families"] for row in rows if "families" in row), None)
    done, end = {row["name"]: row for row in rows if "name" in row}, time.monotonic() + 60 * minutes
    with kept.open("a") as out:
        if listed is None:
            listed = families()
            print(json.dumps({"versions": VERSIONS, "families": listed}), file=out, flush=True)
        for name, count in listed:
            if name in done:
                continue
            if time.monotonic() > end:
                return None
            row = {"tried": "not tried: too large"} if count > LARGEST else None
            row = {"name": name, "parameters": count, "versions": VERSIONS} | (row or tried_apart(name, limit))
            print(json.dumps(row), file=out, flush=True)
            done[name] = row
    return [done[name] for name, _ in listed]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    heads = ["network", "M parameters", "px", "D", "OpenVINO off by", "torch off by", "start, s", "images/s", "runs by"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        engine = "openvino" if passes(row.get("openvino")) else "torch"
        off = [f"{row[name]:.0e}" if isinstance(row.get(name), float) else "" for name in ("openvino", "torch")]
        speed = row.get(f"{engine}, speed", "")
        cells = [row["name"], f"{row['parameters'] / 1e6:.1f}", row.get("px", ""), row.get("D", ""), *off]
        cells += [row.get(f"{engine}, start", ""), speed, verdict(row).replace("|", "/")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def section(rows: list[dict[str, Any]]) -> str:
    """The table with what is said above it."""
    kinds = Counter(re.split(r"[:(,]", verdict(row))[0].strip() for row in rows)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return (
        f"{HEADING}\n\nThe smallest network of each of timm's {len(rows)} families (names that begin alike, in one of "
        f'its modules), by `python tools/survey_backbones.py`, with {VERSIONS}: {counts}. "Off by": relative L2 to '
        "eager float32 on two pictures of the sample, with lively random weights; over 1e-3, or where an engine fails "
        "or dies, torch takes its place. Start and images a second are of processor time on one thread, of the engine "
        f"that runs, without decoding; over {LARGEST / 1e6:.0f} M parameters nothing was tried.\n\n{table(rows)}\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--limit", type=float, default=300)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--kept", type=Path, default=Path("survey.jsonl"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(tried(given.one)))
    elif given.names:
        rows = [{"name": name, "parameters": parameters(name)} | tried_apart(name, given.limit) for name in given.names]
        print(f"{VERSIONS}\n\n{table(rows)}")
    else:
        rows = survey(given.kept, given.limit, given.minutes)
        if rows is None:
            sys.exit(f"time is up; run again to go on from {given.kept}")
        text = PAGE.read_text()
        replace_text(PAGE, text[: text.index(HEADING)] + section(rows))
        print(f"{len(rows)} families in {PAGE}")
