"""What requests and answers of the server look like: the models of its JSON, and the parameters that routes share."""

import datetime
from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

MAX_K, MAX_LIKED, MAX_ID = 200, 200, 512


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


class OnWall(Item):
    """An item to look at."""

    count: int = Field(description="how many users took it")


class Wall(BaseModel):
    """Some of the items that were asked for."""

    total: int
    items: list[OnWall]


class Person(BaseModel):
    """A user to choose, and some of what they took."""

    user_id: str
    count: int = Field(description="how many items they took")
    items: list[Item]


class People(BaseModel):
    """Some of the users that can be chosen."""

    total: int
    people: list[Person]


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


Id = Annotated[str, Path(max_length=MAX_ID)]
K = Annotated[int, Query(ge=1, le=MAX_K, description="how many")]
Category = Annotated[str | None, Query(max_length=MAX_ID, description="only items of this category")]
Exclude = Annotated[
    list[Annotated[str, Field(max_length=MAX_ID)]],
    Query(max_length=MAX_LIKED, description="item that shall not come back, as one in the basket; may repeat"),
]
Search = Annotated[str, Query(max_length=MAX_ID)]
Limit = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0, le=10**9, description="how many to pass over")]
Order = Annotated[
    Literal["popular", "new", "looks"],
    Query(description="by how many took it; what nobody took; or a walk through the map of looks"),
]

__all__ = [
    "MAX_ID",
    "Answer",
    "Category",
    "Exclude",
    "Fault",
    "ForLiked",
    "Found",
    "Health",
    "Id",
    "Item",
    "K",
    "Liked",
    "Limit",
    "Offset",
    "OnWall",
    "Order",
    "People",
    "Person",
    "Search",
    "User",
    "Wall",
]
