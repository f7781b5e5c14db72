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
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..base.errors import VbprError

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


__all__ = ["Parser", "key"]
