"""Who took what: the validated user-item matrix, its readers, and its split into train, validation and test.

split = Split.make(Interactions.read("data/interactions.csv"), SplitConfig(seed=0))
"""

import contextlib
import csv
import dataclasses
import gzip
import hashlib
import io
import itertools
import math
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import scipy.sparse as sp

from .base.arrays import Array, Strings, composed
from .base.errors import VbprError, first_line, some
from .base.progress import console

# What the field calls its columns, as `plain` writes it; the first that is there is taken.
USER_COLUMNS = ["userid", "user", "uid", "reviewerid", "customerid", "visitorid", "accountid", "userid:token"]
USER_COLUMNS += ["customer", "account"]
ITEM_COLUMNS = ["itemid", "item", "iid", "asin", "parentasin", "articleid", "productid", "movieid", "itemid:token"]
ITEM_COLUMNS += ["sku", "stockcode", "isbn", "article", "product"]
TIME_COLUMNS = ["timestamp", "time", "ts", "tdat", "date", "datetime", "unixreviewtime", "timestamp:float"]
TIME_COLUMNS += ["invoicedate", "orderdate"]
SPLIT_COLUMNS = ["split", "xlabel", "subset"]
SPLITS = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Interactions:
    """Distinct (user, item) pairs, sorted by user and item; of a repeated pair the first event
    counts, and where events say to which part they belong, train before the others.

    Attributes:
        user_ids: (U,) strings, as given, sorted.
        item_ids: (I,) strings, as given, sorted.
        users, items: (P,) int32 positions into the ids, one entry a pair.
        times: (P,) float64 seconds, or None.
        splits: (P,) uint8: 0 train, 1 validation, 2 test, or None.
    """

    user_ids: Strings
    item_ids: Strings
    users: Array
    items: Array
    times: Array | None = None
    splits: Array | None = None

    @classmethod
    def of(cls, users: Any, items: Any, times: Any = None, splits: Any = None) -> "Interactions":
        """Build from one entry an event.

        Args:
            users, items: ids, or anything that `str` names.
            times: seconds, or NumPy's dates. splits: the codes of `Interactions.splits`.

        Raises:
            VbprError: there are none, columns differ in length, or one has a value that is none.
        """
        user_ids, u = distinct("user", users)
        item_ids, i = distinct("item", items)
        if not len(u):
            raise VbprError("there are no interactions; each needs a user and an item")
        when = np.zeros(len(u)) if times is None else given_times(times)
        part = np.zeros(len(u), np.uint8) if splits is None else given_splits(splits)
        if not len(u) == len(i) == len(when) == len(part):
            raise VbprError(
                f"{len(u):,} users, {len(i):,} items, {len(when):,} times and {len(part):,} splits were given; each "
                "event has one of each"
            )
        key = u.astype(np.int64) * len(item_ids) + i
        order = np.lexsort((when, part, key))  # train before test, then the earliest
        first = order[np.diff(key[order], prepend=-1) > 0]
        return cls(
            user_ids,
            item_ids,
            u[first].astype(np.int32),
            i[first].astype(np.int32),
            None if times is None else when[first],
            None if splits is None else part[first],
        )

    @classmethod
    def read(cls, path: Path | str) -> "Interactions":
        """Read a CSV, TSV (either may be gzipped) or Parquet file with a user and an item column, under any of the
        field's usual names, and optionally a timestamp and a `split` column (train, validation, test).

        Raises:
            VbprError: no such file, no such column, or a bad row; the message has the line.
        """
        path = Path(path)
        if not path.is_file():
            raise VbprError(
                f"{path} does not exist; interactions are a CSV, TSV or Parquet file with the columns "
                "user_id and item_id"
            )
        suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
        if suffix not in INTERACTION_READERS:
            raise VbprError(f"{path}: no reader for '{suffix}' files; known are {', '.join(INTERACTION_READERS)}")
        try:
            return cls.of(*INTERACTION_READERS[suffix](path))
        except MemoryError as error:
            raise VbprError(f"{path}: out of memory reading it; stop other programs or use a larger machine") from error

    def __repr__(self) -> str:
        return f"Interactions({len(self.user_ids):,} users, {len(self.item_ids):,} items, {len(self.users):,} pairs)"

    def __len__(self) -> int:
        return len(self.users)

    def select(self, keep: Array) -> "Interactions":
        """The pairs under a mask or list of positions; users and items left without any are dropped.

        Raises:
            VbprError: no pair is.
        """
        chosen = np.zeros(len(self), bool)
        chosen[keep] = True
        keep = np.flatnonzero(chosen)
        if not len(keep):
            raise VbprError("no interaction is selected; choose at least one")
        user_ids, users = in_use(self.user_ids, self.users[keep])
        item_ids, items = in_use(self.item_ids, self.items[keep])
        times, splits = (None if of is None else of[keep] for of in (self.times, self.splits))
        return Interactions(user_ids, item_ids, users, items, times, splits)

    def k_core(self, k: int) -> "Interactions":
        """The largest part in which every user and every item has at least k interactions.

        Raises:
            VbprError: nothing is left.
        """
        keep = np.arange(len(self))
        while True:
            users, items = np.bincount(self.users[keep]), np.bincount(self.items[keep])
            inside = (users[self.users[keep]] >= k) & (items[self.items[keep]] >= k)
            if inside.all():
                break
            keep = keep[inside]
            if not len(keep):
                raise VbprError(f"no interaction is left when every user and item must have {k}; lower --k-core")
        return self.select(keep)


