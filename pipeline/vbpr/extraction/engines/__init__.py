"""Frozen backbones at work: `Encoder` is the one interface to the engines, of which each is a file here and a line in
`ENGINES`. Uses networks, compute and base; OpenVINO is imported only where it runs.

encode = Encoder(load_backbone("inception")); encode(pixels)    # (n, size, size, 3) uint8 -> (n, D) float32
"""

import importlib.util
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from ...base.errors import VbprError
from ...compute.device import pick_device
from ...data.images.source import Pixels
from ...networks.backbone import Backbone
from .cuda import CudaRunner
from .openvino import OpenvinoRunner
from .runner import Features, Runner
from .torch_cpu import TorchRunner

# What runs a backbone, by engine and kind of device: called with the backbone, whether in bfloat16, images a step
# (None: the engine's own choice), the device, and how many images are going to be encoded (0: unknown).
ENGINES: dict[tuple[str, str], Callable[[Backbone, bool, int | None, torch.device, int], Runner]] = {
    ("torch", "cpu"): TorchRunner,
    ("torch", "cuda"): CudaRunner,
    ("openvino", "cpu"): OpenvinoRunner,
}


class Encoder:
    """Runs a backbone over batches of pixels on a device.

    Attributes:
        engine: torch or openvino.
        batch: images a step; `start` takes at most as many, and fills up fewer: one shape, so one set of kernels,
            so the same features however a catalogue is cut up.
        depth: batches to keep under way for the device never to wait.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: str = "auto",
        precision: str = "exact",
        engine: str = "auto",
        batch: int | None = None,
        images: int | None = None,
    ) -> None:
        """
        Args:
            device: auto (CUDA where there is one), cpu, cuda or cuda:N.
            precision: exact (features within 1e-3 of eager float32) or fast (bfloat16).
            engine: auto (openvino on a CPU where it is installed, else torch), torch or openvino.
            images: how many are going to be encoded; on CUDA many pay for compiling the model.

        Raises:
            VbprError: a device or engine that is not there.
        """
        self.device = pick_device(device)
        self.engine = pick_engine(engine, self.device, batch)
        self.size, self.dim = backbone.preprocessing.size, backbone.dim
        start = ENGINES[self.engine, self.device.type]
        self.runner = start(backbone, precision == "fast", batch, self.device, images or 0)

    @property
    def batch(self) -> int:
        return self.runner.batch

    @property
    def depth(self) -> int:
        return self.runner.depth

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        """Set out to encode (n <= batch, size, size, 3) uint8; what it returns waits for the (n, D) float32."""
        return self.runner.start(pixels)

    def __call__(self, pixels: Pixels) -> Features:
        """(n, size, size, 3) uint8 -> (n, D) float32."""
        under_way: deque[Callable[[], Features]] = deque()
        done, position = [], 0
        while position < len(pixels):
            step = self.batch
            under_way.append(self.start(pixels[position : position + step]))
            position += step
            if len(under_way) > self.depth:
                done.append(under_way.popleft()())
        done += [wait() for wait in under_way]
        return np.concatenate(done) if done else np.empty((0, self.dim), np.float32)


def pick_engine(engine: str, device: torch.device, batch: int | None = None) -> str:
    """auto, torch or openvino as torch or openvino.

    Raises:
        VbprError: it is unknown, not installed, or not for this device.
    """
    installed = importlib.util.find_spec("openvino") is not None
    if engine not in ("auto", *(name for name, _ in ENGINES)):
        raise VbprError(f"--engine {engine} is not known; choose auto, torch or openvino")
    if engine == "openvino" and not installed:
        raise VbprError("--engine openvino is not installed: pip install openvino, or choose --engine torch")
    if engine == "openvino" and device.type != "cpu":
        raise VbprError("--engine openvino runs on the CPU; choose --device cpu or --engine torch")
    if engine == "auto":  # one photo is done before OpenVINO has compiled the model
        return "openvino" if installed and device.type == "cpu" and batch != 1 else "torch"
    return engine


__all__ = ["ENGINES", "Encoder", "pick_engine"]
