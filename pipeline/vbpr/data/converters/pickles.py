"""Plain data out of a pickle that nobody vouches for: a small machine for the opcodes that containers, strings, numbers
and NumPy arrays need. It imports nothing, calls nothing, and looks at every length before it believes it.

    read_pickle(path, mapped, offset)       # lists, dicts, str, bytes, numbers; long strings stay in the file as Span

Python's own unpickler, restricted by `find_class`, still lets a forged file call what was allowed with arguments of its
choice, and real NumPy arrays can be made to crash. Here an allowed name is a mere word; anything else is refused.
"""

import math
import mmap
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...base.errors import VbprError

LONG = 1024  # strings above this many bytes are not read, only pointed at: photographs, reviews


class Span(NamedTuple):
    """A long string that is still in the file."""

    offset: int
    length: int


class Name(NamedTuple):
    """An allowed global: a word, not the thing."""

    module: str
    name: str


class Fault(Exception):
    """The pickle is not what the original files hold."""


class Array:
    """A NumPy array in the making: `_reconstruct` makes it, its state fills it."""

    value: Any = None


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy", "ndarray"): "word",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("collections", "defaultdict"): "dict",
    ("collections", "OrderedDict"): "dict",
    ("__builtin__", "list"): "word",
    ("builtins", "list"): "word",
}
DTYPE = re.compile(r"[<>|=]?([biuf][1248]|O8?)")


def read_pickle(path: object, data: mmap.mmap | bytes, offset: int = 0) -> Any:
    """The value of the pickle that begins at `offset`.

    Raises:
        VbprError: it is cut short, damaged, or names anything but plain containers and arrays.
    """
    machine = Machine(data, offset)
    try:
        return machine.run()
    except Fault as error:
        raise VbprError(f"{path} is refused at byte {machine.at:,}: {error}") from error
    except (struct.error, IndexError) as error:
        raise VbprError(f"{path} ends or breaks off at byte {machine.at:,}; fetch it again") from error
    except (KeyError, TypeError, ValueError, AttributeError, UnicodeError, OverflowError) as error:
        raise VbprError(f"{path} is damaged at byte {machine.at:,}; fetch it again") from error


