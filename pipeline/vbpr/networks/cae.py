"""The convolutional autoencoder (CAE) that learns features from a catalogue's own images, without labels.

    weights = train_autoencoder(data.images(), "artifacts/cae.safetensors")     # -> BACKBONES["cae"] loads them

Two recipes. `report` is the published one, faults included: it saw the same 32 images at every epoch, squeezed them
through a softmax of 147 numbers, and compared a sigmoid's output with targets in [-1, 1]. `improved` shuffles the whole
catalogue, mirrors it, has a linear bottleneck and a tanh output, hides blocks of the picture that it must restore, and
weights the garment above the white background; its features are the code and, from each stage of the encoder, every
channel's mean and deviation, which tell texture and colour better than the code does, and one coarse map.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import VbprError
from ..base.files import digest
from ..compute.device import seeded
from .backbone import Backbone, finish
from .prepare import Preprocessing
from .weights import load_strictly, read_weights

HALF = (0.5, 0.5, 0.5)
LARGEST = 1024  # pixels of a side


class ReportEncoder(nn.Sequential):
    """(n, 3, 224, 224) -> (n, 147), a softmax: 305,107 parameters."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for c, w in zip((3, 16, 32, 32, 64), (16, 32, 32, 64, 64), strict=True):
            layers += [nn.Conv2d(c, w, 3), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(1600, 147), nn.Softmax(1))


