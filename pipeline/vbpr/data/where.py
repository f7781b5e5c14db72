"""Which rows of a table are read: `--where "quantity > 0 and country != 'DE'"`, over the table's own columns.

    expression := and-or-not of tests, with parentheses
    test       := COLUMN (= | == | != | <> | < | <= | > | >=) VALUE, or VALUE first
                | COLUMN [not] in (VALUE, ...)  |  COLUMN is [not] null
    COLUMN     := a name, in `backticks` where it is no word
    VALUE      := 4.5 | 'text' | "text" | 2020-09-01 | '2020-09-01 10:30' | true | false

What a column is read as follows from the values that it is compared with. A row in which the column is empty passes no
comparison, and neither does it pass the comparison's `not`, as in SQL. Nothing is evaluated but this.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..base.arrays import Array
from ..base.errors import VbprError, near, some
from .readers.times import seconds
from .texts import decoded, text

TOKEN = re.compile(
    r"""\s*(?:(?P<date>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?![\w.-]))
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |`(?P<quoted>[^`]+)`
    |(?P<sign>==|!=|<>|<=|>=|<|>|=|\(|\)|,)
    |(?P<word>[^\W\d][\w.:-]*))""",
    re.X,
)
DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?")
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
SAME = {"=": "==", "<>": "!="}
TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
WORDS = ("and", "or", "not", "in", "is", "null", "true", "false")
ABSENT = ("", "null", "none", "nan", "na", "n/a", r"\n", "<na>", "nil", "nat")  # what programs write for nothing
RATING_COLUMNS = ["rating", "overall", "stars", "ratings", "bookrating", "score", "starrating", "reviewscore"]
QUANTITY_COLUMNS = ["quantity", "qty", "units", "unitssold", "orderquantity"]


@dataclasses.dataclass(frozen=True)
class Value:
    """A value in an expression: what it is in Arrow, and what a column is read as to be compared with it."""

    value: Any
    kind: str


class Parser:
    """An expression as one of Arrow's, over columns called `key(NAME, KIND)`.

    Attributes:
        expression: to filter a table with those columns by.
        needs: (name as written, kind) of each.

    Raises:
        VbprError: it is none; the message says what was expected, and where.
    """

    def __init__(self, given: str) -> None:
        self.given, self.at, self.depth = given, 0, 0
        self.tokens = list(self.split())
        self.needs: dict[tuple[str, str], None] = {}
        self.expression = self.either()
        if self.at < len(self.tokens):
            self.refuse("`and`, `or` or the end")

    def split(self) -> Any:
        at, end = 0, len(self.given.rstrip())
        while at < end:
            match = TOKEN.match(self.given, at)
            if match is None:
                begin = at + len(self.given[at:]) - len(self.given[at:].lstrip())
                raise VbprError(f"--where {self.given!r}: {self.given[begin:][:20]!r} cannot be read; {HELP}")
            kind = str(match.lastgroup)
            yield kind, match[kind], match.start(kind)
            at = match.end()

    def refuse(self, wanted: str) -> Any:
        if self.at < len(self.tokens):
            _, token, begin = self.tokens[self.at]
            found = f"at character {begin + 1}, where {token!r} stands"
        else:
            found = "at its end"
        raise VbprError(f"--where {self.given!r}: {wanted} is expected {found}; {HELP}")

    def taken(self, *wanted: str) -> str:
        """The next token, if it is one of these words or signs; else nothing."""
        if self.at < len(self.tokens):
            kind, token, _ = self.tokens[self.at]
            if kind in ("word", "sign") and token.lower() in wanted:
                self.at += 1
                return str(token.lower())
        return ""

    def either(self) -> Any:
        return self.joined("or", self.both)

    def both(self) -> Any:
        return self.joined("and", self.negated)

    def joined(self, word: str, part: Callable[[], Any]) -> Any:
        parts = [part()]
        while self.taken(word):
            parts.append(part())
        return functools.reduce((lambda a, b: a | b) if word == "or" else (lambda a, b: a & b), parts)

    def negated(self) -> Any:
        if self.taken("not"):
            return ~self.nested(self.negated)
        if self.taken("("):
            inner = self.nested(self.either)
            if not self.taken(")"):
                self.refuse("`)`")
            return inner
        return self.test()

    def nested(self, part: Callable[[], Any]) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise VbprError(f"--where is nested more than {DEEPEST} deep; write it plainer")
        inner = part()
        self.depth -= 1
        return inner

    def test(self) -> Any:
        left = self.operand()
        if isinstance(left, Value):
            sign = self.comparison()
            right = self.operand()
            if isinstance(right, Value):
                self.at -= 1
                self.refuse("a column")
            return self.compare(str(right), TURNED[sign], left)
        if self.taken("is"):
            absent = not self.taken("not")
            if not self.taken("null"):
                self.refuse("`null`")
            column = self.column(left, "presence")
            return ~column.is_valid() if absent else column.is_valid()
        negative = bool(self.taken("not"))
        if self.taken("in"):
            return self.among(left, negative)
        if negative:
            self.refuse("`in`")
        sign = self.comparison()
        right = self.operand()
        if not isinstance(right, Value):
            self.at -= 1
            self.refuse("a value (a text stands in quotes)")
        return self.compare(left, sign, right)

    def comparison(self) -> str:
        sign = self.taken(*COMPARISONS, *SAME)
        return SAME.get(sign, sign) or str(self.refuse("a comparison, `in` or `is null`"))

    def operand(self) -> Any:
        """A value, or the name of a column."""
        if self.at >= len(self.tokens):
            self.refuse("a column or a value")
        kind, token, _ = self.tokens[self.at]
        if kind == "sign" or (kind == "word" and token.lower() in WORDS[:6]):
            self.refuse("a column or a value")
        self.at += 1
        if kind == "number":
            return Value(float(token), "number")
        if kind == "text":
            plain = token[1:-1].replace(token[0] * 2, token[0])
            return moment(plain) if DATE.fullmatch(plain) else Value(plain, "text")
        if kind == "date":
            return moment(token)
        if kind == "word" and token.lower() in ("true", "false"):
            return Value(token.lower() == "true", "truth")
        return token

    def compare(self, name: str, sign: str, value: Value) -> Any:
        return COMPARISONS[sign](self.column(name, value.kind), pc.scalar(value.value))

    def among(self, name: str, negative: bool) -> Any:
        values = list[Value]()
        if not self.taken("("):
            self.refuse("`(`")
        while True:
            value = self.operand()
            if not isinstance(value, Value) or value.kind != (values or [value])[0].kind:
                self.at -= 1
                self.refuse("a value of the same kind" if values else "a value (a text stands in quotes)")
            values.append(value)
            if not self.taken(","):
                break
        if not self.taken(")"):
            self.refuse("`,` or `)`")
        column = self.column(name, values[0].kind)
        inside = column.isin([value.value for value in values])
        return pc.if_else(column.is_valid(), ~inside if negative else inside, pc.scalar(pa.scalar(None, pa.bool_())))

    def column(self, name: str, kind: str) -> Any:
        self.needs[name, kind] = None
        return pc.field(key(name, kind))


DEEPEST = 50
HELP = "as in \"quantity > 0 and country in ('FR', 'DE')\""


def key(name: str, kind: str) -> str:
    return f"{name} as {kind}"


def moment(word: str) -> Value:
    """A date as seconds."""
    try:
        return Value(np.datetime64(word.replace(" ", "T"), "us").astype(np.int64) / 1e6, "time")
    except ValueError as error:
        raise VbprError(f"--where: {word} is no date; write it as in 2020-09-01") from error


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which rows of the interactions are read.

    Attributes:
        where: an expression, see the module; "" for none.
        min_rating: the least value of the column of ratings, or None.

    Raises:
        VbprError: the expression is none.
    """

    where: str = ""
    min_rating: float | None = None

    def __post_init__(self) -> None:
        if self.where:
            Parser(self.where)
        if self.min_rating is not None and not np.isfinite(self.min_rating):
            raise VbprError(f"--min-rating is {self.min_rating}; it must be a number")

    def __bool__(self) -> bool:
        return bool(self.where) or self.min_rating is not None

    @property
    def option(self) -> str:
        """By which it was given."""
        return "--where" if self.where else "--min-rating"

    @property
    def rule(self) -> str:
        """In words, for the rule of a split; nothing where all rows are read."""
        parts = [f"rating >= {self.min_rating:g}"] if self.min_rating is not None else []
        parts += [" ".join(self.where.split())] if self.where else []
        return (
            f"rows where {' and '.join(f'({part})' for part in parts) if len(parts) > 1 else parts[0]}" if parts else ""
        )

    def bound(self, path: Any, names: Sequence[str], column_key: Callable[[str], str]) -> "BoundRows | None":
        """The filter over a table with these columns, or None where all rows are read.

        Raises:
            VbprError: it has no such column; the message has the names that are near.
        """
        if not self:
            return None
        parser = Parser(self.where) if self.where else None
        needs = list(parser.needs) if parser else []
        expression = parser.expression if parser else None
        columns = {}
        for name, _ in needs:
            alike = [n for n in names if n == name] or [n for n in names if n.strip().lower() == name.lower()]
            alike = alike or [n for n in names if column_key(n) == column_key(name)]
            if not alike:
                raise VbprError(
                    f"--where: {path} has no column {name}{near(name, names)}; it has {some(names, 12)}"
                    + ("; a text stands in quotes" if parser and len(names) > 1 else "")
                )
            columns[name] = alike[0]
        if self.min_rating is not None:
            rating = next((n for alias in RATING_COLUMNS for n in names if column_key(n) == alias), None)
            if rating is None:
                raise VbprError(
                    f"--min-rating: {path} has no column of ratings; it has {some(names, 12)}; if one of them is it, "
                    f"give --where 'COLUMN >= {self.min_rating:g}'"
                )
            columns[RATING] = rating
            needs.append((RATING, "number"))
            enough = pc.field(key(RATING, "number")) >= self.min_rating
            expression = enough if expression is None else expression & enough
        return BoundRows(expression, needs, columns)


RATING, ROW = "--min-rating", "row"  # no names of `key`


@dataclasses.dataclass(frozen=True)
class BoundRows:
    """A filter over the columns of a table."""

    expression: Any
    needs: Sequence[tuple[str, str]]
    columns: Mapping[str, str]

    def keep(self, table: pa.Table, where: Callable[[int], str]) -> tuple[Array, bool]:
        """(n,) bool, which rows pass; and whether they are compared by dates that other rows might show to have their
        day before their month.

        Args:
            where: says where in the file a row is.

        Raises:
            VbprError: a value cannot be compared; the message has the first such row.
        """
        made = {
            key(name, kind): KINDS[kind](self.columns[name], table[self.columns[name]], where)
            for name, kind in self.needs
        }
        rows = pa.table(made).append_column(ROW, pa.array(np.arange(table.num_rows)))
        mask = np.zeros(table.num_rows, bool)
        mask[rows.filter(self.expression)[ROW].to_numpy()] = True
        return mask, any(kind == "time" and seconds(table[self.columns[name]])[1] for name, kind in self.needs)


def is_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def presence(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    """A column that is null where there is nothing, or what programs write for it."""
    column = decoded(column)
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), None, column)
    if is_text(column):
        words = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        return pc.if_else(pc.is_in(words, pa.array(ABSENT, column.type)), None, column)
    return column


def numbers(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    column = presence(name, column, where)
    if not is_text(column):
        return cast(name, column, pa.float64(), "number", where)
    return cast(name, pc.utf8_trim_whitespace(column), pa.float64(), "number", where)


def plain_texts(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    try:
        words = pc.utf8_trim_whitespace(text(column))
        return pc.if_else(pc.equal(words, ""), None, words)
    except pa.ArrowException as error:
        raise VbprError(f"--where: column {name} ({column.type}) has no text to compare") from error


def truths(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    column = presence(name, column, where)
    if is_text(column):
        return pc.is_in(
            pc.utf8_lower(pc.utf8_trim_whitespace(column)), pa.array(["true", "t", "yes", "y", "1", "1.0"], column.type)
        )
    return cast(name, column, pa.bool_(), "true or false", where)


def moments(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> pa.ChunkedArray:
    column = presence(name, column, where)
    try:
        values, _ = seconds(column)
    except pa.ArrowException as error:
        raise VbprError(f"--where: column {name} ({column.type}) holds no dates") from error
    absent = np.asarray(pc.is_null(column))
    if (bad := ~np.isfinite(values) & ~absent).any():
        row = int(np.argmax(bad))
        raise VbprError(f"{where(row)}: {name} is {str(column[row])[:60]!r}, and --where compares it with a date")
    return pa.chunked_array([pa.array(np.where(absent, 0, values), mask=absent)])


def cast(
    name: str, column: pa.ChunkedArray, kind: pa.DataType, what: str, where: Callable[[int], str]
) -> pa.ChunkedArray:
    try:
        return pc.cast(column, kind, safe=False)
    except pa.ArrowException as error:
        if is_text(column):
            for row, value in enumerate(column.to_pylist()):
                try:
                    pc.cast(pa.scalar(value, pa.string()), kind)
                except pa.ArrowException:
                    raise VbprError(
                        f"{where(row)}: {name} is {value[:60]!r}, and it is compared with a {what}; compare it with a "
                        "text in quotes, or mend the row"
                    ) from error
        raise VbprError(
            f"--where: column {name} ({column.type}) is no {what}; compare it with a text in quotes"
        ) from error


KINDS: dict[str, Callable[[str, pa.ChunkedArray, Callable[[int], str]], pa.ChunkedArray]] = {
    "number": numbers,
    "text": plain_texts,
    "time": moments,
    "truth": truths,
    "presence": presence,
}

ALL_ROWS = Rows()

__all__ = ["ALL_ROWS", "QUANTITY_COLUMNS", "RATING_COLUMNS", "BoundRows", "Parser", "Rows", "is_text"]