def in_use(ids: Strings, places: Array) -> tuple[Strings, Array]:
    """Those ids that have a place, and (n,) int32 places among them."""
    used = np.bincount(places, minlength=len(ids)) > 0
    return ids[used], (np.cumsum(used, dtype=np.int32) - 1)[places]


class Coded(NamedTuple):
    """A column of ids as a reader has it: distinct names, and (n,) positions among them."""

    names: Strings
    places: Array


class Columns(NamedTuple):
    """What a reader has of a file, one entry an event: the arguments of `Interactions.of`."""

    users: Any
    items: Any
    times: Any = None
    splits: Any = None


def distinct(what: str, values: Any) -> tuple[Strings, Array]:
    """The ids of a column, `composed` and sorted, and (n,) positions among them.

    Raises:
        VbprError: see `given_ids`; or one is no text that UTF-8 can hold.
    """
    if not isinstance(values, Coded):
        values = Coded(*np.unique(given_ids(what, values), return_inverse=True))
    names, text = values.names, "".join(values.names.tolist())
    if found := re.search("[\ud800-\udfff]", text):
        raise VbprError(f"{what} ids hold {found[0]!r}, which is no letter; decode them from UTF-8")
    if not text.isascii():
        names = np.array([composed(name) for name in names.tolist()], np.str_)
    names, place = np.unique(names, return_inverse=True)
    return names, place[values.places]


def given_ids(what: str, values: Any) -> Strings:
    """A column of ids as strings.

    Raises:
        VbprError: it is no column, or an entry is missing, empty, or holds a NUL, which NumPy takes for padding.
    """
    column = np.asarray(values)
    if column.dtype.kind == "S" or (column.dtype.kind == "U" and not isinstance(values, np.ndarray)):
        column = np.asarray(values, object)  # NumPy would take a NUL at the end for padding
    if column.ndim != 1:
        raise VbprError(f"{what} ids have {column.ndim} dimensions; give one id an event")
    if column.dtype.kind == "f":
        bad = ~whole(column)
        strings = np.where(bad, 0, column).astype(np.int64).astype(np.str_)
    elif column.dtype.kind == "O":
        each = [plainly(value) for value in column.tolist()]
        strings = np.array([str(value) for value in each], np.str_)
        bad = np.array([is_no_id(value) for value in each], bool)
    else:
        strings = column.astype(np.str_, copy=False)
        bad = strings == ""
    if bad.any():
        at = int(np.argmax(bad))
        raise VbprError(f"event {at:,} has {column[at]!r} for its {what} id; give it one, or leave the event out")
    return strings


