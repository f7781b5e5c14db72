"""Stage one against a naive loop and against the machine: images a second, medians, ratios; what bounds it.

    python bench/extract.py --backbone inception --images 400
    python bench/extract.py --backbone inception --data ../shared/data/hm-july --images 400

The naive loop is what a notebook does: Pillow, float32, one image at a time. The floor is what the machine does on bare
convolutions: oneDNN's rate on one large 3 x 3 convolution, over the model's multiplications; beside it, what the
model's own convolutions take one by one, with nothing between them. The floor of decoding is libjpeg-turbo's bare
decode. Decoding is timed by the processor time of its thread: what a core does, whatever else runs beside it. Weights
are random: they do not change the speed. Model and files are measured once a round, and ratios are taken within rounds,
for a machine is not as fast at all times. On a GPU give --images 500000: the model is compiled for many only.
"""

import argparse
import copy
import functools
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, median
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from vbpr.compute.device import full_float32, multiplies_bfloat16, pick_device
from vbpr.data.dataset import Dataset
from vbpr.data.images import open_images
from vbpr.extraction.engines import Encoder
from vbpr.extraction.extract import Extraction, extract
from vbpr.networks.backbone import Backbone
from vbpr.networks.prepare import Preprocessing, prepare, prepare_any
from vbpr.networks.registry import load_backbone
from vbpr.stores.features.store import FeatureStore


def make_photos(folder: Path, count: int) -> None:
    """JPEGs like a shop's: 300 x 400, about 22 kB, an object of texture on a pale ground; 1,000 different ones."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:400, 0:300]
    for i in range(1000, count):
        (folder / f"{i:06}.jpg").symlink_to(f"{i % 1000:06}.jpg")
    for i in range(min(count, 1000)):
        coarse = Image.fromarray(rng.integers(0, 256, (50, 38, 3), dtype=np.uint8)).resize(
            (300, 400), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 7, (400, 300, 1))
        inside = ((x - 150) / rng.uniform(70, 120)) ** 2 + ((y - 200) / rng.uniform(110, 180)) ** 2 < 1
        pixels = np.where(inside[..., None], np.asarray(coarse) * 0.7 + 30 + grain, 240 + 0.2 * grain)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06}.jpg", quality=85)


def layers(backbone: Backbone) -> list[tuple[torch.nn.Module, tuple[int, ...], float]]:
    """Every convolution and linear layer, its input's shape for one image, and operations: 2 a multiplication."""
    found = []

    def note(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        places = output[0, 0].numel() if isinstance(module, torch.nn.Conv2d) else output[0].numel() / output.shape[-1]
        found.append((module, tuple(inputs[0].shape[1:]), 2.0 * weight.numel() * places))

    hooks = [
        module.register_forward_hook(note)
        for module in backbone.module.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    ]
    with torch.inference_mode():
        backbone.module(torch.zeros(1, 3, backbone.preprocessing.size, backbone.preprocessing.size))
    for hook in hooks:
        hook.remove()
    return found


def bare_decode(data: bytes, how: Preprocessing) -> torch.Tensor:
    return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)


