"""For tests of code of one's own: a process that has named none yet."""

from vbpr.base import own


def forget(monkeypatch):
    """What was loaded is gone, until the test is over; files run again when they are named."""
    monkeypatch.setattr(own, "LOADED", {})
    own.run_file.cache_clear()


def written(tmp_path, monkeypatch, name, text):
    """A file of this text in the folder in which commands then run."""
    forget(monkeypatch)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_text(text)
    return path
