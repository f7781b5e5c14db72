"""The one exact text of a typed column: an id has the same name whatever type a program gave its column.

id_text(pa.chunked_array([[7.0, 8.0]]))     # "7", "8"; null where a value has no exact text
"""

import uuid

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .values import is_whole


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without its encoding: categories and runs as their values, a UUID as its canonical text, any other
    extension as what it is stored in."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return decoded(pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return decoded(pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type))
    if isinstance(kind, pa.BaseExtensionType):
        stored = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        return uuid_text(stored) if kind.extension_name == "arrow.uuid" else decoded(stored)
    return column


def categories(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column as distinct values and where each stands among them: ids and dates repeat by the million."""
    if not pa.types.is_dictionary(column.type):
        return column.combine_chunks().dictionary_encode()
    return column.unify_dictionaries().combine_chunks()


def uuid_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """16 bytes as `123e4567-e89b-12d3-a456-426614174000`."""
    codes = categories(column)
    names = pa.array([str(uuid.UUID(bytes=value)) for value in codes.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([names.take(codes.indices)])


def text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text, null where there is nothing.

    Raises:
        pa.ArrowException: its type has no text, or bytes are no UTF-8.
    """
    column = decoded(column)
    padded = pa.types.is_fixed_size_binary(column.type)
    column = pc.cast(column, pa.string())
    column.validate(full=True)
    return pc.utf8_rtrim(column, "\0") if padded else column


def id_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of ids as text, blanks around them taken off; null where there is none, or a number is not whole or may
    have been rounded by its type.

    Raises:
        pa.ArrowException: see `text`.
    """
    column = decoded(column)
    if pa.types.is_floating(column.type):
        numbers = column.to_numpy()
        sound = is_whole(numbers)
        column = pa.chunked_array([pa.array(np.where(sound, numbers, 0).astype(np.int64), mask=~sound)])
    fractions = pa.types.is_decimal(column.type)
    column = text(column)
    if fractions:
        column = pc.replace_substring_regex(column, r"\.0+$", "")
        column = pc.if_else(pc.match_substring_regex(column, "[.eE]"), None, column)
    return pc.utf8_trim(column, BLANKS)


BLANKS = " \t\u00a0"

__all__ = ["categories", "decoded", "id_text", "text"]
