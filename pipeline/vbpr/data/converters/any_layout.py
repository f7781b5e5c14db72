"""A layout that `--data` reads as it is, as the canonical folder: one table of the rows that were chosen."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from ...base.files import replacing
from ..dataset import Dataset
from ..where import Rows
from .canonical import Conversion, begin, finish, finished, write_table

PARTS = ("train", "validation", "test")


def convert_layout(source: Path, out: Path, rows: Rows) -> Conversion:
    """Write interactions.parquet and items.csv; images stay where they are.

    Raises:
        VbprError: see `Dataset.interactions`.
    """
    done = finished(out, source, rows)
    if done is not None:
        return done
    data = Dataset(source, rows)
    x, items = data.interactions(), data.items()
    columns = {
        "user_id": pa.DictionaryArray.from_arrays(pa.array(x.users), pa.array(x.user_ids.tolist())),
        "item_id": pa.DictionaryArray.from_arrays(pa.array(x.items), pa.array(x.item_ids.tolist())),
    }
    if x.times is not None:
        columns["timestamp"] = pa.array(x.times)
    if x.splits is not None:
        columns["split"] = pa.DictionaryArray.from_arrays(pa.array(x.splits.astype("int32")), pa.array(PARTS))
    begin(out, source, rows)
    with replacing(out / "interactions.parquet") as temporary:
        pyarrow.parquet.write_table(pa.table(columns), temporary)
    if items:
        ids = sorted(set().union(*(items[name] for name in items)))
        write_table(
            out / "items.csv", {"item_id": ids, **{name: [items[name].get(i, "") for i in ids] for name in items}}
        )
    notes = [f"vbpr train --data {source} reads this layout as it is, too"]
    if data.holds_images():
        notes.append(f"the images stay in {data.pictures()}: link them into {out} as images")
    counts = {"users": len(x.user_ids), "items": len(x.item_ids), "interactions": len(x)}
    return finish(out, source, counts, [*([x.rows] if x.rows else []), *notes], rows)


__all__ = ["convert_layout"]
