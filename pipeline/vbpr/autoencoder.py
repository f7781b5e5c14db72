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

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from .base.errors import VbprError
from .base.files import replacing
from .base.locks import locked
from .base.progress import Progress
from .base.stopping import Stopped, stop_signals
from .base.targets import check_target
from .compute.checkpoint import checkpoint_of, read_checkpoint, write_checkpoint
from .compute.device import multiplies_bfloat16, seeded
from .data.images.source import ImageSource
from .networks.prepare import Preprocessing
from .pixels import PixelCache

HALF = (0.5, 0.5, 0.5)
LARGEST = 1024  # pixels of a side
HELD_OUT = 0.05  # share of the images that only measure the reconstruction


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


def train_autoencoder(
    source: ImageSource,
    out: Path | str,
    *,
    recipe: str = "improved",
    epochs: int | None = None,
    image_size: int | None = None,
    data: str | None = None,
    device: torch.device | None = None,
    seed: int = 0,
) -> Path:
    """Train on the images of a source; write the weights, and a picture of reconstructions beside them.

    Weights that this very recipe, size and number of epochs have already made of this data set are kept, also when
    images were added. A stopped or killed run resumes from its checkpoint.

    Args:
        data: the data set's name, by which it is known again [default: the source's].

    Raises:
        VbprError: an unknown recipe or size, images that cannot be used, or a loss that is not finite.
        Stopped: Ctrl-C or SIGTERM.
    """
    path, made = Path(out), identity_for(recipe, epochs, image_size, seed) | {"data": data or source.name}
    check_target(path)
    check_target(checkpoint_of(path))
    if path.exists() and made.items() <= told_by(path).items():
        return path
    with locked(path):
        cache_path = path.with_name(f".{path.stem}.{made['size']}.pixels")
        cache = PixelCache.build(cache_path, source, preprocessing_of(recipe, made["size"]))
        trainer = Trainer(made, cache, device or torch.device("cpu"), path)
        trainer.run()
        trainer.save_weights()
        trainer.draw(path.with_suffix(".png"))
        trainer.checkpoint.unlink(missing_ok=True)
        for leftover in (cache_path, cache_path.with_name(cache_path.name + ".json")):
            leftover.unlink(missing_ok=True)
    return path


