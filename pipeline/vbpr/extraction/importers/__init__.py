"""Features made elsewhere become a feature file: each kind of source is a file here and a line in `IMPORTERS`. Uses
data, stores and base; no torch.

import_features("image_feat.npy", "artifacts/clip.h5", ids="items.txt")
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ...base.errors import VbprError
from .arrays import is_array, open_array
from .folders import is_clip_retrieval, is_folder_of_arrays, open_clip_retrieval, open_folder
from .hdf5 import is_hdf5, open_hdf5
from .incoming import Incoming, Told
from .mcauley import is_record_file, open_records
from .parquet import is_parquet, open_parquet
from .tensors import is_tensors, open_tensors


@dataclasses.dataclass(frozen=True)
class Importer:
    """An entry of IMPORTERS.

    Attributes:
        takes: whether a file or folder is of this kind, by its name.
        open: (source, what the user says of it) -> its rows and ids.
        about: a line for the help.
    """

    takes: Callable[[Path], bool]
    open: Callable[[Path, Told], Incoming]
    about: str


# The first that takes a source reads it.
IMPORTERS: dict[str, Importer] = {
    "numpy": Importer(is_array, open_array, "a matrix in .npy or .npz, with --ids"),
    "mcauley": Importer(is_record_file, open_records, "image_features_*.b of the Amazon reviews"),
    "safetensors": Importer(is_tensors, open_tensors, ".safetensors, a matrix or a tensor an item"),
    "hdf5": Importer(is_hdf5, open_hdf5, ".h5 of other programs, a data set of vectors and one of ids"),
    "clip-retrieval": Importer(is_clip_retrieval, open_clip_retrieval, "a folder with img_emb/ and metadata/"),
    "parquet": Importer(is_parquet, open_parquet, ".parquet, or a folder of them, with a column of lists of numbers"),
    "files": Importer(is_folder_of_arrays, open_folder, "a folder of one .npy an item, as Ducho writes"),
}


def open_source(path: Path, told: Told) -> tuple[str, Incoming]:
    """The kind of a source, and the source itself.

    Raises:
        VbprError: there is none, or no importer takes it.
    """
    if not path.exists():
        raise VbprError(f"{path} does not exist; give a file or folder of features")
    for kind, importer in IMPORTERS.items():
        if importer.takes(path):
            return kind, importer.open(path, told)
    known = "; ".join(importer.about for importer in IMPORTERS.values())
    if path.suffix.lower() in (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".bin"):
        raise VbprError(
            f"{path} may hold a program, and is not read; save its numbers: np.save('features.npy', features.numpy()), "
            "or as safetensors"
        )
    raise VbprError(f"{path}: no importer knows this; known are {known}")


__all__ = ["IMPORTERS", "Importer", "open_source"]