def plainly(value: Any) -> Any:
    """Bytes as text, and a whole number as one though it be a float; other floats are no ids, and left."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float | np.floating) and value.is_integer() and abs(float(value)) < 2**53:
        return int(value)
    return value


def is_no_id(value: Any) -> bool:
    if isinstance(value, str):
        return not value or "\0" in value
    return isinstance(value, float | np.floating) or str(value) in ("", "None", "<NA>", "NaT")


def whole(numbers: Array) -> Array:
    """(n,) bool: which floats are whole numbers, and none that the type may have rounded: pandas makes such of a column
    of whole numbers where one is missing."""
    with np.errstate(invalid="ignore"):
        exact = np.abs(numbers) < 2.0 ** (np.finfo(numbers.dtype).nmant + 1)
        return np.asarray(exact & (np.floor(numbers) == numbers))


def given_times(values: Any) -> Array:
    """A column of seconds or dates as seconds.

    Raises:
        VbprError: an entry is neither.
    """
    column = np.asarray(values)
    if column.dtype.kind == "M":
        column = np.where(np.isnat(column), np.nan, column.astype("datetime64[us]").astype(np.int64) / 1e6)
    try:
        seconds = column.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise VbprError(f"times cannot be read ({first_line(error)}); give seconds, or NumPy's datetime64") from error
    if not np.isfinite(seconds).all():
        at = int(np.argmin(np.isfinite(seconds)))
        raise VbprError(f"event {at:,} has no time; give it one, or leave the event out")
    return seconds


def given_splits(values: Any) -> Array:
    """A column of the codes of `SPLITS`.

    Raises:
        VbprError: an entry is none.
    """
    column = np.asarray(values)
    if column.dtype.kind not in "iub" or not np.isin(column, [0, 1, 2]).all():
        raise VbprError("splits are the codes 0 (train), 1 (validation) and 2 (test), and others were given")
    return column.astype(np.uint8, copy=False)


def csr(users: Array, items: Array, shape: tuple[int, int]) -> sp.csr_matrix:
    """A (U, I) float32 matrix of ones, columns sorted in each row."""
    return sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)


MATRICES = ("train", "validation", "test")


def ones(matrix: Any, name: str, shape: tuple[int, int]) -> sp.csr_matrix:
    """Any matrix as CSR of float32 ones where it is not 0, columns sorted; itself, if it is that.

    Raises:
        VbprError: it has another shape, or a number in it is not finite; the message has its `name`.
    """
    if np.shape(matrix) != shape:
        raise VbprError(f"{name} is a matrix of {np.shape(matrix)} for {shape[0]:,} users and {shape[1]:,} items")
    if (
        isinstance(matrix, sp.csr_matrix)
        and matrix.dtype == np.float32
        and matrix.has_canonical_format
        and (matrix.data == 1).all()
    ):
        return matrix
    matrix = sp.csr_matrix(matrix, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if matrix.dtype.kind == "f" and not np.isfinite(matrix.data).all():
        raise VbprError(f"{name} holds numbers that are not finite; put 0 where nothing was taken")
    return sp.csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def settle(frozen: Any) -> tuple[int, int]:
    """Put the ids and matrices of a new `Split` or `Factors` into the form in which they are kept; (users, items).

    Raises:
        VbprError: see `one_of_each` and `ones`; or a pair is in two parts.
    """
    for name in ("user_ids", "item_ids"):
        object.__setattr__(frozen, name, one_of_each(getattr(frozen, name), name))
    shape = len(frozen.user_ids), len(frozen.item_ids)
    for name in MATRICES:
        object.__setattr__(frozen, name, ones(getattr(frozen, name), name, shape))
    for one, other in itertools.combinations(MATRICES, 2):
        both = getattr(frozen, one).multiply(getattr(frozen, other)).tocoo()
        if both.nnz:
            user, item = frozen.user_ids[both.row[0]], frozen.item_ids[both.col[0]]
            raise VbprError(
                f"{both.nnz:,} interactions are in {one} and in {other} (first: user {user}, item {item}); leave "
                "each in one"
            )
    return shape


def digest_of(parted: Any) -> hashlib.blake2b:
    """Of the ids and the three parts of a `Split` or `Factors`: what is measured on the same has the same."""
    total = hashlib.blake2b(digest_size=16)
    for ids in (parted.user_ids, parted.item_ids):
        total.update("\0".join(ids.tolist()).encode())
    for name in MATRICES:
        part = getattr(parted, name)
        total.update(np.ascontiguousarray(part.indptr, "<i8").data)
        total.update(np.ascontiguousarray(part.indices, "<i4").data)
    return total


def one_of_each(values: Any, name: str) -> Strings:
    """(n,) ids as strings.

    Raises:
        VbprError: one of them occurs twice.
    """
    ids = np.asarray(values, np.str_)
    if not (ids[1:] > ids[:-1]).all():  # sorted, as they mostly are: nothing more to look at
        known, times = np.unique(ids, return_counts=True)
        if len(known) < len(ids):
            raise VbprError(f"{name} has '{known[times > 1][0]}' twice; each is there once")
    return ids


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """How interactions are split; each default has its home here.

    Attributes:
        rule: random or time (one item of each user for test, one for validation), global-time (the last tenth of all
            events for test, the tenth before for validation, each as near to that as events of one moment allow), file
            (its own `split` column), none (all of them to train on, for use rather than for figures: nothing chooses
            the epoch, and nothing can be evaluated), auto (file where there is one, else random).
        min_interactions: users with fewer items are left out (random and time; never below 3).
        k_core: first, users and items with fewer interactions are left out, over and over (0: none are).
        seed: of what is random.
    """

    rule: str = "auto"
    min_interactions: int = 5
    k_core: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--min-interactions", self.min_interactions, 1),
            ("--k-core", self.k_core, 0),
            ("--split-seed", self.seed, 0),
        ):
            if value < least:
                raise VbprError(f"{option} is {value}; it must be at least {least}")


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Split:
    """Interactions in three parts over one catalogue. Every matrix is (U, I), float32 ones.

    Attributes:
        user_ids, item_ids: (U,), (I,) strings; the catalogue may hold items that nobody took.
        train, validation, test: what the model learns from, what chooses its epoch, what is asked once. Given as any
            matrix of SciPy's or NumPy's, they are CSR here: whatever is not 0 is a 1, columns sorted.
        rule: how it was made, in words.
        dropped_users: users left out because they have too few interactions.

    Raises:
        VbprError: an id that occurs twice, a matrix of another shape, or a pair in two of them.
    """

    user_ids: Strings
    item_ids: Strings
    train: sp.csr_matrix
    validation: sp.csr_matrix
    test: sp.csr_matrix
    rule: str = ""
    dropped_users: int = 0

    def __post_init__(self) -> None:
        settle(self)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {getattr(self, name).nnz:,}" for name in MATRICES)
        return f"Split({len(self.user_ids):,} users, {len(self.item_ids):,} items, {parts}; {self.rule})"

    @property
    def observed(self) -> sp.csr_matrix:
        """(U, I): everything a user took, whichever part it is in."""
        return self.train + self.validation + self.test

    @property
    def item_counts(self) -> Array:
        """(I,) int64: train interactions of each item."""
        return np.bincount(self.train.indices, minlength=len(self.item_ids))

    @classmethod
    def make(
        cls, interactions: Interactions, config: SplitConfig = SplitConfig(), *, catalogue: Strings | None = None
    ) -> "Split":
        """Split as configured.

        Args:
            catalogue: item ids to rank besides those in the interactions.

        Raises:
            VbprError: interactions without what the rule needs, or a part that would be empty.
        """
        how, total, prefix = config.rule, len(interactions.user_ids), ""
        if how == "auto":
            how = "random" if interactions.splits is None else "file"
        if how not in SPLIT_RULES:
            raise VbprError(f"--split {how} is not known; choose from auto, {', '.join(SPLIT_RULES)}")
        if config.rule in WHOLE and config.min_interactions != SplitConfig.min_interactions:
            raise VbprError(f"--min-interactions does nothing for --split {how}; leave it out, or give --k-core")
        if config.rule in WHOLE and config.seed != SplitConfig.seed:
            raise VbprError(f"--split-seed does nothing for --split {how}, which draws nothing; leave it out")
        if config.k_core:
            before = interactions.item_ids
            interactions, prefix = interactions.k_core(config.k_core), f"{config.k_core}-core; "
            if catalogue is not None:  # what was left out is not ranked: people have taken it
                catalogue = np.setdiff1d(catalogue, np.setdiff1d(before, interactions.item_ids))
        if how in ("random", "time"):
            least = max(3, config.min_interactions)
            enough = np.bincount(interactions.users) >= least
            if not enough.any():
                raise VbprError(
                    f"none of {len(enough):,} users has {least} distinct items, which --split {how} needs "
                    "(one for test, one for validation, the rest to learn from); lower --min-interactions"
                )
            interactions = interactions.select(enough[interactions.users])
        part, rule = SPLIT_RULES[how](interactions, config.seed)
        rule = prefix + rule
        if how in ("random", "time"):
            rule += f"; users with fewer than {least} items left out"
        item_ids = interactions.item_ids if catalogue is None else np.union1d(interactions.item_ids, catalogue)
        items = np.searchsorted(item_ids, interactions.item_ids)[interactions.items]
        shape = (len(interactions.user_ids), len(item_ids))
        train, validation, test = (csr(interactions.users[part == p], items[part == p], shape) for p in range(3))
        if not train.nnz or not (test.nnz or how == "none"):
            raise VbprError(
                f"the split ({rule}) leaves {train.nnz:,} interactions to train on and {test.nnz:,} to "
                "test; both are needed; choose another --split, or none to train on all without a test"
            )
        return cls(interactions.user_ids, item_ids, train, validation, test, rule, total - len(interactions.user_ids))


def leave_one_out(interactions: Interactions, rank: Array) -> Array:
    """(P,) uint8: each user's pair of highest rank goes to test, the next to validation."""
    order = np.lexsort((rank, interactions.users))
    ends = np.cumsum(np.bincount(interactions.users)) - 1
    part = np.zeros(len(order), np.uint8)
    part[order[ends]], part[order[ends - 1]] = 2, 1
    return part


