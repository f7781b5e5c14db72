"""`python -m vbpr` is `vbpr`."""

from .commands import app

app()