def identity_for(
    recipe: str = "improved", epochs: int | None = None, image_size: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """What decides the weights, but for the images; None stands for the recipe's own.

    Raises:
        VbprError: an unknown recipe, or a size that it does not take.
    """
    r = recipe_of(recipe)
    size = image_size or r.size
    if recipe == "report" and size != r.size:
        raise VbprError(f"--recipe report sees {r.size} px as published; leave --image-size out, or use improved")
    return {"recipe": recipe, "size": size, "epochs": epochs or r.epochs, "seed": seed}


def check_training(path: Path, used_by: Path, **how: Any) -> None:
    """
    Args:
        how: see `identity_for`.

    Raises:
        VbprError: the autoencoder that a feature file was made with was trained otherwise.
    """
    there, wanted = identity_of(path), identity_for(**how)
    if there != wanted:
        old, new = (", ".join(f"{name} {value}" for name, value in told.items()) for told in (there, wanted))
        raise VbprError(
            f"{used_by} was made with {path} ({old or 'no autoencoder of ours'}), not with one of {new}; give the same "
            "--recipe, --epochs (compare: --cae-epochs) and --image-size, or another --out"
        )


def told_by(path: Path) -> dict[str, Any]:
    """What a weights file of ours says of its making; empty for another file."""
    try:
        with safetensors.safe_open(path, "pt") as handle:
            told = json.loads((handle.metadata() or {}).get("cae", "{}"))
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def identity_of(path: Path) -> dict[str, Any]:
    """What decides the weights in a file of ours, but for the images; empty for another file."""
    told = told_by(path)
    sound = all(type(told.get(key)) is kind for key, kind in IDENTITY.items())
    return {key: told[key] for key in IDENTITY} if sound else {}


IDENTITY = {"recipe": str, "size": int, "epochs": int, "seed": int}


class Trainer:
    """One training run: the networks, Adam, the order of images, and the checkpoint."""

    def __init__(self, identity: dict[str, Any], cache: PixelCache, device: torch.device, path: Path) -> None:
        """
        Args:
            identity: see `identity_for`; and the name of the data set.
        """
        self.identity, self.cache, self.device, self.path = identity, cache, device, path
        self.r = recipe = RECIPES[identity["recipe"]]
        self.size, self.epochs, seed = identity["size"], identity["epochs"], identity["seed"]
        self.checkpoint = checkpoint_of(path)
        with seeded(seed):
            encoder, decoder = recipe.build(self.size)
        self.networks = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        self.networks.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.adam = torch.optim.Adam(self.networks.parameters(), recipe.lr)
        self.generator = torch.Generator().manual_seed(seed)
        usable = np.flatnonzero(cache.usable)
        if len(usable) < 10:
            raise VbprError(f"{len(usable)} usable images are too few to train an autoencoder; it needs 10")
        order = np.random.default_rng(seed).permutation(usable)
        held = max(1, min(1000, int(HELD_OUT * len(usable))))
        self.held, self.shown = np.sort(order[:held]), np.sort(order[held:])
        if recipe.first:  # the published generator never got beyond its first batch; an epoch is as long all the same
            self.shown = np.resize(self.shown[: recipe.first], len(self.shown))
        # a small catalogue still makes sixteen steps an epoch, which normalisation needs to know its statistics
        self.batch = recipe.batch if recipe.first else min(recipe.batch, max(8, len(self.shown) // 16))
        self.steps = max(1, len(self.shown) // self.batch)
        self.epoch, self.curve = 0, []  # type: ignore[var-annotated]
        self.bf16 = multiplies_bfloat16(device)

    def pixels(self, rows: Any) -> Tensor:
        """(n, 3, size, size) in [-1, 1]."""
        x = torch.from_numpy(np.asarray(self.cache.rows[rows])).to(self.device)
        return (x.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    def reconstruct(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out: Tensor = self.networks["decoder"](self.r.encode(self.networks["encoder"], x))
        return out.float()

    def run(self) -> None:
        """Train to the end, from the checkpoint if there is one of this run."""
        self.resume()
        total = self.steps * self.batch
        with Progress("train cae", total * self.epochs, "images") as bar, stop_signals() as stopping:
            bar.advance(self.epoch * total)
            while self.epoch < self.epochs:
                order = self.shown[torch.randperm(len(self.shown), generator=self.generator).numpy()]
                total_loss = torch.zeros((), device=self.device)  # read once an epoch: a GPU is waited for then
                for s in range(self.steps):
                    if self.r.decay:
                        done = (self.epoch + s / self.steps) / self.epochs
                        self.adam.param_groups[0]["lr"] = self.r.lr * max(0.02, 1 - done)
                    total_loss += self.learn(order[s * self.batch : (s + 1) * self.batch])
                    bar.advance(self.batch)
                    if stopping():  # an epoch is minutes at most: what it has done so far is done again
                        raise Stopped(f"stopped in epoch {self.epoch + 1}{self.words()}; run the same command again")
                mean = float(total_loss) / self.steps
                if not np.isfinite(mean):
                    raise VbprError(f"the reconstruction loss of epoch {self.epoch + 1} is not finite{self.words()}")
                self.epoch += 1
                held = self.held_loss()
                self.curve.append({"epoch": self.epoch, "loss": mean, "held_out": held})
                bar.advance(0, f"loss {mean:.4f}, held out {held:.4f}")
                if self.epoch < self.epochs:
                    self.save_checkpoint()

    def learn(self, rows: Any) -> Tensor:
        x = self.pixels(rows)
        if self.r.mirrored:
            flip = torch.rand(len(x), generator=self.generator) < 0.5
            x = torch.where(flip.to(x.device)[:, None, None, None], x.flip(3), x)
        seen = x
        if self.r.hidden:
            keep = torch.rand(len(x), 1, self.size // 8, self.size // 8, generator=self.generator) >= self.r.hidden
            seen = x * F.interpolate(keep.float().to(x.device), scale_factor=8)
        loss = self.r.loss(self.reconstruct(seen), x)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        return loss.detach()

    @torch.inference_mode()
    def held_loss(self) -> float:
        """The loss on images that are never trained on, whole."""
        self.networks.eval()
        total = 0.0
        for a in range(0, len(self.held), 128):
            x = self.pixels(self.held[a : a + 128])
            total += float(self.r.loss(self.reconstruct(x), x)) * len(x)
        self.networks.train()
        return total / len(self.held)

    def words(self) -> str:
        return f"; {self.checkpoint} holds {self.epoch} finished epochs" if self.checkpoint.exists() else ""

    def save_checkpoint(self) -> None:
        tensors = {f"n/{key}": value for key, value in self.networks.state_dict().items()}
        for n, state in self.adam.state_dict()["state"].items():
            tensors |= {f"a/{n}/{key}": value for key, value in state.items()}
        tensors["generator"] = self.generator.get_state()
        write_checkpoint(self.checkpoint, tensors, self.run_identity, epoch=self.epoch, curve=self.curve)

    def images(self) -> list[int]:
        return [len(self.shown), len(self.held), int(self.shown.sum() % 2**31)]

    @property
    def run_identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with; the weights' own identity leaves the images out."""
        return self.identity | {"images": self.images()}

    def resume(self) -> None:
        """Go on from the checkpoint of this very run; another one is ignored and overwritten."""
        found = read_checkpoint(self.checkpoint, self.run_identity)
        if found is None:
            return
        tensors, told = found
        self.networks.load_state_dict({key[2:]: value for key, value in tensors.items() if key.startswith("n/")})
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("a/"):
                _, n, name = key.split("/")
                state.setdefault(int(n), {})[name] = value
        self.adam.load_state_dict(self.adam.state_dict() | {"state": state})
        self.generator.set_state(tensors["generator"])
        self.epoch, self.curve = told["epoch"], told["curve"]

    def save_weights(self) -> None:
        """The encoder's weights, with what made them: a file for `--weights`."""
        told = {**self.identity, "curve": self.curve, "images": self.images()}
        tensors = {name: value.cpu().contiguous() for name, value in self.networks["encoder"].state_dict().items()}
        with replacing(self.path) as temporary:
            safetensors.torch.save_file(tensors, temporary, {"cae": json.dumps(told)})

    @torch.inference_mode()
    def draw(self, path: Path, count: int = 10) -> None:
        """Held-out originals above, their reconstructions below."""
        self.networks.eval()
        x = self.pixels(self.held[:count])
        y = self.reconstruct(x)
        rows = [torch.cat(list(part.clamp(-1, 1)), 2) for part in (x, y)]
        canvas = ((torch.cat(rows, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        with replacing(path) as temporary:
            Image.fromarray(canvas).save(temporary, "PNG")


def load_encoder(path: Path | None) -> tuple[nn.Module, str, int]:
    """(encoder to load weights into, recipe, image size) that a weights file was trained as; improved without one.

    Raises:
        VbprError: the file is not an autoencoder's.
    """
    if path is None:
        return ImprovedEncoder(), "improved", RECIPES["improved"].size
    if not path.is_file():
        raise VbprError(f"{path} does not exist; leave --weights out to train an autoencoder on your images")
    told = identity_of(path)
    if not told:
        raise VbprError(f"{path} holds no autoencoder of vbpr's; leave --weights out to train one on your images")
    return recipe_of(told["recipe"]).build(told["size"])[0], told["recipe"], told["size"]


__all__ = [
    "RECIPES",
    "ImprovedEncoder",
    "ReportDecoder",
    "ReportEncoder",
    "check_training",
    "identity_for",
    "load_encoder",
    "told_by",
    "train_autoencoder",
]
