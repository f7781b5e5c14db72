"""DVBPR (Kang et al. 2017), end to end: the image network itself learns from what people took.

    x_ui = theta_u . Phi(X_i)
    loss = -sum ln sigma(theta_u . (Phi_i - Phi_j)) + l_w/2 sum |W|^2 + l_u/2 sum |theta_u|^2

sums over the batch; W the weights of every layer without biases. Plain: a triplet costs two encodings. Efficient
(`images_per_step` above 0): a step encodes a set of distinct images once, and every user who took one of them, that
image, and every other image of the set that the user did not take form a triplet; half of the set is drawn as people
take items, half uniformly, so negatives are partly popular ones. Trained vectors are kept as factors.
"""

import math
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.arrays import places
from ..base.errors import VbprError
from ..base.progress import Progress
from ..base.stopping import Stopped, stop_signals
from ..compute.checkpoint import read_checkpoint, write_checkpoint
from ..compute.device import full_float32
from ..data.images.source import ImageSource
from ..data.split import Split
from ..networks.pixel_cache import GREY, PixelCache
from ..networks.prepare import Preprocessing
from ..recommender import ItemFeatures, factors_of
from ..sampling import TripletSampler
from ..stores.model.factors import Factors
from .bpr import CurveSample, Diverged
from .config import TrainConfig

if TYPE_CHECKING:
    from ..networks.backbone import Backbone

HALF = (0.5, 0.5, 0.5)
PUBLISHED_NETWORK = "cnnf"
WIDE = 4096  # of the two dense layers
LARGEST = 1024  # pixels of a side, for which the first dense layer has a billion weights


