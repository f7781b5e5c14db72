"""The model over HTTP: typed JSON endpoints, and one page for people that needs nothing from outside.

    vbpr serve artifacts/inc.model.h5        # http://127.0.0.1:8000, /openapi.json

Everything is looked up by id in what was loaded: no word of a request is ever used as a path. Bodies and pixels are
capped, photos are decoded a few at a time, and a fault of the request gets a 4xx with a sentence. A model file that is
replaced is taken up.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import Depends, FastAPI, File, HTTPException, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ...answers.index_file import index_path
from ...answers.nearest import UNKNOWN, Nearest
from ...base.errors import VbprError
from ...data.images.source import BadImage
from .answers import Answers, find
from .guard import Counts, Guard, known_parameters
from .newest import Newest
from .schemas import (
    MAX_ID,
    Answer,
    Category,
    Exclude,
    Fault,
    ForLiked,
    Found,
    Health,
    Id,
    Item,
    K,
    Liked,
    User,
)

MAX_PHOTOS = 8
DECODERS = 2  # photos in work at a time, and as many thumbnails: each may hold a few hundred MB
LONGEST_FAULT = 1000  # characters of a sentence about a request, which may quote it
SIDES = (96, 192, 384)


def create_app(
    answers: Answers | Callable[[], Answers], *, max_upload: int = 16 * 2**20, hosts: list[str] | None = None
) -> FastAPI:
    """The application. FastAPI keeps the functions below for good, so none of them may hold on to what is replaced.

    Args:
        answers: what answers; or a function that gives what answers now, asked once for each request.
        max_upload: largest request body in bytes.
        hosts: names by which the server may be called; None for any. Loopback servers take only their own, so that a
            page elsewhere cannot reach them under a name of its own.
    """
    app = FastAPI(
        title="vbpr",
        description="Visually-aware recommendation.",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(known_parameters)],
        responses={"4XX": {"model": Fault, "description": "what is wrong with the request"}},
    )
    now: Callable[[], Answers] = answers if callable(answers) else lambda: answers
    counts = Counts()
    decoding, drawing = asyncio.Semaphore(DECODERS), asyncio.Semaphore(DECODERS)

    def user_of(answers: Answers, user_id: str) -> int:
        at = answers.user_at.get(user_id)
        if at is None:
            raise HTTPException(404, f"no such user: {user_id[:MAX_ID]!r}; /users?search= finds some")
        return at

    def item_of(answers: Answers, item_id: str) -> int:
        at = answers.item_at.get(item_id)
        if at is None:
            raise HTTPException(404, f"no such item: {item_id[:MAX_ID]!r}; /items?search= finds some")
        return at

    def item_vectors(answers: Answers) -> Nearest:
        if answers.near is None:
            raise HTTPException(409, "this model has no item vectors to compare")
        return answers.near

    @app.exception_handler(VbprError)
    async def fault(request: Request, error: VbprError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
        return JSONResponse({"detail": "; ".join(faults)[:LONGEST_FAULT]}, 422)

    @app.head("/", include_in_schema=False)
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def home() -> HTMLResponse:
        return HTMLResponse(now().page, headers={"Content-Security-Policy": POLICY})

    @app.head("/health", include_in_schema=False)  # as those ask who watch whether a server is up
    @app.get("/health")
    async def health() -> Health:
        answers = now()
        factors = answers.factors
        about = factors.about
        return Health(
            status="ok",
            file=answers.path.name,
            digest=answers.digest,
            loaded=answers.loaded,
            model=answers.title,
            data=str(about.get("data_title", "")),
            users=len(factors.user_ids),
            items=len(factors.item_ids),
            photos=answers.encoder is not None,
            simulated=bool(about.get("simulated")),
        )

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> PlainTextResponse:
        """Requests and their times, as Prometheus reads them."""
        return PlainTextResponse(counts.text())

    @app.get("/users")
    async def users(
        search: Annotated[str, Query(max_length=MAX_ID)] = "", limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> Found:
        return Found(**find(now().user_at, search, limit))

    @app.get("/items")
    async def items(
        search: Annotated[str, Query(max_length=MAX_ID)] = "", limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> Found:
        return Found(**find(now().item_at, search, limit))

    @app.post("/users/fold-in")
    async def fold_in(asked: Liked) -> ForLiked:
        """Recommendations for someone unknown, from items that they like."""
        answers = now()
        factors, at = answers.factors, answers.those(asked.liked)
        unknown = [item_id for item_id in dict.fromkeys(asked.liked) if item_id not in answers.item_at]
        if not len(at):
            item_of(answers, unknown[0])
        found = factors.choose(
            factors.fold_in(factors.items[at]),
            asked.k,
            exclude=np.concatenate([at, answers.those(asked.exclude)]),
            allowed=answers.of_category(asked.category),
            diversity=asked.diversity,
            groups=answers.groups,
        )
        return ForLiked(**answers.scored(*found), unknown=unknown)

    @app.get("/users/{user_id:path}/recommendations")
    async def recommendations(
        user_id: Id,
        k: K = 10,
        category: Category = None,
        diversity: Annotated[float, Query(ge=0, le=1)] = 0.0,
        seen: bool = False,
        exclude: Exclude = [],  # noqa: B006  (FastAPI copies it)
    ) -> Answer:
        answers = now()
        factors, at, left_out = answers.factors, user_of(answers, user_id), answers.those(exclude)
        if not seen:
            left_out = np.concatenate([left_out, factors.seen_by(at)])
        mask = answers.of_category(category)
        found = factors.choose(
            factors.users[at], k, exclude=left_out, allowed=mask, diversity=diversity, groups=answers.groups
        )
        return Answer(**answers.scored(*found))

    @app.get("/users/{user_id:path}")
    async def user(user_id: Id) -> User:
        answers = now()
        took = answers.factors.seen_by(user_of(answers, user_id)).tolist()
        simulated = bool(answers.factors.about.get("simulated"))
        return User(user_id=user_id, simulated=simulated, history=[Item(**answers.item(i)) for i in took])

    @app.get("/items/{item_id:path}/similar")
    async def similar(
        item_id: Id,
        k: K = 10,
        category: Category = None,
        exclude: Exclude = [],  # noqa: B006
    ) -> Answer:
        answers = now()
        at, near = item_of(answers, item_id), item_vectors(answers)
        vector = near.rows(np.array([at]))
        if not vector.any():
            raise HTTPException(409, f"this item has no vector to compare: {UNKNOWN}")
        return Answer(**answers.nearest(near, vector, k, category, np.append(answers.those(exclude), at)))

    @app.get("/items/{item_id:path}/photo", response_class=Response, responses={200: {"content": {"image/webp": {}}}})
    async def photo(item_id: Id, side: Annotated[int, Query(description=f"one of {SIDES}")] = 192) -> Response:
        answers = now()
        item_of(answers, item_id)
        if side not in SIDES:
            raise HTTPException(422, f"side: one of {', '.join(map(str, SIDES))}")
        try:
            async with drawing:
                image = await asyncio.to_thread(answers.drawn, item_id, side)
        except VbprError as error:  # which is not kept: it may come back
            raise HTTPException(404, str(error), {"Cache-Control": "no-store"}) from error
        return Response(image, media_type="image/webp", headers={"Cache-Control": "max-age=86400"})

    @app.get("/items/{item_id:path}")
    async def item(item_id: Id) -> Item:
        answers = now()
        return Item(**answers.item(item_of(answers, item_id)))

    @app.post("/similar")
    async def similar_to_photo(
        request: Request,
        photos: Annotated[list[UploadFile], File(description="one photo or several")],
        k: K = 10,
        category: Category = None,
        exclude: Exclude = [],  # noqa: B006
    ) -> Answer:
        """Items like a photo, or like what several have in common."""
        answers = now()
        near, encoder = item_vectors(answers), answers.encoder
        if encoder is None:
            raise HTTPException(409, answers.no_photos)
        strange = next((name for name in await request.form() if name != "photos"), None)
        if strange is not None:
            raise HTTPException(422, f"no field {strange[:MAX_ID]!r}; there is photos, and parameters follow a ?")
        if not 1 <= len(photos) <= MAX_PHOTOS:
            raise HTTPException(422, f"photos: 1 to {MAX_PHOTOS} of them")
        answers.of_category(category)  # a fault in it is told before the work
        data = [await upload.read() for upload in photos]

        def work() -> dict[str, Any]:
            features = np.concatenate([encoder([photo]) for photo in data])
            return answers.nearest(near, near.query_photos(features), k, category, answers.those(exclude))

        try:
            async with decoding:
                return Answer(**await asyncio.to_thread(work))
        except BadImage as error:
            raise HTTPException(422, f"the photo cannot be used: {error}") from error

    app.add_middleware(Guard, counts=counts, limit=max_upload)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    return app


POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


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
) -> None:
    """Answer until stopped; a model, index or list of allowed items that is replaced meanwhile is taken up.

    Args:
        names: by which it may be called, as by a proxy that passes the name on; with any, beside these only
            localhost.
        allowed, by_photo, one_per: see `Answers`. access_log: whether every request is a line on standard output.

    Raises:
        VbprError: the model or its index cannot be used, or the address cannot be had.
    """
    import socket

    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", name):
            raise VbprError(
                f"--allow-host {name} is no host's name; give one such as shop.example, without http:// and port"
            )
    own = host in ("127.0.0.1", "localhost", "::1")
    hosts = [*LOOPBACK, *map(str.lower, names)] if own or names else None

    def load() -> Answers:
        answers = Answers(model, data, weights, allowed, by_photo, one_per)
        when, counts = answers.loaded.strftime("%Y-%m-%d %H:%M:%S UTC"), (len(answers.user_at), len(answers.item_at))
        print(f"{when}: loaded {model} ({answers.title}, {counts[0]:,} users, {counts[1]:,} items)", flush=True)
        if answers.no_photos:
            print(f"photos are not taken: {answers.no_photos}", flush=True)
        answers.photos.tell_absent(answers.factors.item_ids)
        return answers

    newest = Newest(load, [Path(file) for file in (model, index_path(model), allowed) if file is not None])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where a socket names its protocol; else each answer waits for 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        raise VbprError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port") from error
    with listener, contextlib.suppress(KeyboardInterrupt):  # to be stopped is how serving ends, and no failure
        address = f"[{host}]" if ":" in host else host
        print(f"http://{address}:{listener.getsockname()[1]}/ (Ctrl-C stops it)", flush=True)
        threading.Thread(target=newest.watch, daemon=True).start()
        app = create_app(lambda: newest.answers, max_upload=max_upload, hosts=hosts)
        level = "info" if access_log else "error"
        config = uvicorn.Config(
            app, log_level=level, access_log=access_log, limit_concurrency=512, timeout_keep_alive=30, lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[listener])


__all__ = ["create_app", "serve"]
