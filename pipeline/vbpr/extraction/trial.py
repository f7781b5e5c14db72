"""Before a feature file is begun, the engine that will run is held against the network as torch runs it, in float32.

encoder, why = tried_encoder(model, processor, "exact", "openvino", None, len(source), two_pictures(source, how))
"""

import numpy as np
import torch

from ..base.errors import VbprError, first_line
from ..base.progress import console
from ..data.images.source import BadImage, ImageSource, Pixels
from ..networks.backbone import Backbone
from ..networks.prepare import Preprocessing, prepare
from ..networks.untrained import fault_of
from .engines import Encoder
from .engines.runner import Features
from .engines.torch_cpu import TorchRunner
from .rehearsal import compiles

FEW = 8  # pictures that are looked at, to find two that differ
FLOAT16 = 65504.0
NEAR = {"exact": 1e-3, "fast": 0.3}  # relative L2 to eager float32; fast: what no rounding makes


def two_pictures(source: ImageSource, how: Preprocessing) -> Pixels:
    """(2, size, size, 3) uint8: of a few pictures of the catalogue the two that differ most; fewer where there are."""
    pictures = []
    for row in np.unique(np.linspace(0, len(source) - 1, min(FEW, len(source))).astype(int)):
        try:
            pictures.append(prepare(source.read(int(row)), how))
        except BadImage:
            continue
    stack = np.stack(pictures) if pictures else np.empty((0, how.size, how.size, 3), np.uint8)
    if len(stack) < 2:
        return stack
    apart = np.array([[difference(a, b) for a in stack] for b in stack])
    return stack[list(np.unravel_index(apart.argmax(), apart.shape))]


def difference(a: Pixels, b: Pixels) -> float:
    """Of two pictures, in steps of 1/255."""
    return float(np.abs(a.astype(np.float32) - b).mean())


def eager(model: Backbone, pixels: Pixels) -> Features:
    """(n, D) features of (n, size, size, 3) uint8 by torch in float32, operation by operation, on the CPU."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    with torch.inference_mode():
        features: Features = model.module((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    return features


def tried_encoder(
    model: Backbone,
    device: torch.device,
    precision: str,
    engine: str,
    batch: int | None,
    images: int,
    pixels: Pixels,
) -> tuple[Encoder, str]:
    """An encoder that gives the network's own features of these pictures, and why it is another than was asked for
    ("": it is not). OpenVINO falls back to torch, and torch to the network as it is, without a traced graph. On a GPU
    nothing is tried.

    Args:
        pixels: see `two_pictures`; without any, nothing is compared.

    Raises:
        VbprError: two different pictures have the same features, or such as float16 does not hold.
    """
    if device.type == "cuda":
        return Encoder(model, str(device), precision, engine, batch, images), ""
    expected = eager(model, pixels) if len(pixels) else np.empty((0, model.dim), np.float32)
    differ = len(pixels) == 2 and difference(*pixels) > 1
    # The published recipe of the autoencoder gives nearly one code for all pictures, and is run all the same.
    if differ and model.name != "cae" and (fault := fault_of(expected, FLOAT16)):
        reason = "untrained: give it weights" if model.weights == "random" else "are these the right weights?"
        raise VbprError(f"the features of {model.name} {fault} ({reason}); choose another --backbone or --weights")
    faults = []
    for name in ("openvino", "torch") if engine == "openvino" else ("torch",):
        encoder, fault = tried(model, device, precision, name, batch, images, pixels, expected)
        if encoder is not None and not fault:
            break
        faults.append(f"{name} {fault}")
    else:
        encoder = Encoder(model, str(device), precision, "torch", 1, images)  # at once
        encoder.runner = TorchRunner(model, precision == "fast", batch, trace=False)
    why = ", ".join(faults)
    if why:
        console.print(f"note: {why}; torch runs {model.name} in its place")
    return encoder, why


def tried(
    model: Backbone,
    device: torch.device,
    precision: str,
    engine: str,
    batch: int | None,
    images: int,
    pixels: Pixels,
    expected: Features,
) -> tuple[Encoder | None, str]:
    """The encoder of an engine, and what is wrong with it, in words."""
    if engine == "openvino" and not compiles(model, precision, batch):
        return None, "ends the process when it compiles this network"
    try:
        encoder = Encoder(model, str(device), precision, engine, batch, images)
        found = encoder(pixels)
    except VbprError:
        raise
    except Exception as error:  # whatever a converter or compiler makes of a network that it does not know
        return None, f"fails ({first_line(error)[:120]})"
    apart = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    if not (apart <= NEAR[precision]).all():
        return None, f"differs from float32 by {apart.max():.1g}"
    return encoder, ""


__all__ = ["tried_encoder", "two_pictures"]
