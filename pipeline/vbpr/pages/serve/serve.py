"""The model over HTTP: typed JSON endpoints, and one page for people that needs nothing from outside.

    vbpr serve artifacts/inc.model.h5        # http://127.0.0.1:8000, /openapi.json

Everything is looked up by id in what was loaded: no word of a request is ever used as a path. Bodies and pixels are
capped, photos are decoded a few at a time, and a fault of the request gets a 4xx with a sentence. A model file that is
replaced is taken up.
"""

import asyncio
import contextlib
import datetime
import functools
import gc
import importlib.resources
import math
import re
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ...answers.filters import allowed as allow
from ...answers.filters import groups_of, read_known
from ...answers.index_file import index_path
from ...answers.nearest import UNKNOWN, Nearest
from ...answers.similar import nearest_but
from ...base.arrays import Array
from ...base.errors import VbprError
from ...base.files import digest
from ...data.dataset import Dataset
from ...data.images.source import BadImage, stamp
from ...extraction.photos import PhotoEncoder
from ...stores.model.factors import BLIND, Factors
from ..photos import Photos

try:
    import uvicorn
    from fastapi import Depends, FastAPI, File, HTTPException, Query, Request, Response, UploadFile
    from fastapi import Path as InPath
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
    from pydantic import BaseModel, ConfigDict, Field
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise VbprError(f"vbpr serve needs {error.name}: pip install 'vbpr[serve]'") from error
MAX_K, MAX_LIKED, MAX_PHOTOS, MAX_ID = 200, 200, 8, 512
BODY_SECONDS = 30.0  # a body that dribbles in for longer is given up, and its connection with it
WATCH_SECONDS = 2.0  # between looks at whether the files were replaced
RETRY_SECONDS = 30.0  # after which what could not be loaded is tried again
SETTLING = 3  # times that files are read which change meanwhile, as a list of what is in stock may all day
DECODERS = 2  # photos in work at a time, and as many thumbnails: each may hold a few hundred MB
LONGEST_FAULT = 1000  # characters of a sentence about a request, which may quote it
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
SIDES = (96, 192, 384)


class Item(BaseModel):
    """An item of the catalogue."""

    item_id: str
    title: str
    category: str
    photo: bool = Field(description="whether /items/{item_id}/photo has one")


class Scored(Item):
    """An item as an answer."""

    score: float = Field(description="the model's score, or the cosine to the query")


class Answer(BaseModel):
    """Items, best first."""

    items: list[Scored]


class ForLiked(Answer):
    """Items, best first, and what was liked that the model does not know."""

    unknown: list[str]


class User(BaseModel):
    """A user and what they took, held-out items included."""

    user_id: str
    simulated: bool
    history: list[Item]


class Found(BaseModel):
    """Ids that contain what was asked for."""

    total: int
    ids: list[str]


class Liked(BaseModel):
    """What someone unknown to the model likes, and items that shall not come back beside those."""

    model_config = ConfigDict(extra="forbid")
    liked: list[Annotated[str, Field(max_length=MAX_ID)]] = Field(min_length=1, max_length=MAX_LIKED)
    exclude: list[Annotated[str, Field(max_length=MAX_ID)]] = Field([], max_length=MAX_LIKED)
    k: int = Field(10, ge=1, le=MAX_K)
    category: str | None = Field(None, max_length=MAX_ID)
    diversity: float = Field(0.0, ge=0, le=1)


class Fault(BaseModel):
    """What is wrong with a request, in a sentence."""

    detail: str


class Health(BaseModel):
    """That the server is up, and with what."""

    status: str
    file: str = Field(description="name of the model file")
    digest: str = Field(description="of its bytes")
    loaded: datetime.datetime = Field(description="when it was read")
    model: str
    data: str
    users: int
    items: int
    photos: bool
    simulated: bool


