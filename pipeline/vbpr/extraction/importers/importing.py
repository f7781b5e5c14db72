"""Features made elsewhere into a feature file, in two passes over the source: the first looks, the second writes.

done = import_features("image_feat.npy", "artifacts/clip.h5", ids="items.txt"); done.written

The first pass finds rows that are not finite, and the largest number: float16, in which features are kept, ends at
65,504, and has few bits left under 6e-5. Where the numbers do not fit, all are scaled by one power of two, which loses
nothing and changes no model: training standardises its features.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...base.arrays import Array, Strings
from ...base.errors import VbprError, counted, some
from ...base.progress import Progress
from ...base.stopping import Stopped, stop_signals
from ...base.targets import check_target
from ...data.dataset import Dataset
from ...data.same_ids import refuse_two_ways, written_in_two_ways
from ...stores.features.layout import BLOCK, DONE, ELSEWHERE
from ...stores.features.store import FeatureStore
from . import open_source
from .folders import CUT, OTHER_WIDTH, UNREADABLE
from .incoming import NUMBERS, Incoming, Told
from .parquet import NO_VECTOR

NOT_FINITE = "not finite"
REASONS = [NOT_FINITE, NO_VECTOR, OTHER_WIDTH, CUT, UNREADABLE, "other"]
HELD = 2**26  # bytes of rows held at a time, about
LARGEST, SMALLEST = float(np.finfo(np.float16).max), float(np.finfo(np.float16).tiny)
FAINT = 2.0**-8  # of features that are all smaller, float16 would lose bits


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        path: of the feature file. source: what it was made from, in words.
        items: rows in it. written: rows written now. failures: (item id, reason) of rows that could not be used.
        scale: by which all numbers were multiplied. notes: what the user is to know.
    """

    path: Path
    source: str
    items: int
    dim: int
    written: int
    failures: list[tuple[str, str]]
    scale: float
    notes: list[str]


def import_features(
    source: Path | str,
    out: Path | str,
    *,
    ids: str = "",
    column: str = "",
    id_column: str = "",
    duplicates: str = "refuse",
    max_bad: float = 0.05,
    data: Dataset | Path | str | None = None,
) -> Imported:
    """Make a feature file of features from elsewhere. A stopped or killed run resumes; a source that has changed is
    read anew.

    Args:
        ids, column, id_column: see `Told`.
        duplicates: of an item that comes twice: refuse, or first.
        max_bad: the largest share of rows that may be unusable.
        data: the data set that the features are for, whose items are counted; its name is kept in the file.

    Raises:
        VbprError: no importer takes it; ids are missing, too many or too few, or come twice; too many bad rows; none of
            the data set's items has a row; or see `Writer.create`.
        Stopped: Ctrl-C or SIGTERM.
    """
    source, path = Path(source), Path(out)
    if duplicates not in ("refuse", "first"):
        raise VbprError(f"--duplicates {duplicates} is not known; choose refuse or first")
    if not 0 <= max_bad <= 1:
        raise VbprError(f"--max-bad is {max_bad}; it must be from 0 to 1")
    check_target(path, "features")
    dataset = None if data is None else Dataset.resolve(data)
    known = None if dataset is None else dataset.interactions().item_ids
    kind, rows = open_source(source, Told(ids, column, id_column, known))
    kept, notes = distinct_rows(rows.ids, duplicates, source)
    item_ids, notes = rows.ids[kept], [*rows.notes, *notes]
    if dataset is not None and known is not None:
        notes += compared(item_ids, known, dataset, source)
    request = {
        "source": str(source.resolve()),
        "kind": kind,
        "ids": str(Path(ids).resolve()) if ids and ids != NUMBERS else ids,
        "ids_from": rows.ids_from,
        "column": rows.column,
        "id_column": id_column,
        "duplicates": duplicates,
        "mark": mark_of(source, *([Path(ids)] if ids and ids != NUMBERS else [])),
    }
    scale = scale_in(path, request)
    if scale is None:
        with stop_signals() as stopping:
            scale, seen = look_through(rows, kept, source, max_bad, stopping)
        notes += seen
    name = "" if dataset is None else dataset.name
    about = provenance_of(path, source, rows, request, scale, name, dataset is not None and dataset.simulated)
    signature = np.uint64(
        int.from_bytes(hashlib.blake2b(request["mark"].encode(), digest_size=8).digest(), "little") | 1
    )
    signatures = np.full(len(item_ids), signature)
    with FeatureStore.create(path, item_ids, signatures, rows.dim, about) as store:
        written = write(store, rows, kept, scale)
        failures = store.failures()
        refuse_bad([item for item, _ in failures], len(store), source, max_bad)
        items = len(store)
    said = f"{kind} {source.name}" + f", {rows.column}" * bool(rows.column)
    return Imported(path, f"{said}; ids: {rows.ids_from}", items, rows.dim, written, failures, scale, notes)


