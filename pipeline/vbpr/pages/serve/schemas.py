"""What requests and answers of the server look like: the models of its JSON, and the parameters that routes share."""

import datetime
from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_K, MAX_LIKED, MAX_ID = 200, 200, 512
FALLBACK = "popularity: bestsellers where the model knows nothing to go by, instead of a fault"


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
    fallback: bool = Field(False, description="whether these are bestsellers, scored by how many people took each")


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
    """A user to choose, and what they took last (where no times are known: what fewest others took)."""

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


class Because(Item):
    """A thing that a user took, and what it adds to a score."""

    share: float


class Others(BaseModel):
    """The user's other items together."""

    items: int
    share: float


class PartShare(BaseModel):
    """A part of a blend: what it adds, where the file keeps its columns, else its weights."""

    part: str
    share: float | None = None
    warm: float | None = Field(None, description="weight for items that sell")
    cold: float | None = Field(None, description="weight for items that hardly do")


class Popular(BaseModel):
    """How often an item was bought, and its place by that."""

    purchases: int
    place: int
    items: int


class Why(BaseModel):
    """Why a user gets an item: score = shares of `because` and `others` + constant + bias + rest."""

    user: str
    item: Item
    score: float
    place: int | None = Field(description="among what the user does not have, 1 the best; null where the user has it")
    because: list[Because]
    others: Others
    constant: float = Field(description="what the item gets from anybody with a taste")
    bias: float = Field(description="of the item, the same for all")
    rest: float = Field(description="what the shares leave unexplained")
    exact: bool
    method: str
    explained: float | None = Field(
        description="share of the variance of the user's scores that the sum without rest has"
    )
    parts: list[PartShare]
    popularity: Popular


class Found(BaseModel):
    """Ids that contain what was asked for."""

    total: int
    ids: list[str]


class Liked(BaseModel):
    """What someone unknown to the model likes, and items that shall not come back beside those."""

    model_config = ConfigDict(extra="forbid")
    liked: list[Annotated[str, Field(max_length=MAX_ID)]] = Field(max_length=MAX_LIKED)
    exclude: list[Annotated[str, Field(max_length=MAX_ID)]] = Field([], max_length=MAX_LIKED)
    k: int = Field(10, ge=1, le=MAX_K)
    category: str | None = Field(None, max_length=MAX_ID)
    diversity: float = Field(0.0, ge=0, le=1)
    fallback: Literal["popularity"] | None = Field(None, description=FALLBACK)

    @model_validator(mode="after")
    def something(self) -> "Liked":
        """Without a fallback, there is nothing to answer for nobody's likes."""
        if not self.liked and self.fallback is None:
            raise ValueError("liked is empty; give at least one item, or fallback: popularity")
        return self


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
Fallback = Annotated[Literal["popularity"] | None, Query(description=FALLBACK)]
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
    "Fallback",
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
    "Why",
]
