"""Writing the canonical folder that every other stage reads: interactions.csv, items.csv, images.tar.

A table appears complete or not at all; the tar grows image by image, and a stopped run resumes it.
"""

import csv
import dataclasses
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...base.errors import VbprError
from ...base.files import replace_text, replacing, sync
from ...base.locks import locked
from ...base.progress import Progress
from ...base.stopping import Stopped, stop_signals
from ..tables import files_of
from ..where import ALL_ROWS, Rows

MARK = "conversion.json"
PARTIAL = ".images.tar.partial"
MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion made.

    Attributes:
        path: the canonical folder.
        counts: what was counted, in order: name -> number.
        notes: sentences about what was missing or differs from what is published.
    """

    path: Path
    counts: dict[str, int]
    notes: list[str]


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a CSV of columns."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace", newline="") as handle:
        writer = csv.writer(handle)  # which quotes only what is in its ends of lines: with "\n", a "\r" would end one
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def shards(source: Path) -> list[Path]:
    """The files of a source, in order: itself, or the Parquet files below a folder."""
    return [path for path, _ in files_of(source) if path == source or path.suffix == ".parquet"]


def source_mark(source: Path, rows: Rows = ALL_ROWS) -> dict[str, Any]:
    """What tells one source, a file or a folder, and a choice of its rows from another without reading it."""
    files = [path.stat() for path in shards(source) or (path for path, _ in files_of(source))]
    size, modified = sum(status.st_size for status in files), max(status.st_mtime_ns for status in files)
    return {"source": source.name, "size": size, "modified": modified} | ({"rows": rows.rule} if rows else {})


def finished(out: Path, source: Path, rows: Rows = ALL_ROWS) -> Conversion | None:
    """The conversion of this very source that lies there complete, if there is one.

    Raises:
        VbprError: the folder holds something else, or a mark that does not say what it holds.
    """
    mark = out / MARK
    if out.is_file():
        raise VbprError(f"{out} is a file; give convert a folder to write")
    if mark.exists():
        try:
            noted = json.loads(mark.read_text(encoding="utf-8"))
            marked = {key: noted[key] for key in (*source_mark(source), *(["rows"] if "rows" in noted else []))}
            counts = {str(name): int(count) for name, count in noted["counts"].items()} if "counts" in noted else None
            notes = [str(note) for note in noted["notes"]] if counts is not None else []
            files = [str(name) for name in noted.get("files", [])]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise VbprError(f"{mark} is damaged; delete {out} and run again, or choose an empty folder") from error
        if marked != source_mark(source, rows):
            raise VbprError(
                f"{out} holds a conversion of another file or other rows ({marked['source']}); choose an empty folder"
            )
        complete = counts is not None and all((out / name).exists() for name in files)
        return Conversion(out, counts or {}, notes) if complete else None
    if out.is_dir() and any(not p.name.startswith(".") for p in out.iterdir()):
        raise VbprError(f"{out} is not empty; choose an empty folder, so that nothing is overwritten")
    return None


def begin(out: Path, source: Path, rows: Rows = ALL_ROWS) -> None:
    """Note whose conversion the folder is going to hold."""
    replace_text(out / MARK, json.dumps(source_mark(source, rows)) + "\n")


def finish(out: Path, source: Path, counts: dict[str, int], notes: list[str], rows: Rows = ALL_ROWS) -> Conversion:
    """Note that it is complete."""
    files = sorted(path.name for path in out.iterdir() if path.name != MARK and not path.name.startswith("."))
    noted = source_mark(source, rows) | {"counts": counts, "notes": notes, "files": files}
    replace_text(out / MARK, json.dumps(noted, indent=1) + "\n")
    return Conversion(out, counts, notes)


def suffix_of(head: bytes) -> str:
    """The file suffix of encoded image bytes; jpg where unknown, so that extract looks at it and says what it is."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return next((suffix for magic, suffix in MAGIC if head.startswith(magic)), "jpg")


def write_tar(out: Path, images: Iterable[tuple[str, bytes]], total: int) -> None:
    """Write images (item id, encoded bytes) into `images.tar`, in order, one in memory at a time; what an earlier run
    left is kept.

    Raises:
        Stopped: Ctrl-C or SIGTERM.
        VbprError: the disk is full.
    """
    partial = out / PARTIAL
    try:
        with locked(out / "images.tar"):  # another run may just have finished it, or be about to
            append_images(partial, images, total)
            sync(partial)
            partial.replace(out / "images.tar")
            sync(out)
    except OSError as error:
        why = error.strerror or error
        raise VbprError(
            f"{out} could not be written ({why}); free some space, then run the same command again"
        ) from error


def append_images(partial: Path, images: Iterable[tuple[str, bytes]], total: int) -> None:
    """Complete an unfinished tar with those of the images that it does not hold yet.

    Raises:
        Stopped: Ctrl-C or SIGTERM.
        VbprError: it holds others.
    """
    kept, end = members_of(partial)
    with partial.open("ab") as handle, stop_signals() as stopping, Progress("convert", total, "images") as bar:
        handle.truncate(end)
        bar.advance(len(kept))
        for n, (item_id, data) in enumerate(images):
            name = f"{item_id}.{suffix_of(data[:16])}"
            if n < len(kept):
                if kept[n] != (name, len(data)):
                    raise VbprError(f"{partial} is of another conversion; delete {partial.parent} and run again")
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            handle.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
            handle.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
            bar.advance(1)
            if stopping():
                raise Stopped(f"stopped with {n + 1:,} of {total:,} images; run the same command again to resume")
        handle.write(bytes(2 * tarfile.BLOCKSIZE))


def members_of(partial: Path) -> tuple[list[tuple[str, int]], int]:
    """The complete members of an unfinished tar, (name, size), and the byte after the last."""
    members: list[tuple[str, int]] = []
    end, at, long = 0, 0, ""
    if not partial.exists():
        return members, end
    total = partial.stat().st_size
    with partial.open("rb") as handle:
        while at + tarfile.BLOCKSIZE <= total:
            handle.seek(at)
            try:
                info = tarfile.TarInfo.frombuf(handle.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                break
            after = at + tarfile.BLOCKSIZE + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if after > total:
                break
            if info.type == tarfile.GNUTYPE_LONGNAME:  # of over 100 bytes: a member of its own before the image
                long, at = handle.read(info.size).rstrip(b"\0").decode("utf-8", "surrogateescape"), after
                continue
            members.append((long or info.name, info.size))
            long, at = "", after
            end = after
    return members, end


def spans(path: Path, wanted: Iterable[tuple[str, int, int]]) -> Iterator[tuple[str, bytes]]:
    """(item id, bytes) of stretches of a file: (item id, offset, length)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for item_id, offset, length in wanted:
            yield item_id, os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


__all__ = ["Conversion", "begin", "finish", "finished", "shards", "source_mark", "spans", "write_table", "write_tar"]
