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
from ...model import Diverged, factors_of
from ..bpr.sampling import TripletSampler
from ..bpr.validation import CurveSample
from ..entry import Model
from .network import build, penalised, penalty
from .run import Run
from .steps import Pictures, plain_step, shared_step


class DVBPR:
    """Trains a network and user factors together, from images, whose decoded pixels lie beside the checkpoint."""

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None) -> None:
        self.config, self.checkpoint = config, checkpoint

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`; features are not used.

        Raises:
            VbprError: there are no images.
            Diverged: the loss or a vector is not finite.
            Stopped: Ctrl-C or SIGTERM; the checkpoint lets the next run resume.
        """
        c = self.config
        if images is None:
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
        pixels = Pictures(self._cache(how), images, split, how, device)
        run = Run(c, network, theta, max(1, len(sampler) // c.batch), generator, self.checkpoint)

        def best() -> Factors:
            about = {
                "curve": run.keeper.curve, "scores_unseen": True, "encoded": run.encoded, "network": c.network,
                "preprocessing": str(how), "parameters": sum(p.numel() for p in network.parameters()),
                "without_pictures": int((~pixels.pictured).sum()),
            }  # fmt: skip
            users, items = (run.keeper.best[name].cpu().numpy() for name in ("users", "items"))
            return factors_of(split, users, items, about=about)

        try:
            self.train(run, sampler, pixels, split)
        except Diverged as error:
            if run.keeper.best:
                error.factors = best()
            raise
        return best()

    def train(self, run: Run, sampler: TripletSampler, pixels: Pictures, split: Split) -> None:
        """Go on from the checkpoint, if there is one, to the last step or the end of patience."""
        c, theta, generator, total = self.config, run.theta, run.keeper.generator, run.steps * self.config.epochs
        validation, weights = CurveSample(split), penalised(run.network)
        step = shared_step(split, sampler) if c.images_per_step else plain_step
        bf16 = dtype_for(c.precision, theta.device) == torch.bfloat16
        exactly = full_float32(measured=not c.images_per_step)  # where steps differ in shape, measuring never ends
        with Progress(f"train {c.model}", total, "steps") as bar, stop_signals() as stopping, exactly:
            run.resume(bar)
            while run.step < total and not run.out_of_patience():
                if c.schedule == "linear":
                    run.adam.param_groups[0]["lr"] = c.lr * (1 - run.step / total)
                with torch.autocast(theta.device.type, torch.bfloat16, enabled=bf16):
                    users, ranking, encoded = step(sampler, run.network, theta, pixels, generator, c)
                run.adam.zero_grad(set_to_none=True)
                loss = ranking + penalty(theta[users], weights, c)
                loss.backward()  # type: ignore[no-untyped-call]
                run.adam.step()
                run.step, run.encoded = run.step + 1, run.encoded + encoded
                run.loss += ranking.detach() / len(users)
                bar.advance(1)
                if run.step % run.steps == 0:
                    run.end_epoch(validation, pixels, bar, bf16)
                if stopping() and run.step < total:
                    raise Stopped(f"stopped after step {run.step:,} of {total:,}{run.save()}")
                if run.keeper.due():
                    run.save()

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
