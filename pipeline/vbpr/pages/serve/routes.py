"""The routes of the server: each looks something up in what answers now, and hands back a model of `schemas`.

Everything is looked up by id in what was loaded: no word of a request is ever used as a path.
"""

import asyncio
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, HTTPException, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, PlainTextResponse

from ...answers.explain import explanation
from ...answers.nearest import UNKNOWN, Nearest
from ...base.errors import VbprError
from ...data.images.source import BadImage
from .answers import Answers, filled, find
from .schemas import (
    MAX_ID,
    Answer,
    Category,
    Exclude,
    Fallback,
    ForLiked,
    Found,
    Health,
    Id,
    Item,
    K,
    Liked,
    Limit,
    Offset,
    Order,
    People,
    Search,
    User,
    Wall,
    Why,
)

MAX_PHOTOS = 8
SIDES = (96, 192, 384)  # pixels that a thumbnail may have
POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def current(request: Request) -> Answers:
    """What answers now. Each request asks once and forgets it: a model that is replaced must not be held on to."""
    answers: Answers = request.app.state.current()
    return answers


router = APIRouter()  # /openapi.json has the routes in the order of this file


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


def index_of(answers: Answers) -> Nearest:
    if answers.index is None:
        raise HTTPException(409, "this model has no item vectors to compare")
    return answers.index


@router.head("/", include_in_schema=False)
@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def home(request: Request) -> HTMLResponse:
    return HTMLResponse(current(request).page, headers={"Content-Security-Policy": POLICY})


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    text = filled("api.html", paths=request.app.openapi()["paths"])
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})


@router.head("/health", include_in_schema=False)  # which monitors use
@router.get("/health")
async def health(request: Request) -> Health:
    answers = current(request)
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


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> PlainTextResponse:
    """Requests and their times, as Prometheus reads them."""
    return PlainTextResponse(request.app.state.counts.text())


@router.get("/users")
async def users(request: Request, search: Search = "", limit: Limit = 20) -> Found:
    return Found(**find(current(request).user_at, search, limit))


@router.get("/items")
async def items(request: Request, search: Search = "", limit: Limit = 20) -> Found:
    return Found(**find(current(request).item_at, search, limit))


@router.get("/wall")
async def wall(
    request: Request,
    order: Order = "popular",
    search: Search = "",
    category: Category = None,
    offset: Offset = 0,
    limit: Limit = 48,
) -> Wall:
    """Items to look at. `search` is words of titles, categories, colours and ids."""
    answers = current(request)
    return Wall(**await asyncio.to_thread(answers.wall, order, search, category, offset, limit))


@router.get("/people")
async def people(request: Request, offset: Offset = 0, limit: Limit = 8) -> People:
    """Users to choose from, with some of what they took."""
    answers = current(request)
    return People(**await asyncio.to_thread(answers.people, offset, limit))


@router.post("/users/fold-in")
async def fold_in(request: Request, asked: Liked) -> ForLiked:
    """Recommendations for someone unknown, from items that they like."""
    answers = current(request)
    factors, liked = answers.factors, answers.positions(asked.liked)
    unknown = [item_id for item_id in dict.fromkeys(asked.liked) if item_id not in answers.item_at]
    excluded = np.concatenate([liked, answers.positions(asked.exclude)])
    if not len(liked):
        if asked.fallback is None:
            item_of(answers, unknown[0])
        return ForLiked(**answers.bestsellers(asked.k, asked.category, excluded), unknown=unknown)
    best = factors.choose(
        factors.fold_in(factors.items[liked]),
        asked.k,
        exclude=excluded,
        allowed=answers.allowed_in(asked.category),
        diversity=asked.diversity,
        groups=answers.groups,
    )
    return ForLiked(**answers.scored(*best), unknown=unknown)


@router.get("/users/{user_id:path}/recommendations")
async def recommendations(
    request: Request,
    user_id: Id,
    k: K = 10,
    category: Category = None,
    diversity: Annotated[float, Query(ge=0, le=1)] = 0.0,
    seen: bool = False,
    exclude: Exclude = [],  # noqa: B006  (FastAPI copies it)
    fallback: Fallback = None,
) -> Answer:
    answers = current(request)
    if fallback is not None and user_id not in answers.user_at:
        return Answer(**answers.bestsellers(k, category, answers.positions(exclude)))
    factors, user, excluded = answers.factors, user_of(answers, user_id), answers.positions(exclude)
    if not seen:
        excluded = np.concatenate([excluded, factors.seen_by(user)])
    allowed = answers.allowed_in(category)
    best = factors.choose(
        factors.users[user], k, exclude=excluded, allowed=allowed, diversity=diversity, groups=answers.groups
    )
    return Answer(**answers.scored(*best))


