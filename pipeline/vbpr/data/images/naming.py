"""Whose picture each file is: by a table, by its name, or by the folder that it lies in.

images = named(files, table, known)     # -> Images: items in the order of their ids
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ...base.arrays import Array, Strings
from ...base.errors import VbprError, counted, some
from .source import LONGEST_ID, Files, Images, Pictures, as_text, endings, is_image, is_image_name, item_id_of

Known = Callable[[], Strings | None]  # the ids of the interactions' items, or None where there are none


def nobody() -> None:
    """`Known` where there are no interactions."""


class Claim(NamedTuple):
    """A file that is a picture of an item."""

    item_id: str
    row: int


def images_of(files: Files, claims: Iterable[Claim], others: Counter[str]) -> Images:
    """The images of these items, each item's pictures in the order in which they are claimed.

    Raises:
        VbprError: an id that no file can hold.
    """
    ordered = sorted(claims, key=lambda claim: claim.item_id)
    ids = [claim.item_id for claim in ordered]
    for item in ids:  # they are kept in columns as wide as the longest, which end at a NUL
        if len(item) > LONGEST_ID or "\0" in item or not item:
            raise VbprError(f"{files.name}: {item[:40]!r}... is no item id: over {LONGEST_ID} letters, or with a NUL")
    rows = np.array([claim.row for claim in ordered], np.int64)
    first = np.array([not n or ids[n] != ids[n - 1] for n in range(len(ids))], bool)
    item_ids: Strings = np.array([item for item, new in zip(ids, first, strict=True) if new], np.str_)
    if first.all():
        return Images(files, item_ids, rows, others)
    return Images(files, item_ids, rows[first], others, pictures_of(files, rows, np.flatnonzero(first), others))


def pictures_of(files: Files, rows: Array, firsts: Array, others: Counter[str]) -> Pictures:
    """
    Args:
        rows: (M,) the files that are pictures, item after item. firsts: (I,) where each item's begin in them.
    """
    distinct, seen, inverse = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(seen)  # of the items, each with its pictures
    at = np.empty(len(order), np.int64)
    at[order] = np.arange(len(order))
    ids: Strings = np.array([picture_id(files.paths[row]) for row in distinct[order].tolist()], np.str_)
    if len(set(ids.tolist())) < len(ids):
        raise VbprError(f"{files.name} has two files of one name in different shards; give them names of their own")
    return Pictures(Images(files, ids, distinct[order], others), np.append(firsts, len(rows)), at[inverse])


def picture_id(path: str) -> str:
    """A picture's id in a feature file of pictures: its path, of a very long one the end."""
    text = as_text(path)
    return text if len(text) <= LONGEST_ID else "..." + text[3 - LONGEST_ID :]


def looked_at(files: Files) -> list[int]:
    """Which files are taken for images: those named like one, and those without an ending whose content is one."""
    return [
        row
        for row, path in enumerate(files.paths)
        if is_image_name(path) or ("." not in path.rsplit("/", 1)[-1] and is_image(files.head(row)))
    ]


def by_name(files: Files, known: Known) -> Images:
    """Each file the picture of the item that it is named after; where names repeat in every folder, of the item that
    its folder is named after.

    Raises:
        VbprError: two files are named after one item.
    """
    rows = looked_at(files)
    taken = set(rows)
    others = files.passed + endings(path for row, path in enumerate(files.paths) if row not in taken)
    stems = [item_id_of(files.paths[row]) for row in rows]
    paths = [as_text(files.paths[row]) for row in rows]
    if all("/" in path for path in paths):
        naming = folders_if_items(paths, stems, known)
        if naming is not None:
            order = sorted(range(len(rows)), key=lambda n: (naming[n], natural(paths[n])))
            return images_of(files, [Claim(naming[n], rows[n]) for n in order], others)
    images = images_of(files, [Claim(stem, row) for stem, row in zip(stems, rows, strict=True)], others)
    if images.pictures is not None:
        starts, places = images.pictures.starts, images.pictures.places
        twice = int(np.argmax(np.diff(starts) > 1))
        one, two = (images.pictures.source.item_ids[places[starts[twice] + n]] for n in (0, 1))
        raise VbprError(
            f"{files.name}: {one} and {two} are both the image of item {images.item_ids[twice]}; keep one, or say in "
            "images.csv (item_id,file) whose picture each file is"
        )
    return images


def folders_if_items(paths: Sequence[str], stems: Sequence[str], known: Known) -> list[str] | None:
    """The folder of each picture, if folders are named after items and pictures are not; else None.

    Where pictures are numbered anew in every folder, that alone tells. Otherwise the interactions do: they name the
    folders and not the pictures.
    """
    parents = [path.rsplit("/", 1)[0] for path in paths]
    folders = len(set(parents))
    repeated = len(set(stems)) < len(stems)
    numbers = all(stem.isdigit() for stem in stems)
    if not repeated and (not numbers or len(paths) > MOST_A_FOLDER * folders or shelved(parents, stems)):
        return None
    ids = known()
    last = [parent.rsplit("/", 1)[-1] for parent in parents]
    if ids is not None:
        items = set(ids.tolist())
        whole = [path.rsplit(".", 1)[0] for path in paths]  # an id with slashes
        names = {
            key: sum(name in items for name in set(naming)) for key, naming in enumerate((stems, last, parents, whole))
        }
        best = max(names, key=lambda key: names[key])
        if names[best]:
            return [None, last, parents, whole][best]
    return parents if repeated and numbers and len(set(last)) < folders else last if repeated and numbers else None


MOST_A_FOLDER = 50  # pictures of an item; in a folder that holds more of them they are of many items


def shelved(parents: Sequence[str], stems: Sequence[str]) -> bool:
    """Whether folders are but shelves for what begins like them: `010/0108775015.jpg`."""
    return all(stem.startswith(parent.rsplit("/", 1)[-1]) for parent, stem in zip(parents, stems, strict=True))


def natural(path: str) -> tuple[tuple[int, str], ...]:
    """A key by which `2.jpg` comes before `10.jpg`."""
    parts = re.split(r"(\d+)", path)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def without_images(files: Files) -> str:
    """What a source without images has, for the message."""
    kinds = (files.passed + endings(files.paths)).most_common()
    names = some(
        f"{count:,} {'without ending' if kind == 'no ending' else 'that end in ' + kind}" for kind, count in kinds
    )
    if not kinds:
        return ""
    return (
        f"; it has {counted(sum(n for _, n in kinds), 'file')}, {names}: if they are images, end their names "
        "so, or say in images.csv (item_id,file) whose they are"
    )


__all__ = ["Claim", "Known", "by_name", "images_of", "looked_at", "natural", "nobody", "without_images"]