def random_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    rank = np.random.default_rng(seed).random(len(interactions))
    return leave_one_out(interactions, rank), f"leave one out at random, seed {seed}"


def time_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    times = needed(interactions.times, "time", "timestamp")
    tie = np.random.default_rng(seed).random(len(interactions))  # events of one moment: in random order
    rank = np.empty(len(interactions))
    rank[np.lexsort((tie, times))] = np.arange(len(interactions))
    return leave_one_out(interactions, rank), f"each user's last item by time, seed {seed} among equal times"


def global_time_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    times = needed(interactions.times, "global-time", "timestamp")
    moments, counts = np.unique(times, return_counts=True)
    later = len(times) - np.cumsum(counts)  # events after each moment
    if len(moments) < 2:
        raise VbprError("--split global-time needs events of two moments at least; choose --split random")
    end = int(np.argmin(np.abs(later[:-1] - len(times) / 10)))  # the last moment that is not tested on
    begin = int(np.argmin(np.abs(later[: end + 1] - later[end] - len(times) / 10)))
    part = np.where(times > moments[end], 2, np.where(times > moments[begin], 1, 0)).astype(np.uint8)
    return part, "the last tenth of all events by time"


def file_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    return needed(interactions.splits, "file", "split"), "the file's own split column"


def none_rule(interactions: Interactions, seed: int) -> tuple[Array, str]:
    return np.zeros(len(interactions), np.uint8), "none: every interaction is trained on"


