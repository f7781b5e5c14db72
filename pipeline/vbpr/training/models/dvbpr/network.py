"""The networks that DVBPR trains: CNN-F, or a backbone to fine-tune; and their penalties."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....base.errors import VbprError
from ....networks.prepare import Preprocessing
from ...config import TrainConfig

if TYPE_CHECKING:
    from ....networks.backbone import Backbone

HALF = (0.5, 0.5, 0.5)
PUBLISHED_NETWORK = "cnnf"
WIDE = 4096  # of the two dense layers
LARGEST = 1024  # pixels of a side, for which the first dense layer has a billion weights


class CNNF(nn.Module):
    """CNN-F (Chatfield et al. 2014) as DVBPR has it: "SAME" convolutions with bias, ReLU, dropout in the wide layers.

    (n, 3, size, size) in [-1, 1] -> (n, K), linear at the end. With 224 px the maps are 56, 28, 14, 7.
    """

    def __init__(self, k: int, size: int = 224) -> None:
        super().__init__()
        if size % 32 or size > LARGEST:
            raise VbprError(f"--image-size {size}: CNN-F needs a multiple of 32 up to {LARGEST} (224 as published)")
        self.conv1 = nn.Conv2d(3, 64, 11, 4)  # padded in `forward`: TensorFlow's SAME is one pixel more at the end
        self.conv2 = nn.Conv2d(64, 256, 5, padding=2)
        self.conv3, self.conv4, self.conv5 = (nn.Conv2d(256, 256, 3, padding=1) for _ in range(3))
        self.fc1 = nn.Linear(256 * (size // 32) ** 2, WIDE)
        self.fc2 = nn.Linear(WIDE, WIDE)
        self.fc3 = nn.Linear(WIDE, k)

    def initialise(self, generator: torch.Generator) -> None:
        """Xavier-uniform weights, zero biases."""
        layers: Any = self.children()
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode; dropout draws from `generator`, and there is none without it."""
        x = F.max_pool2d(F.relu(self.conv1(F.pad(x, (3, 4, 3, 4)))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = F.max_pool2d(F.relu(self.conv5(x)), 2).flatten(1)
        x = dropped(F.relu(self.fc1(x)), generator)
        x = dropped(F.relu(self.fc2(x)), generator)
        out: Tensor = self.fc3(x)
        return out


class FineTuned(nn.Module):
    """Any backbone with a K-layer on its pooled features; its normalisation statistics stay as they came."""

    def __init__(self, backbone: "Backbone", k: int) -> None:
        super().__init__()
        self.backbone = backbone.module.requires_grad_(True).eval()
        self.head = nn.Linear(backbone.dim, k)

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.xavier_uniform_(self.head.weight, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        out: Tensor = self.head(dropped(self.backbone(x), generator))
        return out


def dropped(x: Tensor, generator: torch.Generator | None, rate: float = 0.5) -> Tensor:
    """Dropout whose randomness is passed."""
    if generator is None:
        return x
    keep = torch.rand(x.shape, generator=generator, device=x.device) >= rate
    return x * keep / (1 - rate)


def penalised(network: nn.Module) -> list[Tensor]:
    """The weights of every layer, without biases and normalisation."""
    return [p for p in network.parameters() if p.ndim > 1]


def penalty(theta: Tensor, weights: list[Tensor], c: TrainConfig) -> Tensor:
    """What a batch adds to the sum of its ranking losses: theta (B, K) are its users, repeats counted.

    `reg_head` is in TrainConfig's convention, for a mean loss; the published 1e-3 for a sum over 128 is 1e-3 / 128.
    """
    users = c.reg_users / 2 * theta.square().sum()
    return users + len(theta) * c.reg_head / 2 * sum((w.square().sum() for w in weights), torch.zeros_like(users))


def build(c: TrainConfig) -> tuple[Any, Preprocessing]:
    """The network of a configuration and how it wants its images."""
    if c.network == PUBLISHED_NETWORK:
        return CNNF(c.dim, c.image_size), Preprocessing(c.image_size, 1.0, "nearest", HALF, HALF, squash=True)
    from ....networks.registry import recorded_backbone

    random = c.network_weights == "random"
    backbone = recorded_backbone(c.network, None if random else c.network_weights or None, random)
    return FineTuned(backbone, c.dim), backbone.preprocessing


__all__ = ["CNNF", "FineTuned", "build", "dropped", "penalised", "penalty"]