class CNNF(nn.Module):
    """CNN-F (Chatfield et al. 2014) as DVBPR has it: "SAME" convolutions with bias, ReLU, dropout in the wide layers.

    (n, 3, size, size) in [-1, 1] -> (n, K), linear at the end. With 224 px the maps are 56, 28, 14, 7.
    """

    def __init__(self, k: int, size: int = 224) -> None:
        super().__init__()
        if size % 32 or size > LARGEST:
            raise VbprError(f"--image-size {size}: CNN-F needs a multiple of 32 up to {LARGEST} (224 as published)")
        self.conv1 = nn.Conv2d(3, 64, 11, 4)  # padded in `forward`: TensorFlow's SAME is one pixel more at the end
        self.conv2 = nn.Conv2d(64, 256, 5, padding=2)
        self.conv3, self.conv4, self.conv5 = (nn.Conv2d(256, 256, 3, padding=1) for _ in range(3))
        self.fc1 = nn.Linear(256 * (size // 32) ** 2, WIDE)
        self.fc2 = nn.Linear(WIDE, WIDE)
        self.fc3 = nn.Linear(WIDE, k)

    def initialise(self, generator: torch.Generator) -> None:
        """Xavier-uniform weights, zero biases."""
        layers: Any = self.children()
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode; dropout draws from `generator`, and there is none without it."""
        x = F.max_pool2d(F.relu(self.conv1(F.pad(x, (3, 4, 3, 4)))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = F.max_pool2d(F.relu(self.conv5(x)), 2).flatten(1)
        x = dropped(F.relu(self.fc1(x)), generator)
        x = dropped(F.relu(self.fc2(x)), generator)
        out: Tensor = self.fc3(x)
        return out


class FineTuned(nn.Module):
    """Any backbone with a K-layer on its pooled features; its normalisation statistics stay as they came."""

    def __init__(self, backbone: "Backbone", k: int) -> None:
        super().__init__()
        self.backbone = backbone.module.requires_grad_(True).eval()
        self.head = nn.Linear(backbone.dim, k)

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.xavier_uniform_(self.head.weight, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        out: Tensor = self.head(dropped(self.backbone(x), generator))
        return out


def dropped(x: Tensor, generator: torch.Generator | None, rate: float = 0.5) -> Tensor:
    """Dropout whose randomness is passed."""
    if generator is None:
        return x
    keep = torch.rand(x.shape, generator=generator, device=x.device) >= rate
    return x * keep / (1 - rate)


def penalised(network: nn.Module) -> list[Tensor]:
    """The weights of every layer, without biases and normalisation."""
    return [p for p in network.parameters() if p.ndim > 1]


def penalty(theta: Tensor, weights: list[Tensor], c: TrainConfig) -> Tensor:
    """What a batch adds to the sum of its ranking losses: theta (B, K) are its users, repeats counted.

    `reg_head` is in TrainConfig's convention, for a mean loss; the published 1e-3 for a sum over 128 is 1e-3 / 128.
    """
    users = c.reg_users / 2 * theta.square().sum()
    return users + len(theta) * c.reg_head / 2 * sum((w.square().sum() for w in weights), torch.zeros_like(users))


class DVBPR:
    """Trains a network and user factors together, from images.

    Attributes:
        images: where the pictures are; set before `fit`. Their decoded pixels lie beside the checkpoint.
    """

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None) -> None:
        self.config, self.checkpoint = config, checkpoint
        self.images: ImageSource | None = None

    def fit(self, split: Split, features: ItemFeatures | None) -> Factors:
        """See `Recommender.fit`; features are not used.

        Raises:
            VbprError: there are no images.
            Diverged: the loss or a vector is not finite.
            Stopped: Ctrl-C or SIGTERM; the checkpoint lets the next run resume.
        """
        c = self.config
        if self.images is None:
            raise VbprError("--model dvbpr learns from pictures; give --data a folder with images/")
        if not c.dim:
            raise VbprError("--dim is 0: --model dvbpr has nothing else; give it a size")
        device = c.torch_device()
        generator = torch.Generator(device).manual_seed(c.seed)
        network, how = build(c)
        network.initialise(torch.Generator().manual_seed(c.seed))
        network = network.to(device, memory_format=torch.channels_last)
        theta = nn.Parameter(torch.rand(split.train.shape[0], c.dim, generator=generator, device=device) / 100)
        sampler = TripletSampler(
            split.train, device, generator, positives=c.positives, negatives=c.negatives,
            popularity_share=c.popularity_share,
        )  # fmt: skip
        pixels = Pictures(self._cache(how), self.images, split, how, device)
        step = shared_step(split, sampler) if c.images_per_step else plain_step
        steps = max(1, len(sampler) // c.batch)
        run = Run(c, network, theta, generator, self.checkpoint)
        validation = CurveSample(split)
        weights = penalised(network)
        dtype = c.torch_dtype(device)

        def made() -> Factors:
            about = {
                "curve": run.curve, "scores_unseen": True, "encoded": run.encoded, "network": c.network,
                "preprocessing": str(how), "parameters": sum(p.numel() for p in network.parameters()),
                "without_pictures": int((~pixels.pictured).sum()),
            }  # fmt: skip
            theta_u, phi = (best.cpu().numpy() for best in run.best)
            return factors_of(split, theta_u, phi, about=about)

        exactly = full_float32(measured=not c.images_per_step)  # where steps differ in shape, measuring never ends
        with Progress(f"train {c.model}", steps * c.epochs, "steps") as bar, stop_signals() as stopping, exactly:
            run.resume(bar)
            while run.step < steps * c.epochs and not run.patience_lost(steps):
                if c.schedule == "linear":
                    run.adam.param_groups[0]["lr"] = c.lr * (1 - run.step / (steps * c.epochs))
                with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                    users, ranking, encoded = step(sampler, network, theta, pixels, generator, c)
                run.adam.zero_grad(set_to_none=True)
                total = ranking + penalty(theta[users], weights, c)
                total.backward()  # type: ignore[no-untyped-call]
                run.adam.step()
                run.step, run.encoded = run.step + 1, run.encoded + encoded
                run.loss += ranking.detach() / len(users)
                bar.advance(1)
                if run.step % steps == 0:
                    try:
                        run.evaluate(validation, pixels, steps, bar, dtype)
                    except Diverged as error:
                        error.factors = made() if run.curve else None
                        raise
                if stopping() and run.step < steps * c.epochs:
                    raise Stopped(f"stopped after step {run.step:,} of {steps * c.epochs:,}{run.save()}")
                if time.monotonic() - run.saved > c.checkpoint_minutes * 60:
                    run.save()
        return made()

    def _cache(self, how: Preprocessing) -> Path:
        """Where decoded pixels lie: beside the checkpoint, for the next run and seed; without one, gone with this."""
        if self.checkpoint is None:
            folder = Path(tempfile.mkdtemp(prefix="vbpr-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = self.checkpoint.parent
        return folder / f"dvbpr.{how.size}.{how.interpolation}.pixels"


def build(c: TrainConfig) -> tuple[Any, Preprocessing]:
    """The network of a configuration and how it wants its images."""
    if c.network == PUBLISHED_NETWORK:
        return CNNF(c.dim, c.image_size), Preprocessing(c.image_size, 1.0, "nearest", HALF, HALF, squash=True)
    from ..networks.registry import load_backbone

    random = c.network_weights == "random"
    backbone = load_backbone(c.network, None if random else c.network_weights or None, random)
    return FineTuned(backbone, c.dim), backbone.preprocessing


class Pictures:
    """The catalogue's pictures by item; an item without a usable one is a grey square."""

    def __init__(self, path: Path, source: ImageSource, split: Split, how: Preprocessing, device: torch.device) -> None:
        self.cache, self.device = PixelCache.build(path, source, how), device
        self.row = places(source.item_ids, split.item_ids)
        self.pictured = (self.row >= 0) & self.cache.usable[self.row]
        if not self.pictured.any():
            raise VbprError(f"{source.name} has a picture of none of the {len(split.item_ids):,} items; check --data")
        self.mean = torch.tensor(how.mean, device=device).view(1, 3, 1, 1) * 255
        self.scale = torch.tensor(how.std, device=device).view(1, 3, 1, 1) * 255

    def __len__(self) -> int:
        return len(self.row)

    def __call__(self, items: Tensor) -> Tensor:
        """(n,) items -> (n, 3, size, size) float32 on the device, scaled."""
        at = items.cpu().numpy()
        raw = self.cache.rows[self.row[at]]
        raw[~self.pictured[at]] = GREY
        x = torch.from_numpy(np.ascontiguousarray(raw)).to(self.device, non_blocking=True)
        return (x.permute(0, 3, 1, 2).float() - self.mean) / self.scale


def plain_step(
    sampler: TripletSampler, network: Any, theta: Tensor, pixels: Pictures, generator: torch.Generator, c: TrainConfig
) -> tuple[Tensor, Tensor, int]:
    """Users, the sum of -ln sigma and encodings of B triplets: two each, with dropout masks of their own."""
    u, i, j = sampler.draw(c.batch)
    phi = network(pixels(torch.cat([i, j])), generator).float()
    return u, F.softplus((theta[u] * (phi[c.batch :] - phi[: c.batch])).sum(1)).sum(), 2 * c.batch


def shared_step(split: Split, sampler: TripletSampler) -> Callable[..., tuple[Tensor, Tensor, int]]:
    """A step that encodes a set of distinct images once and forms all triplets among them."""
    takers = split.train.T.tocsr()

    def step(
        sampler: TripletSampler, network: Any, theta: Tensor, pixels: Pictures, generator: torch.Generator,
        c: TrainConfig,
    ) -> tuple[Tensor, Tensor, int]:  # fmt: skip
        half = max(1, c.images_per_step // 2)
        taken, other = sampler.positives(half)[1], sampler.below(sampler.items, max(1, c.images_per_step - half))
        items = torch.unique(torch.cat([taken, other]))
        part = takers[items.cpu().numpy()]
        at = torch.from_numpy(np.repeat(np.arange(len(items)), np.diff(part.indptr))).to(items.device)
        u = torch.from_numpy(part.indices).long().to(items.device)
        if len(u) > c.batch:
            chosen = torch.randperm(len(u), generator=generator, device=u.device)[: c.batch]
            u, at = u[chosen], at[chosen]
        phi = network(pixels(items), generator).float()
        scores = theta[u] @ phi.T
        allowed = sampler.allowed(u, items)
        loss = F.softplus(scores - scores.gather(1, at[:, None])) * allowed
        # a pair counts as one triplet of the plain loss does: the mean over its negatives
        return u, (loss.sum(1) / allowed.sum(1).clamp(min=1)).sum(), len(items)

    return step


class Run:
    """How far training has come, the best vectors so far, and the checkpoint that survives a kill."""

    def __init__(
        self, c: TrainConfig, network: Any, theta: nn.Parameter, generator: torch.Generator, path: Path | None
    ) -> None:
        self.c, self.network, self.theta, self.generator, self.path = c, network, theta, generator, path
        self.parameters = {**dict(network.named_parameters()), "theta_u": theta}
        self.adam = torch.optim.Adam(list(self.parameters.values()), c.lr)
        self.loss = torch.zeros((), device=theta.device)
        self.step = self.encoded = 0
        self.best_auc, self.best_step = -1.0, 0
        self.best = (theta.detach(), theta.detach())
        self.curve: list[dict[str, float]] = []
        self.saved = time.monotonic()

    @torch.no_grad()
    def evaluate(
        self, validation: CurveSample, pixels: Pictures, steps: int, bar: Progress, dtype: torch.dtype
    ) -> None:
        """At the end of an epoch: encode the catalogue, and keep its vectors if validation likes them best."""
        epoch, mean = self.step // steps, float(self.loss) / steps
        self.loss = torch.zeros_like(self.loss)
        if not math.isfinite(mean):
            raise Diverged(f"the loss of epoch {epoch} is not finite; lower --lr (now {self.c.lr:g})", None)
        if epoch % self.c.eval_every and epoch < self.c.epochs:
            return
        on, parts = self.theta.device, []
        with torch.autocast(on.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            for a in range(0, len(pixels), 256):
                parts.append(self.network(pixels(torch.arange(a, min(len(pixels), a + 256)))).float())
        items = torch.cat(parts)
        if not (items.isfinite().all() and self.theta.isfinite().all()):
            raise Diverged(f"training is not finite in epoch {epoch}; lower --lr (now {self.c.lr:g})", None)
        self.encoded += len(items)
        auc = validation.auc(self.theta.detach(), items, torch.zeros(len(items), device=on))
        self.curve.append(
            {"epoch": epoch, "loss": mean, "encoded": self.encoded} | ({} if auc is None else {"auc": auc})
        )
        if auc is None or auc > self.best_auc:
            self.best_auc, self.best_step = -1.0 if auc is None else auc, self.step
            self.best = (self.theta.detach().clone(), items)
        bar.advance(0, f"loss {mean:.4f}" + (f", validation AUC {auc:.4f}" if auc is not None else ""))

    def patience_lost(self, steps: int) -> bool:
        c = self.c
        return bool(c.patience) and self.step - self.best_step >= c.patience * c.eval_every * steps

    def save(self) -> str:
        """Write the checkpoint; returns the words that say so."""
        if self.path is None:
            return ""
        tensors = {f"p/{name}": p.detach() for name, p in self.parameters.items()}
        for name, p in self.parameters.items():
            tensors |= {
                f"{key}/{name}": self.adam.state[p][key] for key in ("exp_avg", "exp_avg_sq") if self.adam.state[p]
            }
        tensors |= {"best/users": self.best[0], "best/items": self.best[1], "generator": self.generator.get_state()}
        tensors["loss"] = self.loss
        told = {name: getattr(self, name) for name in ("step", "encoded", "best_auc", "best_step", "curve")}
        write_checkpoint(self.path, tensors, self.c.identity, **told)
        self.saved = time.monotonic()
        return f"; {self.path} holds the state: run the same command again to resume"

    def resume(self, bar: Progress) -> None:
        """Go on from the checkpoint, if there is one of this very run; another one is ignored and overwritten."""
        found = read_checkpoint(self.path, self.c.identity)
        if found is None:
            return
        tensors, told = found
        on = self.theta.device
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(tensors[f"p/{name}"])
                if f"exp_avg/{name}" in tensors:
                    moments = {key: tensors[f"{key}/{name}"].to(on) for key in ("exp_avg", "exp_avg_sq")}
                    self.adam.state[p] = {"step": torch.tensor(float(told["step"])), **moments}
        self.best = tensors["best/users"].to(on), tensors["best/items"].to(on)
        self.loss = tensors["loss"].to(on)
        self.generator.set_state(tensors["generator"])
        for name, value in told.items():
            setattr(self, name, value)
        bar.advance(self.step)


__all__ = ["CNNF", "DVBPR", "FineTuned", "build", "dropped", "penalised", "penalty"]