def needed(column: Array | None, how: str, name: str) -> Array:
    if column is None:
        raise VbprError(f"--split {how} needs a {name} column in the interactions; add one or choose --split random")
    return column


SPLIT_RULES: dict[str, Callable[[Interactions, int], tuple[Array, str]]] = {
    "random": random_rule,
    "time": time_rule,
    "global-time": global_time_rule,
    "file": file_rule,
    "none": none_rule,
}
WHOLE = {"global-time", "file", "none"}  # which leave nobody out and draw nothing


# ---------------------------------------------------------------------------------------------- readers


UNREADABLE = (OSError, EOFError, zlib.error)  # what disks and gzip raise
UNFIT = (TypeError, ValueError, NotImplementedError, LookupError)  # bases of what Arrow raises of values it cannot read
LINE = 2**20  # characters; a longer line is a bomb or no table, and Arrow reads none much longer
csv.field_size_limit(LINE)


def read_delimited(path: Path, delimiter: str) -> Columns:
    try:
        delimiter, names = header_of(path, delimiter)
    except UNREADABLE as error:
        raise VbprError(f"{path} cannot be read ({error}); fetch it again, or mend its disk") from error
    if not names:
        raise VbprError(f"{path} is empty; it needs a header with user_id{delimiter}item_id and a line an interaction")
    columns = match_columns(path, names)
    try:
        with in_memory(path) as handle:
            table = pyarrow.csv.read_csv(
                handle,
                read_options=pyarrow.csv.ReadOptions(use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(columns.values()),
                    column_types={name: pa.string() for name in columns.values()},
                    strings_can_be_null=False,
                    null_values=[],
                ),
            )
    except (pa.ArrowInvalid, *UNREADABLE) as error:
        raise VbprError(why_unreadable(path, delimiter, len(names), error)) from error

    def where(row: int) -> str:
        line, _ = next(itertools.islice(rows_of(path, delimiter), row + 1, None))
        return f"{path}, line {line}"

    return from_table(path, table, columns, where)