class ReportDecoder(nn.Sequential):
    """(n, 147) -> (n, 3, 224, 224) in [0, 1]: 72,259 parameters with the 384 statistics that Keras counts."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Unflatten(1, (3, 7, 7))]
        for c, w in zip((3, 64, 64, 32), (64, 64, 32, 32), strict=True):
            layers += [nn.ConvTranspose2d(c, w, 3, 2, 1, 1), nn.ReLU(), nn.BatchNorm2d(w)]
        layers += [nn.ConvTranspose2d(32, 16, 3, 2, 1, 1), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(16, 3, 3, padding=1), nn.Sigmoid())


class ImprovedEncoder(nn.Module):
    """(n, 3, size, size) -> (n, D): five stages of stride 2; the features are the code, each stage's statistics,
    and the fourth stage's map in quarters, which tells above from below."""

    widths = (24, 48, 96, 160, 256)

    def __init__(self, size: int = 64, code: int = 256) -> None:
        super().__init__()
        if size % 32 or not 0 < size <= LARGEST:
            raise VbprError(f"--image-size {size}: the autoencoder needs a multiple of 32, up to {LARGEST}")
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, w, 3, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU())
            for c, w in zip((3, *self.widths), self.widths, strict=False)
        )
        # not `code`: TorchScript, and OpenVINO through it, takes that name for a module's source text
        self.bottleneck = nn.Linear(self.widths[-1] * (size // 32) ** 2, code)

    def encode(self, x: Tensor) -> Tensor:
        """(n, code): what the decoder sees."""
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.bottleneck(x.flatten(1))
        return out

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for stage in self.stages:
            x = stage(x)
            mean = x.mean((2, 3))
            # not torch.std: its gradient and its result at one pixel a channel are not finite
            parts += [mean, ((x - mean[:, :, None, None]).square().mean((2, 3)) + 1e-8).sqrt()]
            if stage is self.stages[3]:
                parts.append(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return torch.cat([self.bottleneck(x.flatten(1)), *parts], 1)


class ImprovedDecoder(nn.Module):
    """(n, code) -> (n, 3, size, size) in [-1, 1]: nearest-neighbour upsampling and convolutions."""

    widths = (96, 48, 24, 12)

    def __init__(self, size: int = 64, code: int = 256) -> None:
        super().__init__()
        self.side, first = size // 32, ImprovedEncoder.widths[-1]
        self.open = nn.Linear(code, first * self.side**2)
        layers: list[nn.Module] = []
        for c, w in zip((first, *self.widths), self.widths, strict=False):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(c, w, 3, 1, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Upsample(scale_factor=2), nn.Conv2d(self.widths[-1], 3, 3, 1, 1))

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.net(self.open(z).view(len(z), -1, self.side, self.side)))


def improved_loss(output: Tensor, target: Tensor) -> Tensor:
    """MSE + L1, where anything but white (or nearly) counts three times."""
    weight = 1 + 2 * (target.amin(1, keepdim=True) < 0.8).float()
    d = output - target
    return ((d.square() + d.abs()) * weight).sum() / (3 * weight.sum())


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an autoencoder is built and trained.

    Attributes:
        build: image size -> (encoder, decoder). encode: what of the encoder the decoder is given.
        size, epochs, batch, lr: defaults; `lr` is Adam's, linear to 0 where `decay`.
        first: images that are ever shown (0: all). hidden: share of 8 x 8 blocks blanked. mirrored: at random.
        interpolation: of the resize.
    """

    build: Callable[[int], tuple[nn.Module, nn.Module]]
    encode: Callable[[Any, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    size: int
    epochs: int
    batch: int
    lr: float
    decay: bool = False
    first: int = 0
    hidden: float = 0.0
    mirrored: bool = False
    interpolation: str = "bilinear"


RECIPES: dict[str, Recipe] = {
    "improved": Recipe(
        lambda size: (ImprovedEncoder(size), ImprovedDecoder(size)),
        ImprovedEncoder.encode,
        improved_loss,
        size=64,
        epochs=8,
        batch=64,
        lr=2e-3,
        decay=True,
        hidden=0.25,
        mirrored=True,
    ),
    "report": Recipe(
        lambda size: (ReportEncoder(), ReportDecoder()),
        lambda encoder, x: encoder(x),
        F.mse_loss,
        size=224,
        epochs=3,
        batch=32,
        lr=1e-3,
        first=32,
        interpolation="nearest",
    ),
}


def preprocessing_of(recipe: str, size: int) -> Preprocessing:
    return Preprocessing(size, 1.0, RECIPES[recipe].interpolation, HALF, HALF, squash=True)


def recipe_of(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        VbprError: unknown.
    """
    if name not in RECIPES:
        raise VbprError(f"--recipe {name} is not known; choose from {', '.join(RECIPES)}")
    return RECIPES[name]


def metadata_of(path: Path) -> dict[str, Any]:
    """How a weights file of ours was made, as its metadata say; empty for another file."""
    try:
        with safetensors.safe_open(path, "pt") as handle:
            metadata = json.loads((handle.metadata() or {}).get("cae", "{}"))
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def identity_of(path: Path) -> dict[str, Any]:
    """What decides the weights in a file of ours, but for the images; empty for another file."""
    metadata = metadata_of(path)
    sound = all(type(metadata.get(key)) is kind for key, kind in IDENTITY.items())
    return {key: metadata[key] for key in IDENTITY} if sound else {}


IDENTITY = {"recipe": str, "size": int, "epochs": int, "seed": int}


def load_encoder(path: Path | None) -> tuple[nn.Module, str, int]:
    """(encoder to load weights into, recipe, image size) that a weights file was trained as; improved without one.

    Raises:
        VbprError: the file is not an autoencoder's.
    """
    if path is None:
        return ImprovedEncoder(), "improved", RECIPES["improved"].size
    if not path.is_file():
        raise VbprError(f"{path} does not exist; leave --weights out to train an autoencoder on your images")
    identity = identity_of(path)
    if not identity:
        raise VbprError(f"{path} holds no autoencoder of vbpr's; leave --weights out to train one on your images")
    return recipe_of(identity["recipe"]).build(identity["size"])[0], identity["recipe"], identity["size"]


def cae(name: str, weights: Path | None, random_weights: bool) -> Backbone:
    """The convolutional autoencoder; its weights come from the catalogue's own images (`train_autoencoder`)."""
    if weights is None and not random_weights:
        raise VbprError("the autoencoder has no weights of its own: vbpr extract --backbone cae trains them")
    with seeded(0):
        module, recipe, size = load_encoder(weights)
    if weights is not None:
        load_strictly(module, read_weights(weights), weights)
    source = "random" if weights is None else f"{recipe} autoencoder, {weights.name}, {digest(weights)}"
    return finish(name, module, source, preprocessing_of(recipe, size))


__all__ = [
    "RECIPES",
    "ImprovedEncoder",
    "ReportDecoder",
    "ReportEncoder",
    "cae",
    "identity_of",
    "load_encoder",
    "metadata_of",
    "preprocessing_of",
    "recipe_of",
]
