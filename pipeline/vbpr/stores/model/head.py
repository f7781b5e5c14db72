"""What turns the features of an item that nobody has taken into its vector."""

import dataclasses

import numpy as np

from ...base.arrays import Array
from ...base.errors import VbprError


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """What turns an item's features into its vector, so that a new item needs its image alone.

    z = (f - mean) / scale, divided by its length if `unit`;  vector = weight @ z,  bias = bias_weight . z
    with a hidden layer, to both (one below the other) is added  outer @ max(0, hidden @ z)

    Attributes:
        mean, scale: (D,) float32, of the catalogue's features.
        weight: (K, D) float32; rows of zeros for columns that only past interactions can fill.
        bias_weight: (D,) float32.
        unit: whether standardised features are scaled to length one.
        hidden, outer: (H, D) and (K + 1, H) float32, the last row the bias's; None: there is no such layer.
    """

    mean: Array
    scale: Array
    weight: Array
    bias_weight: Array
    unit: bool = False
    hidden: Array | None = None
    outer: Array | None = None

    def arrays(self) -> dict[str, Array]:
        """What it is made of, by name."""
        return {name: getattr(self, name) for name in HEAD_ARRAYS if getattr(self, name) is not None}

    def fits(self, rank: int) -> bool:
        """Whether its arrays fit together and give vectors of `rank` numbers."""
        dim = self.mean.shape
        if self.hidden is not None or self.outer is not None:
            of_layer = [() if part is None else part.shape for part in (self.hidden, self.outer)]
            units = of_layer[0][:1]
            if of_layer != [(*units, *dim), (rank + 1, *units)]:
                return False
        return len(dim) == 1 and self.weight.shape == (rank, *dim) and self.scale.shape == self.bias_weight.shape == dim

    def finite(self) -> bool:
        """Whether it gives numbers: its own are finite, and it divides by none that is 0."""
        return all(bool(np.isfinite(array).all()) for array in self.arrays().values()) and bool(self.scale.all())

    def __call__(self, features: Array, block: int = 4096) -> tuple[Array, Array]:
        """(n, D) features -> (n, K) item vectors and (n,) biases, float32, in blocks.

        Raises:
            VbprError: they are of another D.
        """
        if features.shape[1] != len(self.mean):
            raise VbprError(
                f"the model takes features of {len(self.mean):,} numbers, and these have {features.shape[1]:,}; train "
                "it again with what made these"
            )
        vectors = np.empty((len(features), len(self.weight)), np.float32)
        bias = np.empty(len(features), np.float32)
        for a in range(0, len(features), block):
            z = (np.asarray(features[a : a + block], np.float32) - self.mean) / self.scale
            vectors[a : a + block], bias[a : a + block] = self.apply(z)
        return vectors, bias

    def apply(self, standardised: Array) -> tuple[Array, Array]:
        """(n, D) standardised features -> (n, K) item vectors and (n,) biases."""
        z = unit_rows(standardised) if self.unit else standardised
        vectors, bias = z @ self.weight.T, z @ self.bias_weight
        if self.hidden is None:
            return vectors, bias
        more = self.beyond(z)
        return vectors + more[:, :-1], bias + more[:, -1]

    def beyond(self, z: Array) -> Array:
        """(n, K + 1) what the hidden layer (there must be one) adds to vectors and biases; z: as `weight` takes it."""
        assert self.hidden is not None and self.outer is not None
        added: Array = np.maximum(z @ self.hidden.T, 0) @ self.outer.T
        return added

    def of_columns(self, keep: Array) -> "Head":
        """The head of some columns of the vectors: (K,) bool."""
        outer = None if self.outer is None else self.outer[np.append(keep, True)]
        return dataclasses.replace(self, weight=self.weight[keep], outer=outer)


def unit_rows(rows: Array) -> Array:
    """Rows scaled to length one; a row of zeros stays."""
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return np.asarray(rows / np.maximum(length, 1e-12), np.float32)


LAYER_ARRAYS = ("hidden", "outer")
HEAD_ARRAYS = ("mean", "scale", "weight", "bias_weight", *LAYER_ARRAYS)
BLIND = (  # why a model without a head cannot place what it has not seen
    "this model cannot read a photo: it was made without images, or with a network that its file does not keep "
    "(dvbpr); use --model visual or vbpr"
)

__all__ = ["BLIND", "HEAD_ARRAYS", "LAYER_ARRAYS", "Head", "unit_rows"]