def read_parquet(path: Path) -> Columns:
    try:
        with in_memory(path) as handle:
            columns = match_columns(path, pyarrow.parquet.read_schema(handle).names)
            table = pyarrow.parquet.read_table(handle, columns=list(columns.values()))
    except (*UNFIT, *UNREADABLE) as error:
        raise VbprError(f"{path} is not a readable Parquet file ({first_line(error)})") from error
    return from_table(path, table, columns, lambda row: f"{path}, row {row + 1}")


INTERACTION_READERS: dict[str, Callable[[Path], Columns]] = {
    ".csv": lambda path: read_delimited(path, ","),
    ".tsv": lambda path: read_delimited(path, "\t"),
    ".inter": lambda path: read_delimited(path, "\t"),
    ".parquet": read_parquet,
}


def plain(name: str) -> str:
    """A column's name without capitals, blanks and joints: `User-ID`, `user_id` and `userId` are one."""
    return re.sub(r"[\s_.-]", "", name.lower())


def column_of(names: list[str], aliases: list[str]) -> str | None:
    """The column that goes by the first of these aliases that is there; None where none is."""
    known = {plain(name): name for name in reversed(names)}
    return next((known[alias] for alias in aliases if alias in known), None)


def match_columns(path: Path, names: list[str]) -> dict[str, str]:
    """Which column of the file is the user, the item, the time and the split.

    Raises:
        VbprError: no user or item column; the message lists what was found.
    """
    found = {}
    for role, aliases in (
        ("user_id", USER_COLUMNS),
        ("item_id", ITEM_COLUMNS),
        ("timestamp", TIME_COLUMNS),
        ("split", SPLIT_COLUMNS),
    ):
        name = column_of(names, aliases)
        if name is not None:
            found[role] = name
            others = [other for other in dict.fromkeys(names) if plain(other) in aliases and other != name]
            if others:
                console.print(f"note: {path}: {name} is taken for the {role}, and {some(others)} left alone")
        elif role in ("user_id", "item_id"):
            shown = some((repr(name)[1:-1] for name in names), 8)
            if any(sign in "".join(names) for sign in "\0\ufffd"):
                raise VbprError(f"{path} is not UTF-8 text, or packed; unpack it and save it as UTF-8")
            raise VbprError(f"{path} has no {role} column; it has {shown}; rename one to {role}")
    refuse_twins(path, [name for name in names if name in found.values()])
    return found


def refuse_twins(path: Path, names: list[str]) -> None:
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin is not None:
        raise VbprError(f"{path} has two columns called {twin!r}; rename or remove one")


NO_ROWS = "has a header but no rows; it needs a line an interaction"


def from_table(path: Path, table: pa.Table, columns: dict[str, str], where: Callable[[int], str]) -> Columns:
    """Convert the columns; `where` says where in the file a row is."""
    if not table.num_rows:
        raise VbprError(f"{path} {NO_ROWS}")
    parts = {}
    for role, name in columns.items():
        convert, wanted = CONVERSIONS[role]
        column = table[name]
        try:
            parts[role], bad = convert(column)
        except UNFIT as error:
            why = first_line(error)
            raise VbprError(f"{path}: column {name} ({column.type}) cannot be read ({why}); {wanted}") from error
        if bad.any():
            row = int(np.argmax(bad))
            said = str(column[row])[:100] if column[row].is_valid else ""
            raise VbprError(f"{where(row)}: {name} is {repr(said) if said else 'empty'}; {wanted}")
    return Columns(parts["user_id"], parts["item_id"], parts.get("timestamp"), parts.get("split"))


