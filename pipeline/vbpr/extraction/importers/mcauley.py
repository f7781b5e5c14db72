"""The image features that McAuley's group publishes with Amazon's reviews: `image_features_Women.b`, records of a
product id of 10 bytes and 4,096 float32 numbers, one after another.

http://jmcauley.ucsd.edu/data/amazon/  (He & McAuley, 2016)
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...base.arrays import Array
from ...base.errors import VbprError, counted
from ...base.progress import Progress
from .ids import cleaned
from .incoming import Incoming, Reading, Told

ID, DIM = 10, 4096
RECORD = ID + 4 * DIM  # bytes
PRINTABLE = re.compile(rb"[!-~]+[\0 ]*")  # an id; shorter ones are filled up


def is_record_file(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".b"


def open_records(path: Path, told: Told) -> Incoming:
    """Ids are read at once, a record's 10 bytes each; features as they are asked for.

    Raises:
        VbprError: the last record is cut short, or an id is none: something before it has another length.
    """
    if told.ids or told.column or told.id_column:
        raise VbprError(f"{path} has the id of each product with its features; leave --ids, --column, --id-column out")
    file = Reading(path)
    n, rest = divmod(file.size, RECORD)
    if rest:
        whole = "" if rest < ID else f" of item {bytes(file.bytes(n * RECORD, ID)).decode('ascii', 'backslashreplace')}"
        raise VbprError(
            f"{path} ends in the middle of a record: number {n + 1:,}{whole} has {rest:,} of its {RECORD:,} bytes. "
            f"Fetch the file again; or, to use the {counted(n, 'record')} before it, cut it off: "
            f"truncate -s {n * RECORD} {path}"
        )
    if not n:
        raise VbprError(f"{path} is empty; fetch it again")
    names, short = [], 0
    with Progress("read ids", n, "records") as bar:
        for start in range(0, n, 4096):
            for row in range(start, min(n, start + 4096)):
                raw = bytes(file.bytes(row * RECORD, ID))
                if not PRINTABLE.fullmatch(raw):
                    raise VbprError(
                        f"{path}: record {row + 1:,} (byte {row * RECORD:,}) begins with {raw!r}, no product id; "
                        f"records are {ID} bytes of id and {DIM:,} float32 numbers, and this or one before it is not"
                    )
                name = raw.rstrip(b"\0 ")
                short += len(name) < ID
                names.append(name.decode())
            bar.advance(min(4096, n - start))
    ids, _ = cleaned(pa.chunked_array([pa.array(names, pa.string())]), str(path))
    note = f"{counted(short, 'id')} of under {ID} letters, filled up in the file; taken without what fills them up"

    def read(a: int, b: int) -> Array:
        records = file.array(a * RECORD, np.uint8, (b - a, RECORD))
        return np.ascontiguousarray(records[:, ID:]).view("<f4")

    return Incoming(ids, DIM, read, "the records", notes=(note,) if short else ())


__all__ = ["is_record_file", "open_records"]