class Answers:
    """The model, its index and its pictures, loaded once; every method is safe to call from several threads."""

    def __init__(
        self,
        model: Path | str,
        data: str | None = None,
        weights: Path | str | None = None,
        allowed: Path | str | None = None,
        by_photo: bool = True,
        one_per: str | None = None,
    ) -> None:
        """
        Args:
            allowed: file of ids; only these items are ever an answer.
            one_per: column of the data set's items; answers hold one item of each value.
            by_photo: whether photos can be asked with, for which the backbone is loaded, and torch.
        """
        self.path = Path(model)
        self.loaded, self.digest = datetime.datetime.now(datetime.UTC), digest(model)
        self.factors = Factors.load(model)
        record = self.factors.record
        self.title = record.title
        dataset = Dataset.behind(record.data, data)
        self.photos = Photos(dataset, record.added)
        self.meta = dataset.items()
        self.groups = None if one_per is None else groups_of(self.factors.item_ids, self.meta, one_per)
        self.near = Nearest.open(model) if self.factors.items.shape[1] else None
        self.user_at = {name: n for n, name in enumerate(self.factors.user_ids.tolist())}
        self.item_at = {name: n for n, name in enumerate(self.factors.item_ids.tolist())}
        offered = None if allowed is None else read_known(allowed, self.factors.item_ids)
        self.of_category = functools.lru_cache(maxsize=64)(
            lambda name: allow(self.factors.item_ids, self.meta, name or None, offered)
        )
        self.of_category(None)
        self.factors.fold_in(self.factors.items[:1])  # so that the first request need not wait
        self.encoder: PhotoEncoder | None = None
        self.no_photos = "" if by_photo else "this server was started without"
        try:
            if self.factors.head is None:
                raise VbprError(BLIND)
            if by_photo:
                self.encoder = PhotoEncoder(record.features, weights)
        except ImportError as error:
            self.no_photos = f"that needs {error.name}, which is not installed here"
        except VbprError as error:
            if weights is not None:
                raise
            self.no_photos = str(error)
        self.page = page_html(self)
        self.drawn = functools.lru_cache(maxsize=4096)(self.draw)

    def item(self, at: int) -> dict[str, Any]:
        item_id = str(self.factors.item_ids[at])
        title = self.meta.get("title", {}).get(item_id, "")
        category = self.meta.get("category", {}).get(item_id, "")
        return {"item_id": item_id, "title": title, "category": category, "photo": item_id in self.photos.at}

    def scored(self, at: Array, scores: Array) -> dict[str, Any]:
        pairs = zip(at.tolist(), scores.tolist(), strict=True)
        return {"items": [self.item(i) | {"score": s} for i, s in pairs if i >= 0]}

    def draw(self, item_id: str, side: int) -> bytes:
        """
        Raises:
            VbprError: there is no photograph of it, or none that can be drawn, now.
        """
        image = self.photos.thumbnail(item_id, side, quality=80)
        if image is None:
            raise VbprError("this item has no photo")
        return image

    def those(self, item_ids: Sequence[str]) -> Array:
        """The positions of items, without ids that the model does not know."""
        return np.array([self.item_at[name] for name in dict.fromkeys(item_ids) if name in self.item_at], np.int64)

    def nearest(self, near: Nearest, query: Array, k: int, category: str | None, left_out: Array) -> dict[str, Any]:
        return self.scored(*nearest_but(near, query, k, left_out, self.of_category(category), self.groups))


Id = Annotated[str, InPath(max_length=MAX_ID)]
K = Annotated[int, Query(ge=1, le=MAX_K, description="how many")]
Category = Annotated[str | None, Query(max_length=MAX_ID, description="only items of this category")]
Exclude = Annotated[
    list[Annotated[str, Field(max_length=MAX_ID)]],
    Query(max_length=MAX_LIKED, description="item that shall not come back, as one in the basket; may repeat"),
]


