"""Training an autoencoder on a catalogue's own images, with a checkpoint that survives a kill."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..base.errors import VbprError
from ..base.files import replacing
from ..base.locks import locked
from ..base.progress import Progress
from ..base.stopping import Stopped, stop_signals
from ..base.targets import check_target
from ..compute.checkpoint import checkpoint_of
from ..compute.device import multiplies_bfloat16, seeded
from ..compute.keeper import Keeper, adam_state, restore_adam
from ..data.images.source import ImageSource
from .cae import RECIPES, identity_of, metadata_of, preprocessing_of, recipe_of
from .pixel_cache import PixelCache

HELD_OUT = 0.05  # share of the images that only measure the reconstruction


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
    if path.exists() and made.items() <= metadata_of(path).items():
        return path
    with locked(path):
        cache_path = path.with_name(f".{path.stem}.{made['size']}.pixels")
        cache = PixelCache.build(cache_path, source, preprocessing_of(recipe, made["size"]))
        trainer = Trainer(made, cache, device or torch.device("cpu"), path)
        trainer.run()
        trainer.save_weights()
        trainer.draw(path.with_suffix(".png"))
        checkpoint_of(path).unlink(missing_ok=True)
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
    recorded, wanted = identity_of(path), identity_for(**how)
    if recorded != wanted:
        old, new = (", ".join(f"{name} {value}" for name, value in each.items()) for each in (recorded, wanted))
        raise VbprError(
            f"{used_by} was made with {path} ({old or 'no autoencoder of ours'}), not with one of {new}; give the same "
            "--recipe, --epochs (compare: --cae-epochs) and --image-size, or another --out"
        )


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
        self.epoch = 0
        # images are no part of the weights' own identity
        self.keeper = Keeper(checkpoint_of(path), identity | {"images": self.images()}, self.generator)
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
                self.keeper.record({"epoch": self.epoch, "loss": mean, "held_out": held}, {})
                bar.advance(0, f"loss {mean:.4f}, held out {held:.4f}")
                if self.epoch < self.epochs:
                    self.save()

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
        """What a message says of the checkpoint."""
        checkpoint = checkpoint_of(self.path)
        return f"; {checkpoint} holds {self.epoch} finished epochs" if checkpoint.exists() else ""

    def images(self) -> list[int]:
        """Which images are trained on and held out, in three numbers."""
        return [len(self.shown), len(self.held), int(self.shown.sum() % 2**31)]

    def save(self) -> None:
        self.keeper.save({"n": self.networks.state_dict(), "a": adam_state(self.adam)}, epoch=self.epoch)

    def resume(self) -> None:
        """Go on from the checkpoint of this very run, if there is one."""
        saved = self.keeper.resume()
        if saved is None:
            return
        groups, progress = saved
        self.networks.load_state_dict(groups["n"])
        restore_adam(self.adam, groups.get("a", {}))
        self.epoch = progress["epoch"]

    def save_weights(self) -> None:
        """The encoder's weights, with what made them: a file for `--weights`."""
        made = {**self.identity, "curve": self.keeper.curve, "images": self.images()}
        tensors = {name: value.cpu().contiguous() for name, value in self.networks["encoder"].state_dict().items()}
        with replacing(self.path) as temporary:
            safetensors.torch.save_file(tensors, temporary, {"cae": json.dumps(made)})

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


__all__ = ["check_training", "identity_for", "train_autoencoder"]
