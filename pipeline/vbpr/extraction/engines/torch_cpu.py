"""torch on the CPU: a traced and frozen graph, a batch a thread."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from ...data.images.source import Pixels
from ...networks.backbone import Backbone
from .runner import CPU, Features, Scaled, channels_last, in_parts, traced


class TorchRunner:
    """torch on the CPU: batch norms folded into the convolutions by freezing, one batch a thread.

    Whole batches side by side on single threads beat one batch on all of them: nobody waits at the end of each layer
    for the core that has an image to decode. See `ENGINES`.
    """

    def __init__(
        self,
        backbone: Backbone,
        fast: bool,
        batch: int | None = None,
        device: torch.device = CPU,
        images: int = 0,
        trace: bool = True,
    ) -> None:
        self.batch = batch = batch or 16
        # In float32 torch leaves batches of under 16 on one thread to its older, slower convolutions.
        self.part = min(batch, 4 if fast else 16)
        self.depth = max(1, min(torch.get_num_threads(), 16 if batch > 1 else 1))
        width = max(1, torch.get_num_threads() // self.depth)
        self.pool = ThreadPoolExecutor(self.depth, "encode", initializer=torch.set_num_threads, initargs=(width,))
        model = channels_last(Scaled(backbone, torch.bfloat16 if fast else torch.float32).eval())
        size = backbone.preprocessing.size
        example = torch.zeros(self.part, size, size, 3, dtype=torch.uint8)
        self.model: Callable[[torch.Tensor], torch.Tensor] = model
        if batch > 1 and trace:  # for one photo, tracing takes longer than it saves
            with contextlib.suppress(Exception):  # a model that cannot be traced runs as it is
                self.model = traced(model, example, folded=True)

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        return self.pool.submit(in_parts, self.run, pixels, self.part).result

    @torch.inference_mode()
    def run(self, pixels: Pixels) -> Features:
        return self.model(torch.from_numpy(pixels)).numpy()


__all__ = ["TorchRunner"]
