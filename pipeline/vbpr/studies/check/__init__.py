"""Contract tests for a model or a backbone of one's own: `vbpr check FILE.py:NAME`."""

from .check import check
from .finding import Finding

__all__ = ["Finding", "check"]
