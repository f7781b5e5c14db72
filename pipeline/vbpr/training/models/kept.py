"""Finished parts of a blend on the disk, so that a run that was stopped does not make them again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ...base.errors import VbprError
from ...base.progress import console
from ...compute.checkpoint import read_checkpoint, write_checkpoint
from .parts import Part

SECONDS = 20.0  # a part that takes fewer is made again sooner than kept


def kept(make: Callable[[], Part], checkpoint: Path | None, name: str, identity: str) -> Part:
    """The part of an earlier try at this very run; else as it is made, and kept if that took long.

    Args:
        checkpoint: of the whole run, beside which it is kept; None: nowhere.
    """
    if checkpoint is None:
        return make()
    path, own = checkpoint.with_name(f"{checkpoint.name}-{name.replace(' ', '-')}"), [identity, name]
    saved = read_checkpoint(path, own)
    if saved is not None:
        return restored(*saved)
    started = time.monotonic()
    part = make()
    if time.monotonic() - started > SECONDS:
        tensors, sides = flat(part)
        try:
            write_checkpoint(path, tensors, own, sides=sides, curve=part.curve)
        except VbprError as error:  # a full disk: nothing is lost but time
            console.print(f"note: {name} is not kept for a run that is stopped ({error})")
    return part


def flat(part: Part) -> tuple[dict[str, torch.Tensor], list[list[Any]]]:
    """Its arrays by name, and of each side of each term its shape and whether it is sparse."""
    arrays: dict[str, Any] = {} if part.bias is None else {"bias": part.bias}
    for which, array in zip(("users", "features"), part.unseen or (), strict=False):
        arrays[f"unseen/{which}"] = array
    sides = []
    for t, term in enumerate(part.terms):
        for which, matrix in zip(("users", "items"), term, strict=True):
            sparse = sp.issparse(matrix)
            matrix = matrix.tocsr() if sparse else matrix
            sides.append([f"{t}/{which}", list(matrix.shape), sparse])
            for field in ("data", "indices", "indptr") if sparse else ("dense",):
                arrays[f"{t}/{which}/{field}"] = getattr(matrix, field) if sparse else matrix
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}, sides


def restored(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> Part:
    """The part that `flat` took apart."""
    arrays = {name: value.numpy() for name, value in tensors.items()}

    def side(name: str, shape: list[int], sparse: bool) -> Any:
        if not sparse:
            return arrays[f"{name}/dense"]
        return sp.csr_matrix(tuple(arrays[f"{name}/{field}"] for field in ("data", "indices", "indptr")), tuple(shape))

    sides = [side(*told) for told in about["sides"]]
    unseen = (arrays["unseen/users"], arrays["unseen/features"]) if "unseen/users" in arrays else None
    return Part(list(zip(sides[::2], sides[1::2], strict=True)), arrays.get("bias"), unseen, about["curve"])


__all__ = ["kept"]
