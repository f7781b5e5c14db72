"""What leaves for other programs: vectors of items and users, and the very split; each kind is a function here and a
line in `VECTORS` or `SPLITS`. Uses stores, data and base; no torch.

export("artifacts/inc.model.h5", "pgvector", "out/pg")
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from .databases import write_pgvector, write_qdrant
from .outgoing import Ground, Vectors
from .splits import write_cornac, write_elliot, write_mmrec, write_recbole
from .vectors import write_arrays, write_faiss, write_parquet, write_tensors


@dataclasses.dataclass(frozen=True)
class VectorExporter:
    """An entry of VECTORS.

    Attributes:
        write: (folder, vectors) -> notes.
        searched: whether it is searched: a model's vectors then have the bias as a number more, and features are less
            their mean, as `similar` compares them.
        unit: whether features must have length 1 for that.
    """

    write: Callable[[Path, Vectors], list[str]]
    searched: bool = False
    unit: bool = False


VECTORS: dict[str, VectorExporter] = {
    "npy": VectorExporter(write_arrays),
    "parquet": VectorExporter(write_parquet),
    "safetensors": VectorExporter(write_tensors),
    "faiss": VectorExporter(write_faiss, searched=True, unit=True),
    "pgvector": VectorExporter(write_pgvector, searched=True),
    "qdrant": VectorExporter(write_qdrant, searched=True),
}

# (folder, the data set's name there, the split) -> notes
SPLITS: dict[str, Callable[[Path, str, Ground], list[str]]] = {
    "recbole": write_recbole,
    "mmrec": write_mmrec,
    "elliot": write_elliot,
    "cornac": write_cornac,
}

__all__ = ["SPLITS", "VECTORS", "VectorExporter"]
