"""The very split for other libraries, in the files that each of them reads, so that peers are measured on the same.

RecBole: benchmark files (`NAME.train.inter`, ...). MMRec: one `.inter` with `x_label`, users and items as numbers.
Elliot and Cornac: a table without header for each part.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...base.arrays import Array, Strings
from ...base.errors import VbprError, counted
from ...data.parts import MATRICES
from .outgoing import Ground, refuse_signs, write_ids, write_npy

ONE = "1.0"  # of the ratings: whoever took an item liked it
ROWS = 65_536  # lines at a time
Column = Callable[[int, int], list[str]]  # the texts of lines a to b


def ids_at(ids: Strings, at: Array, what: str) -> Column:
    """
    Raises:
        VbprError: an id holds a tab or a line break, or begins with a quote sign, which pandas, by which most of these
            libraries read, takes for one that is closed somewhere below.
    """
    names = ids.tolist()
    refuse_signs(names, "\t\n\r", what)
    quoted = next((name for name in names if name.startswith('"')), None)
    if quoted is not None:
        raise VbprError(
            f"the id {quoted!r} begins with a quote sign, which others read as the start of a field; rename it"
        )
    return lambda a, b: ids[at[a:b]].tolist()


def numbers(values: Array) -> Column:
    """Whole where they are."""
    return lambda a, b: [str(int(v)) if v == int(v) else repr(v) for v in values[a:b].tolist()]


def table(path: Path, header: Sequence[str], n: int, columns: Sequence[Column]) -> None:
    """A table of n lines with tabs, in which nothing is quoted; no header where that is empty."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        if header:
            handle.write("\t".join(header) + "\n")
        for a in range(0, n, ROWS):
            rows = zip(*(column(a, min(n, a + ROWS)) for column in columns), strict=True)
            handle.writelines("\t".join(row) + "\n" for row in rows)


def write_part(path: Path, ground: Ground, part: int, header: Sequence[str], rated: bool) -> None:
    """One part of the split, a line a pair: user, item, a rating where that is wanted, the time where it is known."""
    users, items = ground.pairs(part)
    columns = [ids_at(ground.split.user_ids, users, path.name), ids_at(ground.split.item_ids, items, path.name)]
    columns += [lambda a, b: [ONE] * (b - a)] if rated else []
    columns += [] if ground.times is None else [numbers(ground.times[part])]
    table(path, header, len(users), columns)


def with_features(path: Path, ground: Ground, order: Array) -> None:
    """The features, if asked for, of the items in this order."""
    if ground.features is not None:
        features = ground.features
        blocks = (features(order[a : a + 1024]) for a in range(0, len(order), 1024))
        write_npy(path, len(order), features(order[:1]).shape[1], blocks)


def write_recbole(folder: Path, name: str, ground: Ground) -> list[str]:
    """NAME.train.inter, NAME.valid.inter and NAME.test.inter, NAME.item with the whole catalogue, and recbole.yaml."""
    columns = ["user_id:token", "item_id:token"] + ["timestamp:float"] * (ground.times is not None)
    for part, word in enumerate(("train", "valid", "test")):
        write_part(folder / f"{name}.{word}.inter", ground, part, columns, rated=False)
    everything = np.arange(len(ground.split.item_ids))
    table(
        folder / f"{name}.item",
        ["item_id:token"],
        len(everything),
        [ids_at(ground.split.item_ids, everything, "the items")],
    )
    loaded = ", ".join(column.partition(":")[0] for column in columns)
    config = (
        f"dataset: {name}\ndata_path: ..  # the folder that holds this one\n"
        f"benchmark_filename: [train, valid, test]\nload_col:\n  inter: [{loaded}]\n  item: [item_id]\n"
        "eval_args:\n  group_by: user\n  mode: full\n"
    )
    (folder / "recbole.yaml").write_text(config, encoding="utf-8")
    with_features(folder / "features.npy", ground, everything)
    return ["features.npy has the rows of the lines of the .item file"] if ground.features else []


def write_mmrec(folder: Path, name: str, ground: Ground) -> list[str]:
    """NAME.inter (userID, itemID, rating, timestamp, x_label), i_id_mapping.csv and u_id_mapping.csv, and with features
    image_feat.npy, a row an itemID.

    MMRec knows of the items up to the highest number in the interactions: those that nobody took come last.
    """
    split, parts = ground.split, [ground.pairs(part) for part in range(3)]
    users, items = (np.concatenate(column) for column in zip(*parts, strict=True))
    labels = np.repeat([0, 1, 2], [len(pair[0]) for pair in parts])
    times = np.zeros(len(users)) if ground.times is None else np.concatenate(ground.times)
    taken = np.bincount(items, minlength=len(split.item_ids)) > 0
    order = np.concatenate([np.flatnonzero(taken), np.flatnonzero(~taken)])
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    names = ["userID", "itemID", "rating", "timestamp", "x_label"]
    values = [numbers(column) for column in (users, number[items], times, labels)]
    columns = [*values[:2], lambda a, b: [ONE] * (b - a), *values[2:]]
    table(folder / f"{name}.inter", names, len(users), columns)
    every = np.arange(len(split.user_ids))
    for path, head, ids, at in (
        ("i_id_mapping.csv", ["asin", "itemID"], split.item_ids, order),
        ("u_id_mapping.csv", ["user_id", "userID"], split.user_ids, every),
    ):
        table(folder / path, head, len(at), [ids_at(ids, at, path), numbers(np.arange(len(at)))])
    with_features(folder / "image_feat.npy", ground, order)
    spare = int((~taken).sum())
    return [f"{counted(spare, 'item')} that nobody took: MMRec does not rank them, and vbpr does"] if spare else []


def write_elliot(folder: Path, name: str, ground: Ground) -> list[str]:
    """train.tsv, validation.tsv and test.tsv without header (user, item, rating, and time where it is known), and
    elliot.yml."""
    notes = write_triples(folder, ground)
    config = (
        "# under `experiment:`\ndata_config:\n  strategy: fixed\n  train_path: train.tsv\n"
        "  validation_path: validation.tsv\n  test_path: test.tsv\n"
    )
    (folder / "elliot.yml").write_text(config, encoding="utf-8")
    digits = [name for name in split_ids(ground) if name.isdigit()]
    if any(name != str(int(name)) for name in digits):
        notes.append("Elliot reads ids of digits as numbers, without their zeros in front: so they are in its lists")
    return notes


def split_ids(ground: Ground) -> list[str]:
    return [*ground.split.user_ids.tolist(), *ground.split.item_ids.tolist()]


def write_cornac(folder: Path, name: str, ground: Ground) -> list[str]:
    """train.tsv, validation.tsv and test.tsv: user, item, rating (UIR), and time where it is known (UIRT)."""
    fmt = "UIR" if ground.times is None else "UIRT"
    read = f'cornac.data.Reader().read("train.tsv", fmt="{fmt}", sep="\\t"), and BaseMethod.from_splits of all three'
    return [read, *write_triples(folder, ground)]


def write_triples(folder: Path, ground: Ground) -> list[str]:
    """A table of each part without header, the catalogue, and features."""
    for part, word in enumerate(MATRICES):
        write_part(folder / f"{word}.tsv", ground, part, [], rated=True)
    write_ids(folder / "item_ids.txt", ground.split.item_ids)
    with_features(folder / "features.npy", ground, np.arange(len(ground.split.item_ids)))
    return ["features.npy has the rows of the lines of item_ids.txt"] if ground.features else []


__all__ = ["write_cornac", "write_elliot", "write_mmrec", "write_recbole"]
