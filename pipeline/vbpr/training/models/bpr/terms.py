"""The terms of a score, each with the columns of its dot product and the gradients of its own parameters.

    x_ui = sum over terms of  left_u . right_i

visual: (theta_u + taste_u) . E f_i + beta . f_i, taste_u = A h_u + g_u of the history (less what i itself gave).
latent: gamma_u . (s_i gamma_i). bias: 1 . (s_i b_i). Formulas and symbols are those of `bpr.py`.
"""

import dataclasses
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import TrainConfig
from .adam import Gradients, Params, summed
from .batches import Batch
from .hidden import HiddenLayer
from .inputs import Inputs

SHAPES = 64


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Derivatives of a batch's mean loss by the columns of a term (C of them).

    Attributes:
        users: (R, C) by each run's left side. positives: (B, C) the same for each positive: a run's sum to `users`.
        i: (B, C) by the right sides of the positives. j: (B, C) or (N, C) by those of the negatives.
    """

    users: Tensor
    positives: Tensor
    i: Tensor
    j: Tensor

    def columns(self, a: int, b: int) -> "Slopes":
        return Slopes(self.users[:, a:b], self.positives[:, a:b], self.i[:, a:b], self.j[:, a:b])


@dataclasses.dataclass(frozen=True)
class Term:
    """A term of the scores of one batch.

    Attributes:
        left: (R, C) of each run's user. right_i: (B, C) of the positives; right_j: (B, C) or (N, C) of the negatives.
        gradients: of the term's parameters, penalties included.
        itself: (B, K) what the first K columns of each positive's left side have from that very item; it is taken off.
    """

    left: Tensor
    right_i: Tensor
    right_j: Tensor
    gradients: Callable[[Slopes], Gradients]
    itself: Tensor | None = None


def latent(p: Params, q: Inputs, batch: Batch, c: TrainConfig) -> Term:
    """gamma_u . (s_i gamma_i)"""
    users, of_i, of_j = p["gamma_u"].index_select(0, batch.u), *rows_of(p["gamma_i"], batch)
    si, sj = (s[:, None] for s in rows_of(q.shrink, batch))

    def gradients(d: Slopes) -> Gradients:
        d_i = d.i * si + c.reg_items / len(batch.i) * of_i
        d_j = d.j * sj + c.reg_items * negative_shares(batch, d.j)[:, None] * of_j
        return {
            "gamma_u": summed(batch.u, d.users + user_penalty(batch, c, users) * users),
            "gamma_i": summed(torch.cat([batch.i, batch.j]), torch.cat([d_i, d_j])),
        }

    return Term(users, of_i * si, of_j * sj, gradients)


def bias(p: Params, q: Inputs, batch: Batch, c: TrainConfig) -> Term:
    """1 . (s_i b_i)"""
    (of_i, of_j), (si, sj) = rows_of(p["b"], batch), rows_of(q.shrink, batch)

    def gradients(d: Slopes) -> Gradients:
        d_i = d.i[:, 0] * si + c.reg_bias / len(batch.i) * of_i
        d_j = d.j[:, 0] * sj + c.reg_bias / 10 * negative_shares(batch, d.j) * of_j
        return {"b": summed(torch.cat([batch.i, batch.j]), torch.cat([d_i, d_j]))}

    return Term(ones(batch, p["b"]), (of_i * si)[:, None], (of_j * sj)[:, None], gradients)


def visual(p: Params, q: Inputs, x: Tensor, batch: Batch, c: TrainConfig) -> Term:
    """(theta_u + taste_u) . E f_i + beta . f_i, and what a hidden layer adds to both; `x` holds the features."""
    theta = p["theta"].index_select(0, batch.u)
    k, wide = theta.shape[1], len(p["E"])  # one row more than K when there is beta
    of_all = functools.cache(lambda: x.index_select(0, torch.cat([batch.i, batch.j])))  # at most once a batch
    encoding = encode_differences(p, x, batch) if batch.weight is None else encode_all(p, of_all(), batch)
    history = None if q.h is None or encoding.own is None else History(p, q, q.h, batch, encoding.own)
    layer = HiddenLayer.of(p, of_all(), batch) if "W" in p else None
    left = theta if history is None else theta + history.taste
    if wide > k:
        left = torch.cat([left, ones(batch, theta)], 1)

    def gradients(d: Slopes) -> Gradients:
        d_own = None if history is None else history.d_own(d.positives[:, :k])
        d_e, d_a = encoding.gradients(d.i, d.j, d_own)
        out: Gradients = {"E": (None, d_e + c.reg_head * p["E"])}
        out["theta"] = summed(batch.u, d.users[:, :k] + user_penalty(batch, c, theta) * theta)
        if history is not None and d_own is not None and d_a is not None:
            out |= history.gradients(d.users[:, :k], d_own, d_a, c)
        if layer is not None:
            out |= layer.gradients(p, d.i, d.j, c)
        return out

    of_i, of_j = (encoding.i, encoding.j) if layer is None else (encoding.i + layer.i, encoding.j + layer.j)
    return Term(left, of_i, of_j, gradients, None if history is None else history.itself)


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What E, and with a history A, make of a batch's features.

    Attributes:
        i, j: (B, C), (B, C) or (N, C): E f of positives and negatives. own: (B, K): A f_i, or None.
        gradients: slopes by i, j and own -> by E and by A, without penalties.
    """

    i: Tensor
    j: Tensor
    own: Tensor | None
    gradients: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


