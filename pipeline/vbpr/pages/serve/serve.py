"""The model over HTTP: typed JSON endpoints, and one page for people that needs nothing from outside.

    vbpr serve artifacts/inc.model.h5        # http://127.0.0.1:8000, /openapi.json

Bodies and pixels are capped, photos are decoded a few at a time, and a fault of the request gets a 4xx with a sentence.
A model file that is replaced is taken up.
"""

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ...answers.index_file import index_path
from ...base.errors import VbprError
from .answers import Answers
from .guard import Counts, Guard, malformed, only_declared_parameters, refused
from .newest import Newest
from .routes import router
from .schemas import Fault

DECODERS = 2  # photos in work at a time, and as many thumbnails: each may hold a few hundred MB
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # names by which a loopback server is called


def create_app(
    answers: Answers | Callable[[], Answers],
    *,
    max_upload: int = 16 * 2**20,
    hosts: list[str] | None = None,
    prefix: str = "",
) -> FastAPI:
    """The application: the routes, and what stands before them.

    Args:
        answers: what answers; or a function that gives what answers now, asked once for each request.
        max_upload: largest request body in bytes.
        hosts: names by which the server may be called; None for any. Loopback servers take only their own, so that a
            page elsewhere cannot reach them under a name of its own.
        prefix: before every address, as "/looks"; nothing else is answered.
    """
    app = FastAPI(
        title="vbpr",
        description="Visually-aware recommendation.",
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{prefix}/openapi.json",
        dependencies=[Depends(only_declared_parameters)],
        responses={"4XX": {"model": Fault, "description": "what is wrong with the request"}},
    )
    app.state.current = answers if callable(answers) else lambda: answers
    app.state.counts = Counts()
    app.state.decoding, app.state.drawing = asyncio.Semaphore(DECODERS), asyncio.Semaphore(DECODERS)
    app.include_router(router, prefix=prefix)
    app.add_exception_handler(VbprError, refused)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_middleware(Guard, counts=app.state.counts, limit=max_upload)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    return app


def serve(
    model: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    names: Sequence[str] = (),
    max_upload: int = 16 * 2**20,
    data: str | None = None,
    weights: Path | str | None = None,
    allowed: Path | str | None = None,
    by_photo: bool = True,
    one_per: str | None = None,
    access_log: bool = False,
    prefix: str = "",
) -> None:
    """Answer until stopped; a model, index or list of allowed items that is replaced meanwhile is taken up.

    Args:
        names: by which it may be called, as by a proxy that passes the name on; with any, beside these only
            localhost.
        prefix: before every address, as /looks, for a proxy that gives a part of a site to this server.
        allowed, by_photo, one_per: see `Answers`. access_log: whether every request is a line on standard output.

    Raises:
        VbprError: the model or its index cannot be used, or the address cannot be had.
    """
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", name):
            raise VbprError(
                f"--allow-host {name} is no host's name; give one such as shop.example, without http:// and port"
            )
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)*", prefix):
        raise VbprError(f"--prefix {prefix} is no path; give one such as /looks, without a / at its end")
    loopback = host in ("127.0.0.1", "localhost", "::1")
    hosts = [*LOOPBACK, *map(str.lower, names)] if loopback or names else None

    def load() -> Answers:
        answers = Answers(model, data, weights, allowed, by_photo, one_per)
        when, counts = answers.loaded.strftime("%Y-%m-%d %H:%M:%S UTC"), (len(answers.user_at), len(answers.item_at))
        print(f"{when}: loaded {model} ({answers.title}, {counts[0]:,} users, {counts[1]:,} items)", flush=True)
        if answers.no_photos:
            print(f"photos are not taken: {answers.no_photos}", flush=True)
        answers.photos.warn_if_none(answers.factors.item_ids)
        return answers

    newest = Newest(load, [Path(file) for file in (model, index_path(model), allowed) if file is not None])
    with listen(host, port) as listener, contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how serving ends
        address = f"[{host}]" if ":" in host else host
        print(f"http://{address}:{listener.getsockname()[1]}{prefix}/ (Ctrl-C stops it)", flush=True)
        threading.Thread(target=newest.watch, daemon=True).start()
        app = create_app(lambda: newest.answers, max_upload=max_upload, hosts=hosts, prefix=prefix)
        level = "info" if access_log else "error"
        config = uvicorn.Config(
            app, log_level=level, access_log=access_log, limit_concurrency=512, timeout_keep_alive=30, lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        VbprError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where a socket names its protocol; else each answer waits for 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise VbprError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port") from error
    return listener


__all__ = ["create_app", "serve"]
