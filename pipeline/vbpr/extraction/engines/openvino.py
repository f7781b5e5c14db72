"""OpenVINO on the CPU: several requests at once, each a few images through one compiled graph."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from ...data.images.source import Pixels
from ...networks.backbone import Backbone
from .graphs import compile_graph, tiles
from .runner import CPU, Features, FixedSizes, Scaled, in_parts, traced


class OpenvinoRunner:
    """OpenVINO on the CPU, in as many streams as it finds best: pixels in, scaled inside the graph, one shape; see
    `ENGINES`.

    Attributes:
        alone: whether the process has the machine to itself; workers of a cluster may share it.
    """

    alone = True

    def __init__(
        self, backbone: Backbone, fast: bool, batch: int | None = None, device: torch.device = CPU, images: int = 0
    ) -> None:
        import openvino as ov

        self.batch = batch = batch or 16
        # AMX is measured otherwise: tiles want more images, of which the halves of `in_halves` fall out of the caches.
        self.part = min(batch, (16 if fast else 8) if tiles() else 4)
        shape = (self.part, backbone.preprocessing.size, backbone.preprocessing.size, 3)
        # Traced here: left to it, OpenVINO runs the model twice more to compare traces, for seconds.
        with FixedSizes():
            graph = traced(Scaled(backbone).eval(), torch.zeros(shape, dtype=torch.uint8))
        model = ov.convert_model(graph, input=[(shape, ov.Type.u8)])
        threads = torch.get_num_threads()
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT" if batch > 1 else "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # To the first cores, always: others that have a share of this machine would be pinned there as well.
            "ENABLE_CPU_PINNING": self.alone and 2 * threads >= len(os.sched_getaffinity(0)),
        }
        with ThreadPoolExecutor(1) as pool:  # with AMX in use, the caller's signals would want a larger stack
            compiled = pool.submit(compile_graph, model, fast, options).result()
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


__all__ = ["OpenvinoRunner"]
