"""Memory that is free again goes back to the system."""

import sys
from types import SimpleNamespace

from vbpr.compute.memory import give_back


def test_what_arrow_keeps_is_released_where_arrow_is_there(monkeypatch):
    released = []
    pool = SimpleNamespace(release_unused=lambda: released.append(True))
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(default_memory_pool=lambda: pool))
    give_back()
    monkeypatch.delitem(sys.modules, "pyarrow")
    give_back()
    assert released == [True]
