"""A table of text a block of whole rows at a time, as long as every line of it is evidently a row."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..tables import open_bytes
from .delimited import LINE, OPEN_QUOTE, Dialect, header_fields, lines_in, parse
from .gather import Unclear

BLOCK = 2**24  # bytes


def text_blocks(path: Path, dialect: Dialect, columns: Sequence[str]) -> Iterator[pa.Table]:
    """These columns of a table as text, in order.

    Raises:
        Unclear: a block has quotes, and some field may run over several lines or hold a plain quote sign.
        pa.ArrowInvalid: rows of other widths than the header, or text that is no UTF-8.
    """
    wanted, header = dict.fromkeys(columns, pa.string()), dialect.header
    evident = False  # whether a table with tabs is one whose fields are quoted, by its header
    quotes, opened = False, dialect.quoted  # whether one was seen, and whether one shows that they are plain text
    memory = pa.allocate_buffer(BLOCK + LINE)  # of Arrow's own: see `load`
    view, held, ended = memoryview(memory).cast("B"), 0, False
    with open_bytes(path) as handle:
        while not ended:
            read = fill(handle, view[held : held + BLOCK])
            ended = read < BLOCK
            held += read
            end = held if ended else end_of_lines(view, held)
            block = memory.slice(0, end)
            if end:
                quoted = re.search(b'"', block) is not None
                if quoted and dialect.delimiter == "\t":
                    evident = evident or (header and '"' in "".join(header_fields(block)))
                    quotes, opened = True, opened or opens_quote(block)
                    if evident if not dialect.quoted else not evident and opens_quote(block):
                        raise Unclear
                quoted = quoted and dialect.quoted
                table = parse(block, dialect._replace(header=header), wanted)
                if quoted and (lines_in(block) != table.num_rows + header or not is_closed(view, end, dialect)):
                    raise Unclear
                yield table
                header = False
            rest = bytes(view[end:held])
            view[: len(rest)] = rest
            held = len(rest)
    if quotes and not opened:  # every field that opens a quote closes it: they are quoted
        raise Unclear


def opens_quote(block: pa.Buffer) -> bool:
    """Whether some field opens a quote that it does not close."""
    first = re.match(rb'"[^\r\n]*', block)
    return OPEN_QUOTE.search(block) is not None or bool(first and OPEN_QUOTE.search(b"\n" + first[0]))


def fill(handle: Any, view: memoryview) -> int:
    """Read as many bytes as there are, and there is room for."""
    filled = 0
    while filled < len(view):
        read = handle.readinto(view[filled : filled + 2**20])
        if not read:
            break
        filled += read
    return filled


def end_of_lines(view: memoryview, held: int) -> int:
    """Where the last line that is whole ends.

    Raises:
        Unclear: there is none, or lines end otherwise.
    """
    begin = max(0, held - LINE)
    found = bytes(view[begin:held]).rfind(b"\n")
    if found < 0:
        raise Unclear
    return begin + found + 1


def is_closed(view: memoryview, end: int, dialect: Dialect) -> bool:
    """Whether the last line of a block ends outside of quotes, given that it begins there."""
    text = bytes(view[max(0, end - LINE) : end]).rstrip(b"\r\n")
    line = text[max(text.rfind(b"\n"), text.rfind(b"\r")) + 1 :].decode("utf-8", "replace")
    try:
        return bool(list(csv.reader([line], delimiter=dialect.delimiter, strict=True)))
    except csv.Error:
        return False


__all__ = ["text_blocks"]