class Machine:
    """A stack, a memo, and one method an opcode."""

    def __init__(self, data: mmap.mmap | bytes, offset: int) -> None:
        self.data, self.at, self.end = data, offset, len(data)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.strings: dict[Any, Any] = {}  # one object for equal short strings: ids repeat by the million

    def run(self) -> Any:
        data, table = self.data, OPCODES
        while True:
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stack.pop()
            step = table.get(code)
            if step is None:
                raise Fault(f"opcode {bytes([code])!r} has no place in the original files")
            step(self)

    # -------------------------------------------------------------------------------- reading

    def number(self, form: struct.Struct) -> Any:
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value

    def take(self, length: int) -> bytes:
        if not 0 <= length <= self.end - self.at:
            raise Fault(
                f"a string of {length:,} bytes where the file has {self.end - self.at:,} left (is it cut short?)"
            )
        self.at += length
        return self.data[self.at - length : self.at]

    def string(self, form: struct.Struct, decode: bool) -> None:
        length = self.number(form)
        if length > LONG:
            if length > self.end - self.at:
                self.take(length)
            self.stack.append(Span(self.at, length))
            self.at += length
            return
        raw = self.take(length)
        value: Any = raw.decode("utf-8", "surrogatepass") if decode else raw
        self.stack.append(self.strings.setdefault(value, value))

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 256)
        if end < 0:
            raise IndexError
        text = self.data[self.at : end].decode("ascii")
        self.at = end + 1
        return text

    def marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        above, self.stack = self.stack, self.below.pop()
        return above

    # -------------------------------------------------------------------------------- opcodes

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def items(self, flat: Sequence[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(flat) % 2:
            raise Fault("pairs for something that is not a dict")
        target.update(zip(flat[::2], flat[1::2], strict=True))

    def extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Fault("entries for something that is not a list")
        self.stack[-1].extend(values)

    def one_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.items([key, value])

    def long(self, length: int) -> None:
        if length > 16:
            raise Fault(f"an integer of {length:,} bytes")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        values = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(values)

    def tuple_since_mark(self) -> None:
        values = tuple(self.marked())
        self.stack.append(values)

    def name(self, module: str, name: str) -> None:
        if (module, name) not in ALLOWED:
            raise Fault(f"it names {module}.{name}, which no data set needs; do not trust this file")
        self.stack.append(Name(module, name))

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(str(module), str(name))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise Fault("a call of something that is not an allowed name")
        self.stack.append(CALLS[ALLOWED[function]](*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Array:
            target.value = array_of(self, *state)
        elif not isinstance(target, np.dtype):
            raise Fault("a state for something that is not an array")
        elif type(state) is not tuple or state[1] not in (b"<", "<", b"|", "|"):
            raise Fault("an array type that is not little-endian")


def array_of(machine: Machine, version: Any, shape: Any, dtype: Any, fortran: Any, values: Any) -> Any:
    """An array's content: a list for objects, else a NumPy array of exactly the bytes given."""
    if type(shape) is not tuple or not all(type(n) is int and 0 <= n < 2**40 for n in shape) or len(shape) > 4:
        raise Fault(f"an array of shape {shape!r:.60}")
    if not isinstance(dtype, np.dtype):
        raise Fault("an array without a plain type")
    count = math.prod(shape)
    if type(values) is Span:
        values = machine.data[values.offset : values.offset + values.length]
    if type(values) is str:
        values = values.encode("latin-1")
    wanted = count if dtype.hasobject else count * dtype.itemsize
    if type(values) is not (list if dtype.hasobject else bytes) or len(values) != wanted:
        raise Fault(f"an array of {count:,} values that does not hold as many")
    if dtype.hasobject:
        return values
    return np.frombuffer(bytes(values), dtype).reshape(shape, order="F" if fortran else "C")


def dtype_of(code: Any, *_: Any) -> Any:
    text = code.decode("ascii") if type(code) is bytes else code
    if type(text) is not str or not DTYPE.fullmatch(text):
        raise Fault(f"an array type {code!r:.40}")
    return np.dtype(text.replace("O8", "O"))


def scalar_of(dtype: Any, raw: Any) -> Any:
    raw = raw.encode("latin-1") if type(raw) is str else raw
    if not isinstance(dtype, np.dtype) or dtype.hasobject or type(raw) is not bytes or len(raw) != dtype.itemsize:
        raise Fault("a NumPy number of the wrong length")
    return np.frombuffer(raw, dtype)[0].item()


def encoded(text: Any, encoding: Any) -> Any:
    if type(text) is Span:
        raise Fault("a long string in Python 3's old spelling; the original files have none")
    if type(text) is not str or encoding != "latin1":
        raise Fault("a string in an unknown encoding")
    return text.encode("latin-1")


CALLS: dict[str, Callable[..., Any]] = {
    "array": lambda kind, shape, code: Array(),
    "dtype": dtype_of,
    "scalar": scalar_of,
    "encode": encoded,
    "dict": lambda *_: {},
}
U1, U2, I4, U4, U8, F8 = (struct.Struct(form) for form in ("<B", "<H", "<i", "<I", "<Q", ">d"))


def push(value: Any) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(value)


OPCODES: dict[int, Callable[[Machine], Any]] = {
    ord(code): step
    for code, step in {
        "\x80": lambda m: m.number(U1),  # PROTO
        "\x95": lambda m: m.number(U8),  # FRAME
        "(": Machine.mark,
        "}": lambda m: m.stack.append({}),
        "]": lambda m: m.stack.append([]),
        ")": push(()),
        "N": push(None),
        "\x88": push(True),
        "\x89": push(False),
        "K": lambda m: m.stack.append(m.number(U1)),
        "M": lambda m: m.stack.append(m.number(U2)),
        "J": lambda m: m.stack.append(m.number(I4)),
        "G": lambda m: m.stack.append(m.number(F8)),
        "\x8a": lambda m: m.long(m.number(U1)),  # LONG1
        "U": lambda m: m.string(U1, False),  # Python 2's str: bytes
        "T": lambda m: m.string(U4, False),
        "C": lambda m: m.string(U1, False),
        "B": lambda m: m.string(U4, False),
        "X": lambda m: m.string(U4, True),
        "\x8c": lambda m: m.string(U1, True),
        "q": lambda m: m.put(m.number(U1)),
        "r": lambda m: m.put(m.number(U4)),
        "\x94": lambda m: m.put(len(m.memo)),  # MEMOIZE
        "h": lambda m: m.stack.append(m.memo[m.number(U1)]),
        "j": lambda m: m.stack.append(m.memo[m.number(U4)]),
        "s": Machine.one_item,
        "u": lambda m: m.items(m.marked()),
        "a": lambda m: m.extend([m.stack.pop()]),
        "e": lambda m: m.extend(m.marked()),
        "t": Machine.tuple_since_mark,
        "\x85": lambda m: m.tuple_of(1),
        "\x86": lambda m: m.tuple_of(2),
        "\x87": lambda m: m.tuple_of(3),
        "c": lambda m: m.name(m.line(), m.line()),
        "\x93": Machine.stack_name,
        "R": Machine.reduce,
        "b": Machine.build,
    }.items()
}

__all__ = ["Array", "Span", "read_pickle"]