def distinct_rows(ids: Strings, duplicates: str, source: Path) -> tuple[Array, list[str]]:
    """The rows to keep, in order: of an item that comes again, the first.

    Raises:
        VbprError: an item comes again, and that is not wanted.
    """
    _, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(first) == len(ids):
        return np.arange(len(ids)), []
    twice = sorted(first[counts > 1].tolist())
    names = some(str(ids[row]) for row in twice)
    if duplicates == "refuse":
        rows = np.flatnonzero(ids == ids[twice[0]]) + 1
        raise VbprError(
            f"{source}: {counted(len(twice), 'item')} come more than once ({names}; {ids[twice[0]]} in rows "
            f"{', '.join(map(str, rows[:3].tolist()))}); make one row of each, or take the first: --duplicates first"
        )
    return np.sort(first), [
        f"{len(ids) - len(first):,} further rows of {counted(len(twice), 'item')} left out ({names})"
    ]


def compared(item_ids: Strings, known: Strings, dataset: Dataset, source: Path) -> list[str]:
    """How the rows and the items of a data set go together.

    Raises:
        VbprError: no item has a row, or many are written in another way there.
    """
    have = np.isin(known, item_ids)
    if not have.any():
        here, there = next(iter(written_in_two_ways(known, item_ids)), (known[0], item_ids[0]))
        raise VbprError(
            f"none of the {counted(len(known), 'item')} of {dataset.title} has a row in {source} (there {here}, here "
            f"{there}); give the ids as the interactions have them, with --ids or --id-column"
        )
    refuse_two_ways(known, item_ids, str(source))
    lacking = known[~have]
    rest = f", {len(lacking):,} not (first: {lacking[0]})" if len(lacking) else ""
    spare = len(item_ids) - int(have.sum())
    return [
        f"{int(have.sum()):,} of {counted(len(known), 'item')} in the interactions of {dataset.title} have a row{rest};"
        f" {counted(spare, 'row')} of other items"
    ]


