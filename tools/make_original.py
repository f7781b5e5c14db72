"""Make a small file of exactly the structure of DVBPR's original data sets, as Python 2 would have pickled it.

    python tools/make_original.py pipeline/vbpr/sample AmazonFashion6ImgPartitioned.npy

Protocol 2, text keys from JSON beside bytes keys (`productid`, and all of Item's), encoded images as Python 2 strings,
a boolean array `c` an item, and fields missing here and there. The source is any folder that vbpr reads.
"""

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np

Told = dict[Any, Any]
CLASSES = 6


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]  # the C one cannot be told how to write bytes
    """Protocol 2 as Python 2 wrote it: bytes are `str`, and NumPy lives in numpy.core."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        if len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value)
        else:
            self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def save_global(self, value: Any, name: str | None = None) -> None:
        if getattr(value, "__module__", "").startswith("numpy._core"):
            self.write(f"cnumpy.core.multiarray\n{value.__name__}\n".encode())
            self.memoize(value)
        else:
            super().save_global(value, name)


def write_original(path: Path, parts: list[dict[int, list[Told]]], items: dict[int, Told]) -> None:
    """Write [train, validation, test, items, usernum, itemnum] as the originals are."""
    array = np.empty(6, object)
    for n, part in enumerate((*parts, items, len(parts[0]), len(items))):
        array[n] = part
    with path.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, {"descr": "|O", "fortran_order": False, "shape": (6,)})
        Python2Pickler(handle, protocol=2).dump(array)


def from_folder(folder: Path) -> tuple[list[dict[int, list[Told]]], dict[int, Told]]:
    """Users, interactions and items of a canonical folder in the original's terms."""
    from vbpr.data.dataset import Dataset
    from vbpr.data.split import Split, SplitConfig

    data = Dataset(folder)
    interactions, images, known = data.interactions(), data.images(), data.items()
    split = Split.make(interactions, SplitConfig("random"), catalogue=images.item_ids)
    picture = {str(item): n for n, item in enumerate(images.item_ids)}
    categories = sorted(set(known.get("category", {}).values()))
    items: dict[int, Told] = {}
    for i, item_id in enumerate(map(str, split.item_ids)):
        told: Told = {b"asin": item_id.encode(), b"related": {b"also_viewed": [b"B000000000"]}}
        if title := known.get("title", {}).get(item_id):
            told[b"title"] = title.encode()
        if category := known.get("category", {}).get(item_id):
            told[b"categories"] = [[b"Clothing", category.encode()]]
            told[b"c"] = np.arange(CLASSES) == categories.index(category) % CLASSES
        if item_id in picture:
            told[b"imgs"] = images.read(picture[item_id])
        items[i] = told
    parts: list[dict[int, list[Told]]] = []
    for matrix in (split.train, split.validation, split.test):
        part: dict[int, list[Told]] = {}
        for u, user_id in enumerate(map(str, split.user_ids)):
            row = matrix.indices[matrix.indptr[u] : matrix.indptr[u + 1]]
            part[u] = [
                {
                    "reviewerID": user_id,
                    "asin": str(split.item_ids[i]),
                    "overall": 5.0,
                    "unixReviewTime": 1_400_000_000 + u,
                    b"productid": int(i),
                }
                for i in row
            ]
        parts.append(part)
    return parts, items


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_original(given.out, *from_folder(given.folder))
    print(f"{given.out}: {given.out.stat().st_size:,} bytes")