@router.get("/users/{user_id:path}/explanation")
async def explain(request: Request, user_id: Id, item: Annotated[str, Query(max_length=MAX_ID)], k: K = 5) -> Why:
    """Why a user gets an item: what each thing that the user took adds to its score."""
    answers = current(request)
    at = item_of(answers, item)
    told = explanation(answers.factors, user_of(answers, user_id), at).to_json(k)
    because = [answers.item(answers.item_at[each["item_id"]]) | each for each in told["because"]]
    return Why(**told | {"item": answers.item(at), "because": because})


@router.get("/users/{user_id:path}")
async def user(request: Request, user_id: Id) -> User:
    answers = current(request)
    history = answers.factors.seen_by(user_of(answers, user_id)).tolist()
    simulated = answers.factors.record.simulated
    return User(user_id=user_id, simulated=simulated, history=[Item(**answers.item(i)) for i in history])


@router.get("/items/{item_id:path}/similar")
async def similar(
    request: Request,
    item_id: Id,
    k: K = 10,
    category: Category = None,
    exclude: Exclude = [],  # noqa: B006
) -> Answer:
    answers = current(request)
    item, index = item_of(answers, item_id), index_of(answers)
    vector = index.rows(np.array([item]))
    if not vector.any():
        raise HTTPException(409, f"this item has no vector to compare: {UNKNOWN}")
    return Answer(**answers.nearest(index, vector, k, category, np.append(answers.positions(exclude), item)))


@router.get("/items/{item_id:path}/photo", response_class=Response, responses={200: {"content": {"image/webp": {}}}})
async def photo(
    request: Request, item_id: Id, side: Annotated[int, Query(description=f"one of {SIDES}")] = 192
) -> Response:
    answers = current(request)
    item_of(answers, item_id)
    if side not in SIDES:
        raise HTTPException(422, f"side: one of {', '.join(map(str, SIDES))}")
    try:
        async with request.app.state.drawing:
            image = await asyncio.to_thread(answers.thumbnail, item_id, side)
    except VbprError as error:  # not cached: the photo may come back
        raise HTTPException(404, str(error), {"Cache-Control": "no-store"}) from error
    return Response(image, media_type="image/webp", headers={"Cache-Control": "max-age=86400"})


@router.get("/items/{item_id:path}")
async def item(request: Request, item_id: Id) -> Item:
    answers = current(request)
    return Item(**answers.item(item_of(answers, item_id)))


@router.post("/similar")
async def similar_to_photo(
    request: Request,
    photos: Annotated[list[UploadFile], File(description="one photo or several")],
    k: K = 10,
    category: Category = None,
    exclude: Exclude = [],  # noqa: B006
) -> Answer:
    """Items like a photo, or like what several have in common."""
    answers = current(request)
    index, encoder = index_of(answers), answers.encoder
    if encoder is None:
        raise HTTPException(409, answers.no_photos)
    strange = next((name for name in await request.form() if name != "photos"), None)
    if strange is not None:
        raise HTTPException(422, f"no field {strange[:MAX_ID]!r}; there is photos, and parameters follow a ?")
    if not 1 <= len(photos) <= MAX_PHOTOS:
        raise HTTPException(422, f"photos: 1 to {MAX_PHOTOS} of them")
    answers.allowed_in(category)  # an unknown category is refused before the photos are encoded
    data = [await upload.read() for upload in photos]

    def work() -> dict[str, Any]:
        features = np.concatenate([encoder([photo]) for photo in data])
        return answers.nearest(index, index.query_photos(features), k, category, answers.positions(exclude))

    try:
        async with request.app.state.decoding:
            return Answer(**await asyncio.to_thread(work))
    except BadImage as error:
        raise HTTPException(422, f"the photo cannot be used: {error}") from error


__all__ = ["router"]
