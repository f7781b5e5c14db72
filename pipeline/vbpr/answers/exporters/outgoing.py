"""What leaves: vectors of items and users, or a split; and text files of them."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...base.arrays import Array, Strings
from ...base.errors import VbprError
from ...base.progress import Progress
from ...data.parts import MATRICES

HELD = 2**26  # bytes of vectors held at a time, about


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of a catalogue.

    Attributes:
        item_ids: (n,) strings. dim: K.
        rows: (a, b) -> (b - a, K) float32 vectors of items a to b.
        bias: (n,) float32 of a model's items; None of features.
        user_ids, users: (U,) strings, (U, K) float32; None of features.
        seen: (U, n) CSR, what each user has; None of features.
        source: what they are of, in words.
    """

    item_ids: Strings
    dim: int
    rows: Callable[[int, int], Array]
    source: str
    bias: Array | None = None
    user_ids: Strings | None = None
    users: Array | None = None
    seen: Any = None

    def blocks(self, label: str) -> Iterator[tuple[int, Array]]:
        """All vectors some at a time: the first item's position, (m, K) float32."""
        step = max(1, min(4096, HELD // (4 * max(1, self.dim))))
        with Progress(label, len(self.item_ids), "items") as bar:
            for a in range(0, len(self.item_ids), step):
                block = self.rows(a, min(len(self.item_ids), a + step))
                yield a, np.ascontiguousarray(block, np.float32)
                bar.advance(len(block))

    def with_bias(self) -> "Vectors":
        """A model's vectors with one number more, the bias of an item and 1 of a user: their inner product is the
        score, so that whatever finds largest inner products recommends."""
        if self.bias is None or self.users is None:
            return self
        bias, users = self.bias, self.users
        return dataclasses.replace(
            self,
            dim=self.dim + 1,
            rows=lambda a, b: np.append(self.rows(a, b), bias[a:b, None], 1),
            users=np.append(users, np.ones((len(users), 1), np.float32), 1),
            source=f"{self.source}; the last of the {self.dim + 1} numbers is the bias of an item, and 1 of a user",
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Ground:
    """A split, and what else peers may train on.

    Attributes:
        split: of `Parts`: ids and three matrices.
        rule: how it was made, in words.
        times: (train's, validation's, test's) seconds of each pair in the order of `pairs`; None where unknown.
        features: (a, b) -> (b - a, D) float32 of items a to b; None where no features were asked for.
    """

    split: Any
    rule: str
    times: tuple[Array, ...] | None = None
    features: Callable[[Array], Array] | None = None

    def pairs(self, part: int) -> tuple[Array, Array]:
        """(P,) positions of users and items of a part, by user and item."""
        matrix = getattr(self.split, MATRICES[part])
        return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices.astype(np.int64)


def write_ids(path: Path, ids: Strings) -> None:
    """A line an id.

    Raises:
        VbprError: one has a line break.
    """
    names = ids.tolist()
    refuse_signs(names, "\n\r", path.name)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8", newline="")


def refuse_signs(names: Sequence[str], signs: str, what: str) -> None:
    """
    Raises:
        VbprError: an id holds one of these signs, which end a field or a line there.
    """
    for sign in signs:
        found = next((name for name in names if sign in name), None)
        if found is not None:
            raise VbprError(
                f"the id {found!r} holds {sign!r}, which ends a field or a line in {what}; use --to parquet"
            )


def write_npy(path: Path, n: int, dim: int, blocks: Iterable[Array]) -> None:
    """A .npy of (n, dim) float32, some rows at a time."""
    with path.open("wb") as handle:
        about = {"descr": "<f4", "fortran_order": False, "shape": (n, dim)}
        np.lib.format.write_array_header_1_0(handle, about)
        for block in blocks:
            handle.write(np.ascontiguousarray(block, "<f4").data)


def as_texts(block: Array) -> pa.Array:
    """(m, K) float32 as (m,) texts, `0.5,-2`: the shortest that are read back as the very same float32."""
    m, dim = block.shape
    if not dim:
        return pa.array([""] * m, pa.string())
    numbers = pc.cast(pa.array(block.reshape(-1), pa.float32()), pa.string())
    return pc.binary_join(pa.ListArray.from_arrays(np.arange(m + 1, dtype=np.int32) * dim, numbers), ",")


__all__ = ["Ground", "Vectors", "as_texts", "refuse_signs", "write_ids", "write_npy"]