def encode_all(p: Params, f: Tensor, batch: Batch) -> Encoding:
    """Positives and shared negatives, by one product with E, and with A, which only the positives want.

    Args:
        f: (B + N, d) features of both.
    """
    n, wide, dtype = len(batch.i), len(p["E"]), p["E"].dtype
    encoded = (f @ torch.cat([p["E"], p["A"]] if "A" in p else [p["E"]]).to(f.dtype).T).to(dtype)

    def gradients(d_i: Tensor, d_j: Tensor, d_own: Tensor | None) -> tuple[Tensor, Tensor | None]:
        d = torch.cat([d_i, d_j])
        if d_own is not None:
            d = torch.cat([d, F.pad(d_own, (0, 0, 0, len(batch.j)))], 1)
        maps = (d.to(f.dtype).T @ f).to(dtype)
        return maps[:wide], None if d_own is None else maps[wide:]

    return Encoding(encoded[:n, :wide], encoded[n:, :wide], encoded[:n, wide:] if "A" in p else None, gradients)


def encode_differences(p: Params, x: Tensor, batch: Batch) -> Encoding:
    """Each positive and a negative of its own, by one product: E (f_i - f_j) stands for i, and zero for j."""
    dtype = p["E"].dtype
    f = difference(x, batch.i, batch.j)
    i = (f @ p["E"].to(f.dtype).T).to(dtype)
    own, f_i = None, f[:0]
    if "A" in p:
        f_i = x.index_select(0, batch.i)
        own = (f_i @ p["A"].to(f.dtype).T).to(dtype)

    def gradients(d_i: Tensor, d_j: Tensor, d_own: Tensor | None) -> tuple[Tensor, Tensor | None]:
        d_e = (d_i.to(f.dtype).T @ f).to(dtype)
        return d_e, None if d_own is None else (d_own.to(f.dtype).T @ f_i).to(dtype)

    return Encoding(i, torch.zeros_like(i), own, gradients)


class History:
    """What a user took, as a taste: (A h_u + sum of s_i y_i) / root of their number, once for each run of positives.

    Attributes:
        taste: (R, K), over the root of the number of the user's other items.
        itself: (B, K) the part of it that each positive gave.
    """

    def __init__(self, p: Params, q: Inputs, h: Tensor, batch: Batch, own: Tensor) -> None:
        """
        Args:
            h: (U, d) sums of the features of each user's items. own: (B, K) A f_i.
        """
        self.p, self.batch = p, batch
        others = q.degree.index_select(0, batch.u)[:, None] - 1
        self.root = torch.where(others > 0, others.rsqrt(), 0.0)
        self.roots = self.root.index_select(0, batch.run)
        self.h = padded(h.index_select(0, batch.u))
        total = (self.h @ p["A"].to(h.dtype).T).to(own.dtype)[: len(batch.u)]
        if batch.taken is not None:
            items, _, starts = batch.taken
            self.s, self.si = q.shrink.index_select(0, items), q.shrink.index_select(0, batch.i)[:, None]
            self.rows, self.rows_i = q.free_rows(items), q.free_rows(batch.i)
            self.y_i = p["y"].index_select(0, self.rows_i)
            total += F.embedding_bag(self.rows, p["y"], starts, mode="sum", per_sample_weights=self.s)
            own = own + self.y_i * self.si
        self.taste, self.itself = total * self.root, own * self.roots

    def d_own(self, d_positives: Tensor) -> Tensor:
        """(B, K) slopes by A f_i + s_i y_i of each positive, which `itself` takes off."""
        return d_positives * -self.roots

    def gradients(self, d_users: Tensor, d_own: Tensor, d_a: Tensor, c: TrainConfig) -> Gradients:
        """Of A, and of y where it is learnt.

        Args:
            d_users: (R, K) slopes by taste. d_a: by A, from `own` alone.
        """
        p, batch, d_total = self.p, self.batch, d_users * self.root
        of_a = (padded(d_total).to(self.h.dtype).T @ self.h).to(d_own.dtype)
        out: Gradients = {"A": (None, of_a.add_(d_a) + c.reg_head * p["A"])}
        if batch.taken is not None:
            _, row, _ = batch.taken
            n = len(batch.i)
            out["y"] = summed(
                torch.cat([self.rows, self.rows_i]),
                torch.cat([d_total, d_own * self.si + c.reg_items / n * self.y_i]),
                torch.cat([row, torch.arange(len(batch.u), len(batch.u) + n, device=row.device)]),
                torch.cat([self.s, torch.ones_like(d_own[:, 0])]),
            )
        return out


def rows_of(values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The rows of the positives and of the negatives."""
    return values.index_select(0, batch.i), values.index_select(0, batch.j)


def ones(batch: Batch, like: Tensor) -> Tensor:
    """(R, 1) the left side of what is the same for every user."""
    return like.new_ones(len(batch.u), 1)


def user_penalty(batch: Batch, c: TrainConfig, like: Tensor) -> Tensor:
    """(R, 1) what a user's parameters are multiplied by: reg_users, and their share of the batch."""
    return c.reg_users / len(batch.i) * batch.length.to(like.dtype)[:, None]


def negative_shares(batch: Batch, like: Tensor) -> Tensor:
    """(B,) or (N,) the share of each negative in the batch."""
    if batch.weight is not None:
        return batch.weight / batch.weight.sum()
    return like.new_full((len(batch.i),), 1 / len(batch.i))


def padded(rows: Tensor) -> Tensor:
    """Zeros added up to a multiple of `SHAPES` rows: the first product of a new shape costs as much as ten."""
    short = -len(rows) % SHAPES
    return torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])])


def difference(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """(n, d) x[i] - x[j] in one pass over the rows."""
    pair = torch.stack([i, j], 1)
    sign = x.new_ones(len(i), 2)
    sign[:, 1] = -1  # set where it is: copied to a GPU, it would be waited for
    return F.embedding_bag(pair, x, per_sample_weights=sign, mode="sum")


__all__ = ["Slopes", "Term", "bias", "latent", "visual"]
