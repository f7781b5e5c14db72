"""`vbpr serve`: the model over HTTP. Uses answers, extraction (for photos), stores, data and base."""

from ...base.errors import VbprError

try:  # before any other file of this folder is read
    import uvicorn  # noqa: F401
    from fastapi import FastAPI  # noqa: F401
except ImportError as error:
    raise VbprError(f"vbpr serve needs {error.name}: pip install fastapi uvicorn python-multipart") from error
