"""The best items of many users: a product of few columns bounds every score, and the few that may count are computed.

With R a rotation of the K axes, u' = u R and v' = v R, and the first d of these axes,

    u.v + b = u'.v' + b <= u'_d.v'_d + b + |u'_rest| |v'_rest|        (Cauchy-Schwarz)

which is one product of d + 2 columns. On axes of falling energy few are needed (FEXIPRO: Li et al., SIGMOD 2017). The
answer is exact, and no score hangs on who else is asked for.
"""

import dataclasses

import numpy as np

from ...base.arrays import Array

SAMPLE_USERS, SAMPLE_ITEMS = 32, 8192  # on which the number of axes is chosen
CANDIDATE = 6000.0  # what scoring one candidate costs, in products of one column and one item
SLACK = 1e-4  # of the greatest score that lengths allow: more than float32 loses
HELD = 2**21  # candidates that wait to be scored at most


@dataclasses.dataclass(frozen=True, eq=False)
class Bounds:
    """Item vectors prepared for bounding.

    Attributes:
        vectors, bias: (I, K) and (I,) float32, as they are.
        axes: (K, d) float32, orthonormal. rows: (I, d + 2) float32: the vector along these axes, its bias, and the
            length of the rest. longest: of all vectors; largest: of all biases.
    """

    vectors: Array
    bias: Array
    axes: Array
    rows: Array
    longest: float
    largest: float

    @classmethod
    def of(cls, tastes: Array, vectors: Array, bias: Array, k: int) -> "Bounds":
        """Choose the axes on a sample.

        Args:
            tastes: (n, K), of those who are going to be asked for.
        """
        users = tastes[:: max(1, len(tastes) // SAMPLE_USERS)][:SAMPLE_USERS]
        step = max(1, len(vectors) // SAMPLE_ITEMS)
        some, theirs = np.ascontiguousarray(vectors[::step][:SAMPLE_ITEMS]), bias[::step][:SAMPLE_ITEMS]
        turned = np.linalg.eigh(some.T.astype(np.float64) @ some)[1][:, ::-1].astype(np.float32)
        rank, scores = vectors.shape[1], users @ some.T + theirs
        best = np.partition(scores, len(theirs) - min(k, len(theirs)), 1)[:, len(theirs) - min(k, len(theirs)), None]
        best = best if step < 2 else scores.max(1, keepdims=True)  # of a sample, about where the k best of all begin
        costs = {}
        for d in sorted({*(n for n in (8, 16, 24, 32, 48, 64, 96) if n < rank), rank}):
            axes = np.ascontiguousarray(turned[:, :d])
            bound = extended(users, np.ones(len(users), np.float32), axes) @ extended(some, theirs, axes).T
            costs[d] = d + CANDIDATE * float((bound > best).mean())
        axes = np.ascontiguousarray(turned[:, : min(costs, key=costs.__getitem__)])
        lengths = np.einsum("nd,nd->n", vectors, vectors)
        return cls(
            vectors,
            bias,
            axes,
            extended(vectors, bias, axes),
            float(lengths.max(initial=0)) ** 0.5,
            float(np.abs(bias).max(initial=0)),
        )

    def scores(self, tastes: Array, who: Array, items: Array) -> Array:
        """(m,) float32 scores of pairs, each by itself. Args: tastes: (n, K). who, items: (m,) positions."""
        out = np.empty(len(who), np.float32)
        for a in range(0, len(who), 4096):
            pairs = tastes[who[a : a + 4096]], self.vectors[items[a : a + 4096]]
            out[a : a + 4096] = np.einsum("nd,nd->n", *pairs)
        return out + self.bias[items]


def extended(vectors: Array, last: Array, axes: Array) -> Array:
    """(n, d + 2): vectors along axes, a number each, and the length of what the axes leave out, rounded up."""
    rows = np.empty((len(vectors), axes.shape[1] + 2), np.float32)
    for a in range(0, len(vectors), 65536):
        some = vectors[a : a + 65536]
        along = some @ axes
        whole, part = np.einsum("nd,nd->n", some, some), np.einsum("nd,nd->n", along, along)
        rows[a : a + 65536, :-2] = along
        rows[a : a + 65536, -1] = np.sqrt(np.maximum(whole - part, 0) + 1e-5 * whole)
    rows[:, -2] = last
    return rows


class Best:
    """The k best items so far of each of n users, and pairs that wait to be scored."""

    def __init__(self, bounds: Bounds, tastes: Array, k: int, taken: tuple[Array, Array] | None) -> None:
        """
        Args:
            tastes: (n, K). taken: users and items, pair by pair, users in order and each one's items too: what they
                must not get.
        """
        self.bounds, self.tastes, self.count = bounds, tastes, len(bounds.bias)
        self.rows = extended(tastes, np.ones(len(tastes), np.float32), bounds.axes)
        self.items, self.values = np.full((len(tastes), k), -1), np.full((len(tastes), k), -np.inf, np.float32)
        self.barred = None if taken is None else taken[0].astype(np.int64) * self.count + taken[1]
        length = np.sqrt(np.einsum("nd,nd->n", tastes, tastes))
        self.slack = np.float32(SLACK) * (length * np.float32(bounds.longest) + np.float32(bounds.largest))
        self.floor = np.full(len(tastes), -np.inf, np.float32)
        self.waiting: list[tuple[Array, Array]] = []
        self.held = 0

    def first(self, stop: int) -> None:
        """Begin with the items before `stop`, all of which are scored."""
        k = self.values.shape[1]
        scores = self.tastes @ self.bounds.vectors[:stop].T + self.bounds.bias[:stop]
        if self.barred is not None:
            who, item = np.divmod(self.barred, self.count)
            scores[who[item < stop], item[item < stop]] = -np.inf
        good = np.isfinite(scores)
        if stop > k:
            good &= scores >= (np.partition(scores, stop - k, 1)[:, stop - k] - self.slack)[:, None]
        who, items = np.divmod(np.flatnonzero(good), stop)
        self.wait(who, items)
        self.settle()

    def look(self, first: int, stop: int, memory: Array) -> None:
        """Find which of the items from `first` to `stop` may be among the best, in `memory`."""
        bound = memory[: len(self.rows) * (stop - first)].reshape(len(self.rows), -1)
        np.matmul(self.rows, self.bounds.rows[first:stop].T, out=bound)
        hits = np.flatnonzero(bound > self.floor[:, None])  # of one dimension: several times as fast
        if len(hits):
            who, column = np.divmod(hits, stop - first)
            self.wait(who, column + first)

    def wait(self, who: Array, items: Array) -> None:
        """Keep pairs until they are scored."""
        self.waiting.append((who, items))
        self.held += len(who)
        if self.held > HELD:
            self.settle()

    def settle(self) -> None:
        """Score what waits, and bring it into the best."""
        if not self.held:
            return
        who, items = (np.concatenate(parts) for parts in zip(*self.waiting, strict=True))
        self.waiting, self.held = [], 0
        if self.barred is not None and len(self.barred):
            pairs = who * self.count + items
            free = self.barred[np.minimum(np.searchsorted(self.barred, pairs), len(self.barred) - 1)] != pairs
            who, items = who[free], items[free]
        scores, k = self.bounds.scores(self.tastes, who, items), self.values.shape[1]
        changed = np.unique(who)
        who = np.concatenate([np.repeat(changed, k), who])
        items = np.concatenate([self.items[changed].ravel(), items])
        scores = np.concatenate([self.values[changed].ravel(), scores])
        order = np.lexsort((items, -scores, who))
        order = order[np.arange(len(who)) - np.searchsorted(who[order], who[order]) < k]
        self.items[changed], self.values[changed] = items[order].reshape(-1, k), scores[order].reshape(-1, k)
        self.floor = self.values[:, -1] - self.slack


__all__ = ["Best", "Bounds"]
