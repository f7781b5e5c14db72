"""The data sets of a feature file: their types and shapes, what a row's state means, and what made the file."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from ...base.errors import VbprError
from ...base.hdf5 import read_text

PENDING, DONE, FAILED = 0, 1, 2
BLOCK = 4096  # rows under one digest
DIGEST = 16  # bytes of it; all zero: not yet written
ELSEWHERE = "made elsewhere"  # in place of weights: no network here makes such features
LAYOUT = {"features": "<f2", "state": "|u1", "reason": "|u1", "signature": "<u8", "digest": "|u1"}
PROVENANCE = {"backbone": str, "weights": str, "preprocessing": str, "data": str, "fingerprint": str, "reasons": list}

SHARED = "a picture that too many items share"  # a reason that goes with its option: see `max_shared` in `TOLD`
# What else a file records of its rows, whatever they were made from; one that tells otherwise is written anew, with the
# rows that it has.
TOLD = ("data", "images", "id_field", "views", "pictures", "max_shared")


def shapes_of(n: int, dim: int) -> dict[str, tuple[int, ...]]:
    """The shape of each data set of a file of n rows of `dim` numbers."""
    blocks = -(-n // BLOCK)
    return {"state": (n,), "reason": (n,), "signature": (n,), "digest": (blocks, DIGEST), "features": (n, dim)}


def read_provenance(handle: h5py.File, path: Path) -> dict[str, Any]:
    """What made an open feature file.

    Raises:
        VbprError: it does not tell, or not all of `PROVENANCE`.
    """
    try:
        provenance: dict[str, Any] = json.loads(read_text(handle, "provenance"))
        sound = all(isinstance(provenance[key], kind) for key, kind in PROVENANCE.items())
    except (KeyError, TypeError, ValueError, OSError, RuntimeError):
        sound = False
    if not sound:
        raise VbprError(f"{path} does not say what made it; delete the file and run vbpr extract again")
    return provenance


def describe(provenance: Mapping[str, Any]) -> str:
    """What made a feature file, in words."""
    how = "; ".join(str(provenance[key]) for key in ("preprocessing", "precision", "engine") if key in provenance)
    return f"{provenance['backbone']} (weights {provenance['weights']}; {how})"


def command_of(provenance: Mapping[str, Any], path: Path) -> str:
    """The command that made a feature file, as far as its provenance tells."""
    if "imported" in provenance:
        return import_command(provenance["imported"], path)
    weights = f" --weights {shlex.quote(provenance['weights_file'])}" if provenance.get("weights_file") else ""
    weights = " --random-weights" if provenance["weights"] == "random" else weights
    fast = ""
    if provenance.get("precision") == "fast":
        fast = f" --precision fast --engine {provenance['engine'].split()[0]}"
    told = {"--images": "images", "--id-field": "id_field", "--max-shared": "max_shared"}
    more = "".join(f" {flag} {shlex.quote(str(provenance[key]))}" for flag, key in told.items() if key in provenance)
    more += " --views first" if provenance.get("views") == "first" else ""
    out = path.with_name(path.name.replace(".views.h5", ".h5")) if provenance.get("pictures") else path
    data, place = (shlex.quote(str(place)) for place in (provenance["data"], out))
    return f"vbpr extract --backbone {provenance['backbone']}{weights}{fast} --data {data}{more} --out {place}"


def import_command(told: Mapping[str, Any], path: Path) -> str:
    """The command by which features made elsewhere were imported."""
    options = {"--ids": told["ids"], "--column": told["column"], "--id-column": told["id_column"]}
    options["--duplicates"] = "" if told["duplicates"] == "refuse" else told["duplicates"]
    words = ["vbpr", "import", told["source"], *(word for pair in options.items() if pair[1] for word in pair)]
    return shlex.join([*words, "--out", str(path)])


def mend(provenance: Mapping[str, Any], path: Path) -> str:
    """How rows that have changed since they were written are made again, in words."""
    command = command_of(provenance, path)
    return f"delete the file, then {command}" if "imported" in provenance else f"{command} --verify encodes these anew"


def maker(provenance: Mapping[str, Any]) -> str:
    """The command that makes such a feature file, without its options."""
    return "vbpr import" if "imported" in provenance else "vbpr extract"


__all__ = [
    "BLOCK",
    "DIGEST",
    "DONE",
    "ELSEWHERE",
    "FAILED",
    "LAYOUT",
    "PENDING",
    "PROVENANCE",
    "SHARED",
    "TOLD",
    "command_of",
    "describe",
    "maker",
    "mend",
    "read_provenance",
    "shapes_of",
]
