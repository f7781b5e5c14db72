"""DVBPR (Kang et al. 2017), end to end: the image network itself learns from what people took.

    x_ui = theta_u . Phi(X_i)
    loss = -sum ln sigma(theta_u . (Phi_i - Phi_j)) + l_w/2 sum |W|^2 + l_u/2 sum |theta_u|^2

sums over the batch; W the weights of every layer without biases. Plain: a triplet costs two encodings. Efficient
(`images_per_step` above 0): a step encodes a set of distinct images once, and every user who took one of them, that
image, and every other image of the set that the user did not take form a triplet; half of the set is drawn as people
take items, half uniformly, so negatives are partly popular ones. Trained vectors are kept as factors.
"""

import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ....base.errors import VbprError
from ....base.progress import Progress
from ....base.stopping import Stopped, stop_signals
from ....compute.device import dtype_for, full_float32, pick_device
from ....data.images.source import ImageSource
from ....data.split import Split
from ....networks.prepare import Preprocessing
from ....stores.model.factors import Factors
from ...config import TrainConfig, fields_of
from ...item_features import ItemFeatures
from ...model import factors_of
from ..bpr.bpr import Diverged
from ..bpr.progress import CurveSample
from ..bpr.sampling import TripletSampler
from ..entry import Model
from .network import build, penalised, penalty
from .run import Run
from .steps import Pictures, plain_step, shared_step


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
        device = pick_device(c.device)
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
        dtype = dtype_for(c.precision, device)

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


# What DVBPR and the report published. Their penalties are for a loss summed over the batch of 128; here it is a mean.
PUBLISHED: dict[str, Any] = {
    "dim": 50,
    "epochs": 20,
    "batch": 128,
    "lr": 1e-4,
    "schedule": "constant",
    "reg_users": 1.0,
    "reg_head": 1e-3 / 128,
    "positives": "users",
    "negatives": "uniform",
    "patience": 0,
}
EFFICIENT: dict[str, Any] = {
    "images_per_step": 256,
    "batch": 1024,
    "lr": 3e-4,
    "schedule": "linear",
    "positives": "interactions",
}
# Its item is the network's output and nothing else, its triplets those of the batch.
MODEL = Model(DVBPR, PUBLISHED, fields_of("steps", "head", "pictures"), presets={"efficient": EFFICIENT}, images=True)

__all__ = ["DVBPR", "MODEL", "PUBLISHED"]
