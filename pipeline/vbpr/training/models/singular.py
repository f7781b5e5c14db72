"""The leading singular values of a product of matrices."""

from typing import Any

import numpy as np
import torch

from ...base.arrays import Array
from ...base.progress import Progress


def leading(chain: list[Any], rank: int, seed: int, sweeps: int = 50) -> tuple[Array, Array, Array]:
    """The leading singular values of a product of matrices and their vectors: (n, r), (r,) descending, (r, m).

    By subspace iteration (Halko et al. 2011), until the values have settled; their vectors take longer to. Dense
    matrices are read for all vectors at once, where ARPACK would read them for each.
    """
    rng = np.random.default_rng(seed)
    columns = chain[-1].shape[1]
    basis = rng.standard_normal((columns, min(rank + 16, chain[0].shape[0], columns)), np.float32)
    turned = [matrix.T for matrix in reversed(chain)]
    before = 0.0
    with Progress("singular values", sweeps, "sweeps at most") as bar:
        for _ in range(sweeps):
            product = torch.from_numpy(times(turned, times(chain, basis)))
            q, r = torch.linalg.qr(product)
            basis, total = q.numpy(), float(r.diagonal().double().abs().sqrt().sum())
            bar.advance(1)
            if abs(total - before) <= SETTLED * total:
                break
            before = total
    left, values, turn = torch.linalg.svd(torch.from_numpy(times(chain, basis)), full_matrices=False)
    return left.numpy()[:, :rank], values.numpy()[:rank], (turn.numpy() @ basis.T)[:rank]


def times(chain: list[Any], basis: Array) -> Array:
    """A product of matrices, or of what multiplies as they do, with a basis; arrays through torch, whose threads are
    the run's own."""
    for matrix in reversed(chain):
        if isinstance(matrix, np.ndarray):
            basis = (torch.from_numpy(matrix) @ torch.from_numpy(basis)).numpy()
        else:
            basis = np.ascontiguousarray(matrix @ basis)
    return basis


SETTLED = 1e-3  # how little the sum of the values may still change

__all__ = ["leading"]