def without_floats(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of ids, its floats as the whole numbers that they are; none where one is no such number."""
    if pa.types.is_dictionary(column.type):  # pandas' categories
        column = column.cast(column.type.value_type)
    if not pa.types.is_floating(column.type):
        return column
    numbers = column.to_numpy()
    sound = whole(numbers)
    return pa.chunked_array([pa.array(np.where(sound, numbers, 0).astype(np.int64), mask=~sound)])


def ids(column: pa.ChunkedArray) -> tuple[Coded, Array]:
    """A column of ids, and which are none: NumPy takes a NUL at the end for padding, and a stray quote takes the rows
    up to the next one for an id."""
    column = pc.fill_null(pc.cast(without_floats(column), pa.string()), "")
    bad = pc.or_(pc.equal(column, ""), pc.match_substring_regex(column, "[\0\r\n]"))
    bad = pc.or_(bad, pc.greater(pc.utf8_length(column), LONGEST_ID))  # columns of ids are as wide as the longest
    codes = column.combine_chunks().dictionary_encode()
    return Coded(np.asarray(codes.dictionary.to_pylist(), np.str_), np.asarray(codes.indices)), np.asarray(bad)


def times(column: pa.ChunkedArray) -> tuple[Array, Array]:
    found = seconds(column)
    return found, ~np.isfinite(found)


def seconds(column: pa.ChunkedArray) -> Array:
    """A column of numbers, dates or their text as float64 seconds; not finite where it is none of these."""
    if pa.types.is_dictionary(column.type):  # pandas' categories
        column = column.cast(column.type.value_type)
    if pa.types.is_temporal(column.type):
        micro = pc.CastOptions(target_type=pa.timestamp("us"), allow_time_truncate=True)
        return np.asarray(column.cast(options=micro).cast(pa.int64()).to_numpy() / 1e6, np.float64)
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid:
        pass
    known = {text: second(text or "") for text in pc.unique(column).to_pylist()}
    if any(math.isfinite(time) and not is_number(text) for text, time in known.items()):
        known |= dict.fromkeys(filter(is_number, known), math.nan)  # among dates 2020 is a year, not a second of 1970
    return np.array([known[text] for text in column.to_pylist()])


def is_number(text: str | None) -> bool:
    with contextlib.suppress(ValueError):
        return math.isfinite(float(text or ""))
    return False


def second(text: str) -> float:
    text = text.strip()
    if not re.match(r"[-+.\d]", text):  # NumPy knows dates such as `today`, and takes nothing at all for one
        return math.nan
    try:
        return float(text)
    except ValueError:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy takes offsets such as +02:00, and would rather not
                date = np.datetime64(re.sub(r"\s*(Z|UTC|GMT)$", "", text).replace(" ", "T"))
            if not 0 < date.astype("datetime64[Y]").astype(int) + 1970 < 10_000:  # NumPy's microseconds would wrap
                return math.nan
            return float(date.astype("datetime64[us]").astype(np.int64)) / 1e6
        except ValueError:
            return math.nan


def parts_of_split(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """A column as the codes of `SPLITS`, and which of its words are not among them."""
    words = np.char.lower(np.asarray(column.cast(pa.string()).to_pylist(), np.str_))
    codes = np.select([words == word for word in SPLITS], list(SPLITS.values()), 0).astype(np.uint8)
    return codes, ~np.isin(words, list(SPLITS))


LONGEST_ID = 1000
ID = (
    "an id is text or a whole number that its type keeps exactly, without a NUL or a line break (a quote never "
    f"closed?), of up to {LONGEST_ID:,} letters; give it one, or remove the row"
)
CONVERSIONS: dict[str, tuple[Callable[[pa.ChunkedArray], tuple[Any, Array]], str]] = {
    "user_id": (ids, ID),
    "item_id": (ids, ID),
    "timestamp": (times, "a time is a number of seconds or a date such as 2020-07-31, and all are alike"),
    "split": (parts_of_split, "it must be train, validation or test"),
}


class Inflated(gzip.GzipFile):
    """A gzipped table. Real ones shrink to a tenth; one that fills the memory from a few bytes is refused."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > BOMB and self.tell() > BOMB_RATIO * (packed := Path(self.name).stat().st_size):
            raise VbprError(
                f"{self.name} inflates to more than {BOMB_RATIO} times its {packed:,} bytes; this is no table of "
                "interactions (if it is, gunzip it)"
            )
        return data


BOMB, BOMB_RATIO = 256 * 2**20, 200  # bytes, above which the ratio counts


def open_bytes(path: Path) -> Any:
    """A file, inflated where it is gzipped; Arrow itself opens no name that is not UTF-8."""
    return Inflated(path) if path.suffix == ".gz" else path.open("rb")


def in_memory(path: Path) -> pa.BufferReader:
    """A file for Arrow to read, inflated, in memory of Arrow's own. A file of Python's would be let go of by one of
    Arrow's threads, some time after the table is there: where Python is just ending, that aborts the process."""
    memory = pa.BufferOutputStream()
    with open_bytes(path) as handle:
        shutil.copyfileobj(handle, memory, 2**20)
    return pa.BufferReader(memory.getvalue())


def header_of(path: Path, delimiter: str, errors: str = "replace") -> tuple[str, list[str]]:
    """The delimiter and the names of the first row; none of an empty file. Where the usual delimiter is not in that
    row, the one that is: where decimals have a comma, programs write `;` for one."""
    _, names = next(rows_of(path, delimiter, errors), (1, []))
    other = next((sign for sign in ";\t|," if len(names) == 1 and sign in names[0]), None)
    return (delimiter, names) if other is None else (other, next(rows_of(path, other, errors))[1])


def rows_of(path: Path, delimiter: str, errors: str = "replace") -> Iterator[tuple[int, list[str]]]:
    """(line at which it begins, fields) of each row that is not blank, as Arrow counts them; slow: for a header, and
    to find a fault. `errors`: of what is no UTF-8, as in `open`.

    Raises:
        VbprError: a line or a field has no end.
    """
    begins = 1

    def lines(text: io.TextIOWrapper) -> Iterator[str]:
        for number in itertools.count(1):
            line = text.readline(LINE)
            if not line:
                return
            if len(line) == LINE:
                raise VbprError(f"{path}, line {number} is longer than {LINE:,} characters; this is no table")
            yield line

    with open_bytes(path) as handle:
        reader = csv.reader(lines(io.TextIOWrapper(handle, "utf-8-sig", errors, newline="")), delimiter=delimiter)
        try:
            for fields in reader:
                if fields:
                    yield begins, fields
                begins = reader.line_num + 1
        except csv.Error as error:
            raise VbprError(f"{path}, line {begins}: {error}; is a quote never closed?") from error


def why_unreadable(path: Path, delimiter: str, width: int, error: Exception) -> str:
    """Read again, slowly, to find the line at fault."""
    rows = 0
    try:
        for line, fields in rows_of(path, delimiter, "surrogateescape"):
            rows += 1
            if re.search("[\udc80-\udcff]", "".join(fields)):
                return f"{path}, line {line}: not UTF-8 text; save the file as UTF-8"
            if len(fields) != width:
                return (
                    f"{path}, line {line}: {len(fields)} fields where the header has {width}; mend or remove the line"
                )
    except UNREADABLE as inner:
        return f"{path} is cut short or damaged ({inner}); fetch it again"
    if rows == 1:
        return f"{path} {NO_ROWS}"
    return f"{path} cannot be read ({first_line(error)})"


__all__ = [
    "INTERACTION_READERS",
    "ITEM_COLUMNS",
    "MATRICES",
    "SPLIT_RULES",
    "UNFIT",
    "Interactions",
    "Split",
    "SplitConfig",
    "column_of",
    "digest_of",
    "header_of",
    "in_memory",
    "plain",
    "refuse_twins",
    "rows_of",
    "settle",
    "why_unreadable",
    "without_floats",
]
