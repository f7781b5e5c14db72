"""Frozen backbones at work: one interface to torch and OpenVINO on the CPU, and to CUDA.

encode = Encoder(load_backbone("inception")); encode(pixels)    # (n, size, size, 3) uint8 -> (n, D) float32
"""

import contextlib
import copy
import dataclasses
import functools
import importlib.util
import os
import time
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from .base.errors import VbprError, first_line
from .compute.device import full_float32, pick_device
from .data.images.source import Pixels
from .executors.world import launched
from .graphs import compile_graph, tiles
from .networks.backbone import Backbone

Features = np.ndarray[Any, np.dtype[np.float32]]


class Scaled(nn.Module):
    """A backbone that takes raw pixels: (n, size, size, 3) uint8, scaled inside the graph; its weights in `dtype`."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, backbone: Backbone, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.module = copy.deepcopy(backbone.module).to(dtype)  # the backbone's own stays where and what it is
        mean, std = torch.tensor(backbone.preprocessing.mean) * 255, torch.tensor(backbone.preprocessing.std) * 255
        self.register_buffer("shift", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", std.view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = (pixels.permute(0, 3, 1, 2).float() - self.shift) / self.scale
        return self.module(scaled.to(self.dtype)).float()  # type: ignore[no-any-return]


class Whole(nn.Module):
    """A function as a module without parts, so that tracing takes weights for constants.

    Of a module with parts torch first makes one in TorchScript, part by part, which takes longer than the tracing.
    """

    def __init__(self, model: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.model = [model]  # in a list, torch does not see it

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model[0](pixels)


def traced(model: Scaled, example: torch.Tensor, frozen: bool = False) -> torch.jit.ScriptModule:
    """A model in TorchScript, for pixels of the example's shape; `frozen`: its batch norms folded into convolutions."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(Whole(model).eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        return torch.jit.freeze(made) if frozen else made  # type: ignore[no-any-return]


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
        fast = precision == "fast"
        self.runner: Runner
        if self.device.type == "cuda":
            self.runner = CudaRunner(backbone, self.device, fast, batch, images or 0)
        elif self.engine == "openvino":
            self.runner = OpenvinoRunner(backbone, fast, batch or 16)
        else:
            self.runner = TorchRunner(backbone, fast, batch or 16)

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


class Runner(Protocol):
    """One engine on one device; see `Encoder` for what `batch`, `depth` and `start` mean."""

    batch: int
    depth: int

    def start(self, pixels: Pixels) -> Callable[[], Features]: ...


def in_parts(run: Callable[[Pixels], Features], pixels: Pixels, part: int) -> Features:
    """What `run`, which takes exactly `part` images, gives for these; the last part is filled up with black ones.

    On a CPU a step goes through the network a few images at a time: what a layer gives is then still in the caches
    when the next one reads it.
    """
    missing = -len(pixels) % part
    if missing:
        pixels = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])
    return np.concatenate([run(pixels[a : a + part]) for a in range(0, len(pixels), part)])[: len(pixels) - missing]


