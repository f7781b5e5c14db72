"""How long a step takes on this machine: a few steps on made inputs of the same widths."""

import math
import time

import numpy as np
import torch

from ....compute.device import dtype_for
from ....data.parts import csr
from ....data.split import Split
from ...config import TrainConfig
from .adam import Adam
from .batches import sample_batches
from .gradients import gradients
from .inputs import Inputs
from .parameters import shapes_of
from .sampling import TripletSampler

STEPS, ROWS = 4, 20_000  # steps that are timed, after as many that are not; users and items at most


def seconds_a_step(split: Split, d: int, c: TrainConfig, device: torch.device) -> float:
    """Seconds of a step, sampling included: the median of STEPS.

    Args:
        d: columns of the prepared features; 0: none. c: with the batches that it will have, see `bpr.grown`.
    """
    users, items = (min(ROWS, n) for n in split.train.shape)
    rng, degree = np.random.default_rng(0), max(1, round(split.train.nnz / split.train.shape[0]))
    who = np.repeat(np.arange(users), min(degree, items - 1))
    train = csr(who, rng.integers(items, size=len(who)), (users, items))
    generator = torch.Generator(device).manual_seed(0)
    kind = "uniform" if c.negatives == "in-batch" else c.negatives
    sampler = TripletSampler(train, device, generator, negatives=kind, popularity_share=c.popularity_share)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device) / math.sqrt(shape[-1])

    x = normal(items, d).to(dtype_for(c.precision, device)) if d else None
    h = normal(users, d).to(x.dtype) if x is not None and c.history else None
    inputs = Inputs(x, h, sampler.degree.float(), torch.ones(items, device=device))
    params = {name: normal(*shape) for name, shape in shapes_of(c, d, users, items, items).items()}
    adam, size = Adam(params), min(c.batch, split.train.nnz)
    order = sampler.epoch(0, c.per_user)
    order = order.repeat(-(-2 * STEPS * size // len(order)))[: 2 * STEPS * size].view(2 * STEPS, size)
    taken = []
    for n in range(2 * STEPS):
        begin = time.perf_counter()
        (batch,) = sample_batches(sampler, order[n : n + 1], c, "y" in params)
        adam.step(params, gradients(params, inputs, batch, c)[1], c.lr)
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken[STEPS:]))


__all__ = ["seconds_a_step"]
