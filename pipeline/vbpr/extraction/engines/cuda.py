"""CUDA: pinned memory, a stream of copies beside one of work, and the batch that is fastest.

No GPU has run this yet; tests run it on a CPU with stand-ins for streams and events. Until one has, its arithmetic and
its order of events stay as they were reviewed, in one class of over 120 lines.
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...base.errors import VbprError, first_line
from ...compute.device import full_float32
from ...data.images.source import Pixels
from ...networks.backbone import Backbone
from .runner import Features, Scaled, channels_last


class CudaRunner:
    """torch on a GPU: pinned buffers filled while the GPU works, copies on a stream of their own; see `ENGINES`."""

    COMPILE_FROM = 500_000  # images; below, compiling takes longer than it saves (estimated, not measured)
    LARGEST, BYTES = 1024, 2**28  # images of a batch, and their pixels

    def __init__(
        self, backbone: Backbone, fast: bool, batch: int | None, device: torch.device, images: int = 0
    ) -> None:
        self.device, self.depth, self.dim = device, 3, backbone.dim
        self.size = backbone.preprocessing.size
        self.dtype = torch.bfloat16 if fast else torch.float32
        scaled = channels_last(Scaled(backbone, self.dtype).eval().to(device))
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


__all__ = ["CudaRunner"]
