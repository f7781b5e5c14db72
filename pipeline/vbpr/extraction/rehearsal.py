"""A network is converted and compiled in a process of its own first, where OpenVINO might take the process with it.

if compiles(backbone, "exact", 16): ...     # seconds for a network not seen before; a look into a file for others

What came of it is kept for each network and version of OpenVINO, in `vbpr/compiled.json` of the user's cache folder.
"""

import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from ..base.errors import VbprError
from ..base.files import read_json, replace_text
from ..base.own import is_own
from ..base.progress import Progress
from ..networks.backbone import Backbone
from ..networks.registry import BACKBONES, load_backbone

REHEARSE = "from vbpr.extraction.rehearsal import rehearse; rehearse()"


def compiles(backbone: Backbone, precision: str, batch: int | None) -> bool:
    """Whether OpenVINO leaves the process alive when it converts and compiles the network.

    Those in `BACKBONES` do, as tests show. A fault that OpenVINO merely reports is none here.
    """
    if backbone.network in BACKBONES:
        return True
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("openvino", "timm", "torch"))
    request = json.dumps([backbone.network, precision, batch])
    told = f" {backbone.digest}" if is_own(backbone.name) else ""
    key, outcomes = f"{versions}: {request}{told}", read_json(outcomes_file())
    if isinstance(outcomes.get(key), bool):
        return bool(outcomes[key])
    with Progress(f"try {backbone.name} with OpenVINO", 1, "networks") as bar:
        status = status_of_child(request)
        bar.advance(1)
    if -status not in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):  # somebody else's doing, or too little memory
        with contextlib.suppress(OSError, VbprError):  # a home that cannot be written
            outcomes_file().parent.mkdir(parents=True, exist_ok=True)
            outcomes = read_json(outcomes_file()) | {key: status >= 0}
            replace_text(outcomes_file(), json.dumps(outcomes, indent=1, sort_keys=True))
    return status >= 0


def outcomes_file() -> Path:
    """Where it is kept what came of networks."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vbpr" / "compiled.json"


def status_of_child(request: str) -> int:
    """How a child process that rehearses ends: by itself (0 or more), or by a signal (less)."""
    here = str(Path(__file__).parents[2])
    paths = os.pathsep.join(path for path in (here, os.environ.get("PYTHONPATH", "")) if path)
    return subprocess.run(
        [sys.executable, "-c", REHEARSE, request],
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode


def rehearse() -> None:
    """Of the child: convert, compile and run the network with untrained weights, on black images."""
    import resource

    import numpy as np
    import timm

    from ..networks.backbone import finish
    from .engines import Encoder

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    name, precision, batch = json.loads(sys.argv[1])
    with contextlib.suppress(Exception):  # an error that Python sees harms nobody, and the run itself meets it again
        own = is_own(name)  # which the run itself was asked for
        backbone = load_backbone(name) if own else finish(name, timm.create_model(name, num_classes=0), "random")
        encode = Encoder(backbone, "cpu", precision, "openvino", batch)
        encode(np.zeros((1, encode.size, encode.size, 3), np.uint8))


__all__ = ["compiles"]
