"""Readers of interactions, one a kind of file; each returns columns, which `Interactions` validates."""

from collections.abc import Callable
from pathlib import Path

from ..values import Columns
from .delimited import read_delimited
from .parquet import read_parquet

INTERACTION_READERS: dict[str, Callable[[Path], Columns]] = {
    ".csv": lambda path: read_delimited(path, ","),
    ".tsv": lambda path: read_delimited(path, "\t"),
    ".inter": lambda path: read_delimited(path, "\t"),
    ".parquet": read_parquet,
}

__all__ = ["INTERACTION_READERS"]
