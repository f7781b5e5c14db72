"""Files of interactions that are no table with a header: positions, lists, and ids in tables of their own."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ..base.errors import VbprError, first_line
from .readers import read_columns
from .readers.delimited import Dialect, dialect_of, parse, rows_of
from .readers.gather import gather, wanted_of
from .readers.split_files import POSITIONS, delimiter_of, has_header, read_lists
from .readers.text import read_events
from .tables import UNFIT, UNREADABLE, load
from .texts import id_text
from .values import Columns
from .where import Rows


class Form(NamedTuple):
    """How a table of text without a header is written."""

    delimiter: str
    names: tuple[str, ...]
    encoding: str = "utf-8"


def read_form(path: Path, form: Form) -> pa.Table:
    """A table without a header, all of it text.

    Raises:
        VbprError: it is of another form.
    """
    try:
        text = load(path).to_pybytes().decode(form.encoding)
        sign = form.delimiter
        if sign == " ":
            text, sign = re.sub(r"[ \t]+", "\t", text), "\t"
        elif len(sign) > 1:
            text, sign = text.replace("\t", " ").replace(sign, "\t"), "\t"
        memory = pa.BufferOutputStream()
        memory.write(text.encode())
        return parse(memory.getvalue(), Dialect(sign, list(form.names), False, False), None)
    except (*UNFIT, *UNREADABLE) as error:
        raise VbprError(
            f"{path} cannot be read ({first_line(error)}); it needs {len(form.names)} fields a line with "
            f"{form.delimiter!r} between them"
        ) from error


def read_formed(path: Path, form: Form, rows: Rows) -> Columns:
    table = read_form(path, form)
    return gather(path, [table], wanted_of(path, list(form.names), rows), {}, lambda row: f"{path}, line {row + 1}")


def read_double_colons(path: Path, rows: Rows) -> Columns:
    """MovieLens 1m and 10m: `1::1193::5::978300760`."""
    return read_formed(path, Form("::", POSITIONS), rows)


def read_positions(path: Path, rows: Rows) -> Columns:
    """User, item, rating and time without a header, or a table with one.

    Raises:
        VbprError: the third field of a file without a header is no number.
    """
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    first = next(rows_of(path, Dialect("\0", [])), None)
    line = first.fields[0] if first and first.fields else ""
    sign = "::" if "::" in line else next((sign for sign in "\t,;|" if sign in line), " ")
    if sign in ("::", " "):
        fields = re.split("::| +", line.strip())
        form = Form(sign, positions(path, fields))
        return read_formed(path, form, rows)
    if has_header(path, sign):
        return (
            read_events(path, dialect_of(path, sign), {}, rows)
            if suffix not in ("csv", "tsv")
            else read_columns(path, rows)
        )
    fields = dialect_of(path, sign).names
    found = read_events(path, Dialect(sign, list(positions(path, fields)), header=False), {}, rows)
    told = ", ".join(positions(path, fields)[:4])
    return found._replace(notes=(f"it has no header; its columns are taken for {told}", *found.notes))


def positions(path: Path, fields: list[str]) -> tuple[str, ...]:
    """The names of the columns of a file without a header, by its first line.

    Raises:
        VbprError: a field that must be a number is none.
    """
    for name, field in zip(POSITIONS[2:], fields[2:], strict=False):
        try:
            float(field)
        except ValueError as error:
            raise VbprError(
                f"{path} has no header, and {field[:40]!r} in its first line is no {name}; put a line with the names "
                "of its columns in front, such as user_id and item_id"
            ) from error
    if len(fields) < 2:
        raise VbprError(f"{path} has one column; it needs a user and an item")
    if len(fields) == 3 and float(fields[2]) >= MOMENT:
        return ("user_id", "item_id", "timestamp")
    return (*POSITIONS[: len(fields)], *(f"column {n}" for n in range(5, len(fields) + 1)))


MOMENT = 1e8  # seconds of 1973; no rating is as large


def read_amazon_ratings(path: Path, rows: Rows) -> Columns:
    """Amazon's ratings without a header: user first in 2014, item first in 2018; an item's id has ten characters."""
    fields = dialect_of(path, ",").names
    if has_header(path, ","):
        return read_columns(path, rows)
    names = list(POSITIONS)
    if len(fields) != len(names):
        raise VbprError(f"{path} has {len(fields)} columns, and Amazon's ratings have user, item, rating and time")
    if len(fields[0]) == ASIN != len(fields[1]):
        names[:2] = names[1::-1]
    return read_events(path, Dialect(",", names, header=False), {}, rows)


ASIN = 10  # characters


def read_user_lists(path: Path, rows: Rows) -> Columns:
    """MicroLens: pairs with a header, or a line a user: the user, a tab, and items with blanks between."""
    if has_header(path, delimiter_of(path)):
        return read_columns(path, rows)
    if rows:
        raise VbprError(f"{path} has no columns to choose rows by; leave {rows.option} out")
    return read_lists(path)


def read_lenskit(path: Path, rows: Rows) -> Columns:
    """LensKit's folder: `schema.json` names the table of interactions, whose user_num and item_num are positions in
    user.parquet and item.parquet.

    Args:
        path: of `schema.json`.
    """
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        name = interaction_of(schema)
        table = read_parquet_table(path.with_name(f"{name}.parquet"))
        for entity in ("user", "item"):
            entities = read_parquet_table(path.with_name(f"{entity}.parquet"))
            ids = id_text(entities[f"{entity}_id"]).combine_chunks()
            places = np.asarray(table[f"{entity}_num"])
            if len(places) and not 0 <= places.min() <= places.max() < len(ids):
                raise VbprError(f"{path.parent}: {name}.parquet names {entity}s that {entity}.parquet lacks")
            table = table.drop_columns([f"{entity}_num"]).append_column(f"{entity}_id", ids.take(pa.array(places)))
    except (*UNFIT, *UNREADABLE, KeyError) as error:
        raise VbprError(f"{path.parent} is no data set of LensKit's that can be read ({first_line(error)})") from error
    where = path.with_name(f"{name}.parquet")
    return gather(where, [table], wanted_of(where, table.column_names, rows), {}, lambda row: f"{where}, row {row + 1}")


def read_parquet_table(path: Path) -> pa.Table:
    return pyarrow.parquet.ParquetFile(pa.BufferReader(load(path))).read()


def interaction_of(schema: Mapping[str, object]) -> str:
    """The name of the table of interactions in a schema of LensKit's.

    Raises:
        KeyError: there is none.
    """
    relationships = schema["relationships"]
    assert isinstance(relationships, dict)
    named = schema.get("default_interaction")
    if isinstance(named, str) and named in relationships:
        return named
    for wanted in (True, False):
        for name, relationship in relationships.items():
            if set(relationship["entities"]) == {"user", "item"} and bool(relationship.get("interaction")) == wanted:
                return str(name)
    raise KeyError("no relationship of users and items")


__all__ = [
    "Form",
    "read_amazon_ratings",
    "read_double_colons",
    "read_form",
    "read_lenskit",
    "read_positions",
    "read_user_lists",
]