def mark_of(*sources: Path) -> str:
    """What tells files and folders from others, or from what they were before, without reading them."""
    folders = [sorted(source.rglob("*")) if source.is_dir() else [source] for source in sources]
    files = [file for folder in folders for file in folder if file.is_file()]
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        status = file.stat()
        total.update(json.dumps([file.name, status.st_size, status.st_mtime_ns]).encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def scale_in(path: Path, request: dict[str, Any]) -> float | None:
    """The scale of a feature file that an earlier run of this very request has begun; None where there is none."""
    if not path.is_file():
        return None
    about = FeatureStore(path).provenance
    return float(about["scale"]) if about.get("imported") == request else None


def provenance_of(
    path: Path, source: Path, rows: Incoming, request: dict[str, Any], scale: float, data: str, simulated: bool
) -> dict[str, Any]:
    """What the file is to say of itself; see `layout.PROVENANCE`."""
    scaled = f", scaled by {scale:g}" if scale != 1 else ""
    how = f"{request['kind']} {source.name}" + f" {rows.column}" * bool(rows.column) + scaled
    told = json.dumps({key: request[key] for key in request if key != "mark"} | {"scale": scale}, sort_keys=True)
    return {
        "backbone": path.name.split(".")[0],
        "weights": ELSEWHERE,
        "weights_file": None,
        "dim": rows.dim,
        "preprocessing": how,
        "precision": "float16",
        "fingerprint": f"imported {hashlib.blake2b(told.encode(), digest_size=16).hexdigest()}",
        "data": data,
        "simulated": simulated,
        "reasons": REASONS,
        "versions": {"vbpr": version("vbpr")},
        "scale": scale,
        "imported": request,
    }


def stretches(kept: Array, dim: int) -> Iterator[tuple[int, int]]:
    """Rows of the feature file a stretch at a time, in order, so that few bytes are held: places in `kept`."""
    step = max(1, min(BLOCK, HELD // (8 * dim)))
    return ((a, min(len(kept), a + step)) for a in range(0, len(kept), step))


def rows_of(rows: Incoming, kept: Array, a: int, b: int) -> Array:
    """(b - a, D) the kept rows a to b of a source."""
    first, last = int(kept[a]), int(kept[b - 1]) + 1
    values = rows.read(first, last)
    return values if len(values) == b - a else values[kept[a:b] - first]


def look_through(
    rows: Incoming, kept: Array, source: Path, max_bad: float, stopping: Callable[[], bool]
) -> tuple[float, list[str]]:
    """The power of two by which all numbers must be multiplied for float16, and notes on what was seen.

    Raises:
        VbprError: too many rows are not finite.
        Stopped: Ctrl-C or SIGTERM.
    """
    largest, zeros, bad = np.zeros(rows.dim), 0, list[int]()
    with Progress("look through", len(kept), "rows") as bar:
        for a, b in stretches(kept, rows.dim):
            values = rows_of(rows, kept, a, b)
            good = np.isfinite(values).all(1) if values.dtype.kind == "f" else np.ones(b - a, bool)
            bad += (np.flatnonzero(~good) + a).tolist()
            sizes = np.abs(values[good] if not good.all() else values)
            zeros += int((~sizes.any(1)).sum())
            if len(sizes):
                largest = np.maximum(largest, sizes.max(0).astype(np.float64))
            bar.advance(b - a)
            if stopping():
                raise Stopped("stopped before anything was written; run the same command again")
    refuse_bad([str(rows.ids[kept[at]]) for at in bad], len(kept), source, max_bad)
    top = float(largest.max())
    if not top:
        raise VbprError(f"{source}: every number is 0; give features that tell items apart")
    scale = (
        1.0
        if FAINT <= top <= LARGEST
        else float(2.0 ** (15 - np.ceil(np.log2(top)) if top > LARGEST else -np.floor(np.log2(top))))
    )
    notes = []
    if scale != 1:
        why = "over 65,504, the largest that float16 has" if top > LARGEST else "so small that float16 would lose bits"
        notes.append(f"numbers of up to {top:.3g} are {why}: all are multiplied by {scale:g}, which changes no model")
    if faint := int(((largest > 0) & (largest * scale < SMALLEST)).sum()):
        notes.append(f"{counted(faint, 'column')} hold numbers too small beside the largest for float16")
    if zeros:
        notes.append(
            f"{counted(zeros, 'row')} of nothing but 0: is that how their maker writes that there is no picture?"
        )
    return scale, notes


def refuse_bad(bad: list[str], total: int, source: Path, max_bad: float) -> None:
    """
    Raises:
        VbprError: all rows are bad, or too many.
    """
    if len(bad) > max_bad * total or len(bad) == total:
        raise VbprError(
            f"{len(bad):,} of {counted(total, 'row')} of {source} cannot be used (not finite, missing, or of another "
            f"width; first: {some(bad)}), more than --max-bad {max_bad:g}; mend them or raise it"
        )


def write(store: Any, rows: Incoming, kept: Array, scale: float) -> int:
    """Write the rows that are pending; how many.

    Raises:
        Stopped: Ctrl-C or SIGTERM.
    """
    pending, written = len(store.pending), 0
    with Progress("import", pending, "rows") as bar, stop_signals() as stopping:
        for a, b in stretches(kept, rows.dim):
            todo = np.flatnonzero(store.state[a:b] == 0)
            if not len(todo):
                continue
            values = rows_of(rows, kept, a, b)[todo]
            good = np.isfinite(values).all(1) if values.dtype.kind == "f" else np.ones(len(values), bool)
            if good.any():
                store.write(todo[good] + a, values[good] if scale == 1 else values[good].astype(np.float64) * scale)
            lost = todo[~good] + a
            store.fail(lost, [rows.faults.get(int(row), NOT_FINITE) for row in kept[lost]])
            written += int(good.sum())
            bar.advance(len(todo))
            if stopping() and len(store.pending):
                done = int((store.state == DONE).sum())
                raise Stopped(
                    f"stopped with {done:,} of {len(store):,} rows in {store.path}; run the same command again to "
                    "resume"
                )
    return written


__all__ = ["Imported", "import_features"]
