"""The contract of a backbone: what every entry of BACKBONES keeps, told of one on 22 made pictures.

for finding in check_backbone("my_eyes.py:Patches"): print(finding.state, finding.name, finding.words)
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.torch

from ...base.arrays import Array
from ...base.errors import VbprError
from ...extraction.engines import Encoder
from ...networks.backbone import Backbone
from ...networks.prepare import prepare
from ...networks.registry import load_backbone
from ...networks.untrained import fault_of
from .board import Pictures
from .finding import Finding, judged

MANY = 8  # pictures


def check_backbone(name: str, weights: Path | None = None, random_weights: bool = False) -> Iterator[Finding]:
    """Findings, as they are made; an error of its code is the last.

    Raises:
        VbprError: there is no such backbone, or it cannot be built.
    """
    backbone = load_backbone(name, weights, random_weights)
    how = f"D {backbone.dim:,}, {backbone.preprocessing}; weights: {backbone.weights}"
    yield Finding("the class can be built, and gives one vector an image", "ok", how)
    source = Pictures()
    pixels = np.stack([prepare(source.read(i), backbone.preprocessing) for i in range(2, 22, 20 // MANY)][:MANY])
    try:
        encode = Encoder(backbone, "cpu", engine="torch")
        whole = encode(pixels)
        yield (sound := finite(whole))
        yield batched(encode, pixels, whole)
        yield repeated(encode, pixels, whole)
        if sound.state == "ok":
            yield telling(whole)
        yield again(backbone, load_backbone(name, weights, random_weights))
        yield reloaded(name, backbone)
    except VbprError as error:
        yield Finding("pictures go through it without an error", "fault", str(error))


def finite(whole: Array) -> Finding:
    sound = bool(np.isfinite(whole).all()) and float(np.abs(whole).max()) < LARGEST
    words = f"the largest is {np.abs(whole).max():.3g}, and a feature file keeps float16, to 65,504; scale the output"
    return judged("features are finite, and float16 holds them", sound, words)


def batched(encode: Encoder, pixels: Array, whole: Array) -> Finding:
    one_by_one = np.concatenate([encode(pixels[n : n + 1]) for n in range(len(pixels))])
    off = float(np.abs(whole - one_by_one).max() / max(1e-12, np.abs(whole).max()))
    return judged(
        "features do not depend on the batch",
        off < 1e-3,
        f"one image at a time they differ by {off:.1%}; mix nothing across a batch, and freeze norms",
    )


def repeated(encode: Encoder, pixels: Array, whole: Array) -> Finding:
    same = np.allclose(encode(pixels), whole, atol=1e-5 * float(np.abs(whole).max()))
    return judged("the same image gives the same features", same, "they change from call to call; switch dropout off")


def telling(whole: Array) -> Finding:
    fault = fault_of(whole[[0, -1]], LARGEST) or ("are all the same" if np.ptp(whole, 0).max() == 0 else "")
    return judged("different images give different features", not fault, f"features {fault}; look at the last layer")


def again(one: Backbone, other: Backbone) -> Finding:
    same = one.fingerprint == other.fingerprint
    words = "built twice, it has other weights, so no extraction could resume; seed what is drawn, or load weights"
    return judged("built twice it is the same", same, words)


def reloaded(name: str, backbone: Backbone) -> Finding:
    """Its own tensors through a file, as `--weights` takes it."""
    state = {key: value.contiguous().clone() for key, value in backbone.module.state_dict().items()}
    if not state:
        return Finding("its weights can be given as a file", "note", "it has no tensors, so --weights does nothing")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        safetensors.torch.save_file(state, path)
        loaded = load_backbone(name, path).module.state_dict()
    same = all(bool((loaded[key] == value).all()) for key, value in state.items())
    return judged("its weights can be given as a file", same, "what --weights loads is changed; load nothing later")


LARGEST = 6e4

__all__ = ["check_backbone"]
