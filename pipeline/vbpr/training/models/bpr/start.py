"""Where the visual part starts: not at random, but at what interactions and features say before the first step.

    E = A = sqrt(SCALE) x the K leading axes of  C = sum_u sum_{i != j taken by u} f_i f_j^T / (n_u - 1)
    y_j = HISTORY x (sum over the buyers of j of  A (h_u - f_j) / (n_u - 1)) / (sum over them of  1 / (n_u - 1))

Here h_u is a plain sum, without the root of `bpr.py`. C says in which directions of looks the things that one user
takes agree; y_j says what else its buyers take. Both are sums over users, so C is never formed: its leading axes come
from a few products with h and x (orthogonal iteration with Rayleigh-Ritz; Halko et al. 2011), near enough: of hm-july's
128 axes, they agree to 99.4% of the most that any 128 could.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 4.0  # features have length 1 or so: scores of the first step then differ by about 1
HISTORY = 0.45
PASSES, SPARE = 5, 14  # over the features; axes beside the K that are wanted, which let them settle
ROWS = 16384  # multiplied at a time


Add = Callable[[list[Tensor]], Tensor]  # what parts of the users have made -> its sum over all parts


def starting_point(
    x: Tensor, parts: Sequence[tuple[Tensor, sp.csr_matrix]], k: int, add: Add = lambda mine: mine[0]
) -> tuple[Tensor, Tensor]:
    """(k, d) float32 E and A, and (I, k) float32 y.

    Args:
        x: (I, d) prepared features.
        parts: of the users that are here: (U, d) sums of those of each user's train items, (U, I) what they took.
        add: sums what each part has made, also over the parts that are elsewhere.
    """
    device = x.device
    shares = [torch.from_numpy(np.diff(train.indptr)).float() for _, train in parts]
    # w_u: who took one thing says nothing
    shares = [torch.where(degree > 1, 1 / (degree - 1).clamp(min=1), 0) for degree in shares]
    # sums of w_u over an item's buyers
    of_item = add([torch.from_numpy(t.T @ w.numpy()).to(device) for (_, t), w in zip(parts, shares, strict=True)])
    of_item, shares = of_item[:, None], [share.to(device)[:, None] for share in shares]

    def agreement(basis: Tensor) -> Tensor:
        """C @ basis: pairs of all that a user took, less each thing with itself."""
        pairs = add([weighted(h, share, basis) for (h, _), share in zip(parts, shares, strict=True)])
        return pairs - weighted(x, of_item, basis)

    head = F.pad(leading_axes(agreement, x.shape[1], k, device).T, (0, 0, 0, max(0, k - x.shape[1]))) * SCALE**0.5
    tastes = [product(h, head.T).mul_(share) for (h, _), share in zip(parts, shares, strict=True)]
    buyers = [train.tocsc() for _, train in parts]
    y = torch.empty(len(x), k, device=device)
    for a in range(0, len(x), ROWS):
        y[a : a + ROWS] = add([of_buyers(t, b, a, device) for t, b in zip(tastes, buyers, strict=True)])
    y -= product(x, head.T).mul_(of_item)
    y /= of_item.clamp(min=torch.finfo(torch.float32).tiny)
    return head, y.mul_(HISTORY)


def of_buyers(tastes: Tensor, buyers: sp.csc_matrix, a: int, device: torch.device) -> Tensor:
    """(n, k) the sums over the buyers of each item, of ROWS items from the a-th on."""
    begin = buyers.indptr[a : a + ROWS + 1]
    users = torch.from_numpy(buyers.indices[begin[0] : begin[-1]]).long().to(device)
    starts = torch.from_numpy(begin[:-1] - begin[0]).long().to(device)
    return F.embedding_bag(users, tastes, starts, mode="sum")


def leading_axes(multiply: Callable[[Tensor], Tensor], d: int, k: int, device: torch.device) -> Tensor:
    """(d, k) orthonormal, the leading eigenvectors of a symmetric matrix known by its products, largest first."""
    basis = torch.eye(d, min(d, k + SPARE), device=device)
    shift = torch.zeros((), device=device)  # by the most negative value met: iteration finds what is furthest from zero
    for _ in range(PASSES):
        image = multiply(basis)
        small = basis.T @ image
        values, turn = torch.linalg.eigh((small + small.T) / 2)
        shift = torch.maximum(shift, -values[0])
        basis = torch.linalg.qr((image + shift * basis) @ turn.flip(1)).Q
    return basis[:, :k]


def product(x: Tensor, basis: Tensor, rows: Tensor | None = None) -> Tensor:
    """(n, m) float32 x[rows] @ basis (None: all rows), multiplied in the dtype of x, a block of rows at a time."""
    basis, count = basis.to(x.dtype), len(x) if rows is None else len(rows)
    out = torch.empty(count, basis.shape[1], device=x.device)
    for a in range(0, count, ROWS):
        block = x[a : a + ROWS] if rows is None else x.index_select(0, rows[a : a + ROWS])
        out[a : a + ROWS] = block @ basis
    return out


def weighted(x: Tensor, weights: Tensor, basis: Tensor) -> Tensor:
    """(d, m) float32 x.T @ (weights * (x @ basis)), likewise, in one pass over x."""
    out = weights.new_zeros(x.shape[1], basis.shape[1])
    basis = basis.to(x.dtype)
    for a in range(0, len(x), ROWS):
        rows = x[a : a + ROWS]
        out += (rows.T @ (weights[a : a + ROWS] * (rows @ basis)).to(x.dtype)).float()
    return out


__all__ = ["ROWS", "Add", "product", "starting_point"]