def layer_seconds(layer: torch.nn.Module, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> float:
    """Seconds that a bare layer takes for an image, channels last, in batches as large as the device likes."""
    layer, batch = copy.deepcopy(layer).eval().to(device, dtype), 256 if device.type == "cuda" else 16
    pixels = torch.rand(batch, *shape, device=device).to(dtype)
    if len(shape) == 3:
        layer, pixels = (t.to(memory_format=torch.channels_last) for t in (layer, pixels))

    def work() -> None:
        with torch.inference_mode(), full_float32():
            layer(pixels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return median(work, 15) / batch


def convolution_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations a second of one 3 x 3 convolution, 256 x 35 x 35."""
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False)
    return 2 * layer.weight.numel() * 35 * 35 / layer_seconds(layer, (256, 35, 35), dtype, device)


def naive(backbone: Backbone, photos: list[bytes], device: torch.device) -> float:
    """Images a second of Pillow, eager float32, batch 1."""
    module = copy.deepcopy(backbone.module).to(device)
    mean, std = (np.array(v, np.float32) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))

    def one(data: bytes) -> None:
        scaled = (prepare_any(data, backbone.preprocessing).astype(np.float32) / 255 - mean) / std
        with torch.inference_mode():
            module(torch.from_numpy(scaled.transpose(2, 0, 1)[None].copy()).to(device)).cpu().numpy()

    one(photos[0])
    times = []
    for data in photos:
        start = time.perf_counter()
        one(data)
        times.append(time.perf_counter() - start)
    return 1 / statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="inception")
    parser.add_argument("--images", type=int, default=400, help="images of an end-to-end run")
    parser.add_argument("--data", type=Path, help="a folder of images instead of made ones")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engines", default="openvino,torch")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    backbone = load_backbone(options.backbone, random_weights=True)
    how, work = backbone.preprocessing, sum(operations for *_, operations in layers(backbone))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data" / "images"
        if options.data is None:
            make_photos(folder, options.images)
        else:  # the first so many, linked
            source = open_images(options.data)
            folder.mkdir(parents=True)
            for row in source.rows[: options.images].tolist():
                path = Path(source.files.hows[row])
                (folder / path.name).symlink_to(path.resolve())
        source = open_images(folder)
        photos = [source.read(i) for i in range(min(200, len(source)))]
        print(machine("torchvision", "timm", "pillow"))
        print(f"Python {platform.python_version()}; {options.backbone}, {how}; {work / 1e9:.2f} GFLOP an image")
        kilobytes = sum(map(len, photos)) / len(photos) / 1000
        print(f"{len(source):,} images of {kilobytes:.1f} kB; medians of {options.runs} runs\n")
        print(f"{'':44}{'images/s':>10}{'x naive':>9}{'of floor':>10}")

        def row(label: str, rate: float, over_naive: float = 0, over_floor: float = 0) -> None:
            ratios = (f"{over_naive:9.2f}" if over_naive else f"{'':9}") + (f"{over_floor:10.2f}" if over_floor else "")
            print(f"{label:44}{rate:10,.1f}{ratios}", flush=True)

        bare = 0.0
        jpegs = [photo for photo in photos if photo[:3] == b"\xff\xd8\xff"]
        for label, decode in (
            ("decode alone, a core", bare_decode),
            ("decode + resize, a core", prepare),
            ("  the same with Pillow", prepare_any),
        ):
            each = functools.partial(lambda d: [d(photo, how) for photo in jpegs], decode)
            rate = len(jpegs) / median(each, options.runs, time.thread_time)
            bare = bare or rate
            row(label, rate, over_floor=rate / bare)
        error = max(np.abs(prepare(d, how).astype(int) - prepare_any(d, how)).max() for d in jpegs)
        print(f"    largest difference to Pillow: {error}/255")
        pixels = np.stack([prepare(photo, how) for photo in photos])
        reference = eager(backbone, pixels[:32])

        def whole(out: Path, precision: str, engine: str) -> Extraction:
            return extract(
                Dataset(folder.parent),
                options.backbone,
                out,
                random_weights=True,
                device=options.device,
                precision=precision,
                engine=engine,
                batch=options.batch,
            )

        device = pick_device(options.device)
        engines = ["torch"] if device.type == "cuda" else options.engines.split(",")
        precisions = {"exact": torch.float32}
        if multiplies_bfloat16(device):
            precisions["fast"] = torch.bfloat16
        else:
            print("no units for bfloat16 here: --precision fast is refused")
        encoders = {
            (precision, engine): Encoder(backbone, options.device, precision, engine, options.batch, options.images)
            for precision in precisions
            for engine in engines
        }
        rounds: dict[str, list[tuple[float, float, float]]] = {}  # of each row: images/s, the round's naive, its floor
        for k in range(options.runs):  # a round measures everything once, for machines are not as fast at all times
            base = naive(backbone, photos[: max(5, min(60, options.images))], device)
            rounds.setdefault("naive loop", []).append((base, base, 0))
            for precision, dtype in precisions.items():
                floor = convolution_rate(dtype, device) / work

                def note(label: str, rate: float, base: float = base, floor: float = floor) -> None:
                    rounds.setdefault(label, []).append((rate, base, floor))

                note(f"{precision}: floor", floor)
                alone = sum(layer_seconds(layer, shape, dtype, device) for layer, shape, _ in layers(backbone))
                note(f"{precision}: its own layers, each alone", 1 / alone)
                for engine in engines:
                    encoder = encoders[precision, engine]
                    count = max(encoder.batch * 4 * encoder.depth, 32)
                    enough = np.resize(pixels, (-(-count // encoder.batch) * encoder.batch, *pixels.shape[1:]))
                    seconds = median(functools.partial(encoder, enough), 1)
                    note(f"{precision}, {engine}: model alone", len(enough) / seconds)
                    out = Path(name) / f"{engine}-{precision}-{k}.h5"
                    note(f"{precision}, {engine}: files to feature file", whole(out, precision, engine).rate)
                    FeatureStore(out).finished()
        for label, measured in rounds.items():
            rate = statistics.median(one[0] for one in measured)
            ratios = (statistics.median(one[0] / one[n] if one[n] else 0 for one in measured) for n in (1, 2))
            operations = f" ({rate * work / 1e9:,.0f} GFLOP/s)" if label.endswith("floor") else ""
            row(label + operations, rate, *ratios)
        for (precision, engine), encoder in encoders.items():
            error = np.linalg.norm(encoder(pixels[:32]) - reference) / np.linalg.norm(reference)
            print(f"{precision}, {engine}: relative L2 to eager float32 {error:.1e}")
        engine, precision = engines[0], "exact"
        out = Path(name) / f"{engine}-{precision}-0.h5"
        print("\nrunning it again, imports not counted:")

        def again(what: str) -> None:
            start = time.perf_counter()
            done = whole(out, precision, engine)
            seconds = time.perf_counter() - start
            print(f"  {what:38}{done.written:5,} images encoded in {seconds:.3f} s")

        again("nothing has changed")
        first, second, *_ = sorted(folder.iterdir())
        for i in range(max(1, options.images // 100)):
            shutil.copyfile(second, folder / f"new-{i}{second.suffix}")
        again("1% new images")
        first.unlink()
        again("one image is gone")
        second.unlink()
        shutil.copyfile(next(folder.glob("new-*")), second)
        again("one image has changed")


def eager(backbone: Backbone, pixels: Any) -> Any:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    with torch.inference_mode():
        scaled = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
        return torch.cat([backbone.module(scaled[a : a + 8]) for a in range(0, len(scaled), 8)]).numpy()


if __name__ == "__main__":
    main()