async def known_parameters(request: Request) -> None:
    """A filter whose name is mistyped must not answer as if there were none."""
    route = request.scope["route"]
    known = [parameter.alias for parameter in route.dependant.query_params]
    given = Counter(name for name, _ in request.query_params.multi_items())
    strange = next((name for name in given if name not in known), None)
    if strange is not None and route.include_in_schema:
        raise HTTPException(422, f"no parameter {strange[:MAX_ID]!r}; there is {', '.join(known) or 'none'}")
    lists = [p.alias for p in route.dependant.query_params if isinstance(p.field_info.default, list)]
    twice = next((name for name, times in given.items() if times > 1 and name not in lists), None)
    if twice is not None:
        raise HTTPException(422, f"the parameter {twice[:MAX_ID]!r} is given {given[twice]} times; give it once")


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
        return Health(
            status="ok",
            file=answers.path.name,
            digest=answers.digest,
            loaded=answers.loaded,
            model=answers.title,
            data=factors.record.data_title,
            users=len(factors.user_ids),
            items=len(factors.item_ids),
            photos=answers.encoder is not None,
            simulated=factors.record.simulated,
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
        simulated = answers.factors.record.simulated
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


def find(places: dict[str, int], search: str, limit: int) -> dict[str, Any]:
    """Ids that contain a text, the id itself first."""
    if not search:
        return {"total": len(places), "ids": list(places)[:limit]}
    wanted = search.casefold()
    hits = [name for name in places if wanted in name.casefold()]
    if search in places:
        hits.sort(key=lambda name: name != search)
    return {"total": len(hits), "ids": hits[:limit]}


def page_html(answers: Answers) -> str:
    """The people's page, with what it must know of the model."""
    import jinja2

    text = (importlib.resources.files("vbpr") / "templates" / "page.html").read_text(encoding="utf-8")
    record = answers.factors.record
    categories = sorted({value for value in answers.meta.get("category", {}).values() if value})
    environment = jinja2.Environment(autoescape=True)
    return environment.from_string(text).render(
        title=answers.title,
        data=record.data_title,
        simulated=record.simulated,
        users=len(answers.factors.user_ids),
        items=len(answers.factors.item_ids),
        photos=answers.encoder is not None,
        no_photos=answers.no_photos,
        categories=categories,
    )


class Counts:
    """Requests by route and status, and how long they took."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.buckets: Counter[tuple[str, float]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.started = time.time()

    def take(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.seconds[route] += seconds  # type: ignore[assignment]
        for bucket in BUCKETS:
            if seconds <= bucket:
                self.buckets[route, bucket] += 1

    def text(self) -> str:
        lines = ["# TYPE vbpr_requests_total counter"]
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'vbpr_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE vbpr_request_seconds histogram")
        for route in sorted(self.seconds):
            total = sum(count for (r, _), count in self.requests.items() if r == route)
            for bucket in BUCKETS:
                lines.append(
                    f'vbpr_request_seconds_bucket{{route="{route}",le="{bucket}"}} {self.buckets[route, bucket]}'
                )
            lines.append(f'vbpr_request_seconds_bucket{{route="{route}",le="+Inf"}} {total}')
            lines.append(f'vbpr_request_seconds_sum{{route="{route}"}} {self.seconds[route]:.6f}')
            lines.append(f'vbpr_request_seconds_count{{route="{route}"}} {total}')
        lines += ["# TYPE vbpr_start_time_seconds gauge", f"vbpr_start_time_seconds {self.started:.0f}"]
        return "\n".join(lines) + "\n"


class Guard:
    """Counts requests, refuses bodies over the limit or too slow, and turns what is left into a plain 500."""

    def __init__(self, app: ASGIApp, counts: Counts, limit: int) -> None:
        self.app, self.counts, self.limit = app, counts, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, status, taken = time.perf_counter(), 0, 0
        too_large = f"the body is larger than {self.limit:,} bytes"
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS  # of the whole body, not of each part

        async def watched() -> Message:
            nonlocal taken
            if status:  # the answer is on its way: what comes now is a disconnect
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                detail = f"the body did not arrive within {BODY_SECONDS:.0f} seconds"
                raise HTTPException(408, detail, {"Connection": "close"}) from error
            taken += len(message.get("body", b""))
            if taken > self.limit:
                raise HTTPException(413, too_large, {"Connection": "close"})
            return message

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        async def refuse(code: int, detail: str) -> None:
            if not status:
                response = JSONResponse({"detail": detail}, code, headers={"Connection": "close"})
                await response(scope, receive, answered)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if declared.isdigit() and (len(declared) > 18 or int(declared) > self.limit):
                await refuse(413, too_large)
            else:
                await self.app(scope, watched, answered)
        except Exception as error:
            print(f"internal failure: {scope['method']} {scope['path'][:MAX_ID]!r}", flush=True)
            traceback.print_exception(error)
            await refuse(500, "internal failure; the server's log says more")
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.counts.take(route, status, time.perf_counter() - begun)


HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Newest:
    """What answers: what the files hold now. When one is replaced, what was loaded answers until all is loaded anew,
    and goes on answering where that fails.

    Args:
        load: makes the answers. files: that it reads, there or not.
    """

    def __init__(self, load: Callable[[], Answers], files: Sequence[Path]) -> None:
        self.load, self.files, self.fault, self.due = load, files, "", math.inf
        self.answers = self.settled()

    def look(self) -> None:
        """Load anew if a file has changed since it was last looked at, or could not be loaded a while ago."""
        if stamps(self.files) == self.known and time.monotonic() < self.due:
            return
        try:
            self.answers, self.fault, self.due = self.settled(), "", math.inf
        except Exception as error:
            if str(error) != self.fault:
                print(f"not loaded anew, and the model of before goes on: {error}", flush=True)
            self.fault, self.due = str(error), time.monotonic() + RETRY_SECONDS
        gc.collect()  # answers hold themselves

    def settled(self) -> Answers:
        """What `load` makes of files that were not replaced while it read them, if it ever finds them so."""
        for _ in range(SETTLING - 1):
            self.known = stamps(self.files)
            answers = self.load()
            if stamps(self.files) == self.known:
                return answers
            del answers
            gc.collect()
        self.known = stamps(self.files)
        return self.load()

    def watch(self) -> None:
        while True:
            time.sleep(WATCH_SECONDS)
            self.look()


def stamps(files: Sequence[Path]) -> list[tuple[int, ...] | None]:
    """What changes when a file is replaced or written; None where there is none."""
    out: list[tuple[int, ...] | None] = []
    for path in files:
        try:
            out.append(stamp(path.stat()))
        except OSError:
            out.append(None)
    return out


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


__all__ = ["Answers", "create_app", "serve"]