class TorchRunner:
    """torch on the CPU: batch norms folded into the convolutions by freezing, one batch a thread.

    Whole batches side by side on single threads beat one batch on all of them: nobody waits at the end of each layer
    for the core that has an image to decode.
    """

    def __init__(self, backbone: Backbone, fast: bool, batch: int) -> None:
        self.batch = batch
        # In float32 torch leaves batches of under 16 on one thread to its older, slower convolutions.
        self.part = min(batch, 4 if fast else 16)
        self.depth = max(1, min(torch.get_num_threads(), 16 if batch > 1 else 1))
        width = max(1, torch.get_num_threads() // self.depth)
        self.pool = ThreadPoolExecutor(self.depth, "encode", initializer=torch.set_num_threads, initargs=(width,))
        model = Scaled(backbone, torch.bfloat16 if fast else torch.float32).eval().to(memory_format=torch.channels_last)
        size = backbone.preprocessing.size
        example = torch.zeros(self.part, size, size, 3, dtype=torch.uint8)
        self.model: Callable[[torch.Tensor], torch.Tensor] = model
        if batch > 1:  # for one photo, tracing takes longer than it saves
            with contextlib.suppress(Exception):  # a model that cannot be traced runs as it is
                self.model = traced(model, example, frozen=True)

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        return self.pool.submit(in_parts, self.run, pixels, self.part).result

    @torch.inference_mode()
    def run(self, pixels: Pixels) -> Features:
        return self.model(torch.from_numpy(pixels)).numpy()


class OpenvinoRunner:
    """OpenVINO on the CPU, in as many streams as it finds best: pixels in, scaled inside the graph, one shape."""

    def __init__(self, backbone: Backbone, fast: bool, batch: int) -> None:
        import openvino as ov

        self.batch = batch
        # AMX is measured otherwise: tiles want more images, of which the halves of `in_halves` fall out of the caches.
        self.part = min(batch, (16 if fast else 8) if tiles() else 4)
        shape = (self.part, backbone.preprocessing.size, backbone.preprocessing.size, 3)
        # Traced here: left to it, OpenVINO runs the model twice more to compare traces, for seconds.
        model = ov.convert_model(traced(Scaled(backbone).eval(), torch.zeros(shape, dtype=torch.uint8)), input=[shape])
        threads = torch.get_num_threads()
        how = {
            "PERFORMANCE_HINT": "THROUGHPUT" if batch > 1 else "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # To the first cores, always: others that have a share of this machine would be pinned there as well.
            "ENABLE_CPU_PINNING": not launched() and 2 * threads >= len(os.sched_getaffinity(0)),
        }
        with ThreadPoolExecutor(1) as pool:  # with AMX in use, the caller's signals would want a larger stack
            compiled = pool.submit(compile_graph, model, fast, how).result()
        self.depth = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        # Made before any of them runs: making one may wait until the batch under way is done.
        self.requests = [compiled.create_infer_request() for _ in range(self.depth)]
        self.pool = ThreadPoolExecutor(self.depth, "encode")

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        return self.pool.submit(in_parts, self.run, pixels, self.part).result

    def run(self, pixels: Pixels) -> Features:
        request = self.requests.pop()
        try:
            return np.array(request.infer([pixels], share_inputs=True)[0], np.float32)
        finally:
            self.requests.append(request)


class CudaRunner:
    """torch on a GPU: pinned buffers filled while the GPU works, copies on a stream of their own."""

    COMPILE_FROM = 500_000  # images; below, compiling takes longer than it saves (estimated, not measured)
    LARGEST, BYTES = 1024, 2**28  # images of a batch, and their pixels

    def __init__(self, backbone: Backbone, device: torch.device, fast: bool, batch: int | None, images: int) -> None:
        self.device, self.depth, self.dim = device, 3, backbone.dim
        self.size = backbone.preprocessing.size
        self.dtype = torch.bfloat16 if fast else torch.float32
        scaled = Scaled(backbone, self.dtype).eval().to(device).to(memory_format=torch.channels_last)
        self.model: Callable[[torch.Tensor], torch.Tensor] = scaled
        self.copying, self.computing = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)  # the weights were copied on the default stream
        self.batch = batch or self.best_batch(images or self.LARGEST)
        self.slots: list[Slot] = []
        if images >= self.COMPILE_FROM:
            self.model = torch.compile(scaled, dynamic=False)
            try:
                self.start(np.zeros((1, self.size, self.size, 3), np.uint8))()
            except Exception as error:  # no compiler, or a model that it does not take
                warnings.warn(f"running without torch.compile ({type(error).__name__})", stacklevel=2)
                self.model = scaled

    def _buffers(self) -> None:
        shape = (self.batch, self.size, self.size, 3)
        pinned = self.device.type == "cuda"
        self.slots = [
            Slot(
                torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned),
                torch.zeros(shape, dtype=torch.uint8, device=self.device),
                torch.empty(self.batch, self.dim, pin_memory=pinned),
                torch.cuda.Event(),  # type: ignore[no-untyped-call]
                torch.cuda.Event(blocking=True),  # type: ignore[no-untyped-call]
            )
            for _ in range(self.depth)
        ]
        for slot in self.slots if pinned else ():  # nobody else gets this memory while either stream uses it
            slot.pixels.record_stream(self.copying)
            slot.pixels.record_stream(self.computing)
        torch.cuda.synchronize(self.device)  # the zeros were written on the default stream
        self.turn = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), full_float32():
            return self.model(pixels)

    def best_batch(self, images: int) -> int:
        """Double the batch while images are left to decode beside it, it still gains speed, and it fits in memory."""
        best, best_rate, batch = 16, 0.0, 16
        largest = min(self.LARGEST, max(16, self.BYTES // (3 * self.size**2)))
        with torch.cuda.stream(self.computing):  # the allocator keeps memory by stream: probe where the work will be
            while batch <= largest and (not best_rate or batch * self.depth < images):
                try:
                    pixels = torch.zeros(batch, self.size, self.size, 3, dtype=torch.uint8, device=self.device)
                    seconds = []
                    for _ in range(4):  # the first call chooses kernels
                        self.computing.synchronize()
                        start = time.perf_counter()
                        self.forward(pixels)
                        self.computing.synchronize()
                        seconds.append(time.perf_counter() - start)
                    rate = batch / min(seconds[1:])
                except RuntimeError as error:
                    if not best_rate and not out_of_memory(error):
                        raise
                    break  # what works for fewer images and not for these is a limit, however it is put
                if rate < 1.03 * best_rate:
                    break
                best, best_rate, batch = batch, rate, 2 * batch
        torch.cuda.empty_cache()
        return best

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        """See `Encoder.start`. Out of device memory, the batch is halved for good and the work done in parts."""
        if len(pixels) > self.batch:
            step = self.batch  # which may shrink while the parts are started
            parts = [self.start(pixels[a : a + step]) for a in range(0, len(pixels), step)]
            return lambda: np.concatenate([part() for part in parts])
        try:
            if not self.slots:
                self._buffers()
            return self._start(pixels)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if self.batch == 1:
                raise VbprError(
                    f"one image does not fit in the GPU's memory ({first_line(error)[:120]}); choose --device cpu"
                ) from error
        self._release()
        self.batch //= 2
        torch.cuda.empty_cache()
        if self.device.type == "cuda":
            torch.accelerator.empty_host_cache()  # pinned buffers of the old size would be kept beside the new
        return self.start(pixels)

    def _release(self) -> None:
        """Read out what was not fetched, and let go of the buffers."""
        torch.cuda.synchronize(self.device)  # nothing may still be using them
        for slot in self.slots:
            if slot.unread is not None:
                slot.unread()
        self.slots = []

    def _start(self, pixels: Pixels) -> Callable[[], Features]:
        slot = self.slots[self.turn]
        if slot.unread is not None:
            slot.unread()  # its batch was never fetched: keep it before its buffers are written again
        n = len(pixels)
        # By NumPy, on this thread alone. What lies behind the last image is of an older batch: cut off below.
        slot.host.numpy()[:n] = pixels
        with torch.cuda.stream(self.copying):
            slot.pixels.copy_(slot.host, non_blocking=True)
            slot.copied.record(self.copying)
        with torch.cuda.stream(self.computing):
            self.computing.wait_event(slot.copied)
            slot.features.copy_(self.forward(slot.pixels), non_blocking=True)
            slot.done.record(self.computing)

        held = [slot]  # until it is read: whoever keeps the result does not keep the buffers

        @functools.cache
        def wait() -> Features:
            slot = held[0]
            slot.done.synchronize()
            features = slot.features[:n].numpy().copy()
            held.clear()
            slot.unread = None
            return features

        slot.unread = wait
        self.turn = (self.turn + 1) % len(self.slots)
        return wait


NO_MEMORY = (
    "out of memory",
    "ALLOC_FAILED",  # cuBLAS, and cuDNN until 8
    "ALLOCATION_FAILED",  # cuDNN from 9 on
    "unable to find an engine",  # torch, of a cuDNN whose every algorithm wants more than there is
    "CUBLAS_STATUS_NOT_INITIALIZED",  # a handle for which there is no room
    "CUDNN_STATUS_NOT_INITIALIZED",
)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory did not suffice: torch, pinned memory, cuBLAS and cuDNN each say so in their own way."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)


@dataclasses.dataclass
class Slot:
    """Buffers of one batch on its way: pinned pixels, pixels on the device, pinned features; when each is filled."""

    host: torch.Tensor
    pixels: torch.Tensor
    features: torch.Tensor
    copied: Any
    done: Any
    unread: Callable[[], Features] | None = None


def pick_engine(engine: str, device: torch.device, batch: int | None = None) -> str:
    """auto, torch or openvino as torch or openvino.

    Raises:
        VbprError: it is unknown, not installed, or not for this device.
    """
    installed = importlib.util.find_spec("openvino") is not None
    if engine not in ("auto", "torch", "openvino"):
        raise VbprError(f"--engine {engine} is not known; choose auto, torch or openvino")
    if engine == "openvino" and not installed:
        raise VbprError("--engine openvino is not installed: pip install vbpr[openvino], or choose --engine torch")
    if engine == "openvino" and device.type != "cpu":
        raise VbprError("--engine openvino runs on the CPU; choose --device cpu or --engine torch")
    if engine == "auto":  # one photo is done before OpenVINO has compiled the model
        return "openvino" if installed and device.type == "cpu" and batch != 1 else "torch"
    return engine


__all__ = ["Encoder", "Scaled", "pick_engine"]
