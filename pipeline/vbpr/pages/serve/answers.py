"""What the server answers with: one model, its index and its pictures. Nothing here knows of HTTP."""

import datetime
import functools
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...answers import filters
from ...answers.nearest import Nearest
from ...answers.popular import best_sold, bestsellers
from ...answers.similar import nearest_but
from ...base.arrays import Array
from ...base.errors import VbprError
from ...base.files import digest
from ...data.dataset import Dataset
from ...extraction.photos import PhotoEncoder
from ...stores.model.factors import Factors
from ...stores.model.head import BLIND
from ..photos import Photos
from .browse import Browse

THUMBNAILS = 4  # of a person who can be chosen


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
        self.groups = None if one_per is None else filters.groups_of(self.factors.item_ids, self.meta, one_per)
        self.index = Nearest.open(model, model=self.factors) if self.factors.items.shape[1] else None
        self.user_at = {name: n for n, name in enumerate(self.factors.user_ids.tolist())}
        self.item_at = {name: n for n, name in enumerate(self.factors.item_ids.tolist())}
        in_stock = None if allowed is None else filters.read_known(allowed, self.factors.item_ids)
        self.allowed_in = functools.lru_cache(maxsize=64)(  # by category: (n items,) bool, or None for all
            lambda name: filters.allowed(self.factors.item_ids, self.meta, name or None, in_stock)
        )
        self.allowed_in(None)
        self.factors.fold_in(self.factors.items[:1])  # so that the first request need not wait
        self.sold = bestsellers(self.factors)[0]
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
        self.browse = Browse(self.factors, self.meta, dataset)
        self.page = page_html(self)
        self.thumbnail = functools.lru_cache(maxsize=4096)(self.draw_thumbnail)

    def item(self, at: int) -> dict[str, Any]:
        """The fields of `schemas.Item` of the item at a position."""
        item_id = str(self.factors.item_ids[at])
        title = self.meta.get("title", {}).get(item_id, "")
        category = self.meta.get("category", {}).get(item_id, "")
        return {"item_id": item_id, "title": title, "category": category, "photo": item_id in self.photos.at}

    def scored(self, at: Array, scores: Array) -> dict[str, Any]:
        """The fields of `schemas.Answer`: items by position, -1 for none, and their scores."""
        pairs = zip(at.tolist(), scores.tolist(), strict=True)
        return {"items": [self.item(i) | {"score": s} for i, s in pairs if i >= 0]}

    def wall(self, order: str, search: str, category: str | None, offset: int, limit: int) -> dict[str, Any]:
        """The fields of `schemas.Wall`: see `Browse.wall`."""
        total, at = self.browse.wall(order, search, self.allowed_in(category), offset, limit)
        counts = self.browse.counts[at].tolist()
        return {
            "total": total,
            "items": [self.item(i) | {"count": n} for i, n in zip(at.tolist(), counts, strict=True)],
        }

    def people(self, offset: int, limit: int) -> dict[str, Any]:
        """The fields of `schemas.People`: of each what they took last."""
        people = []
        for user in self.browse.people(offset, limit).tolist():
            last = self.browse.last_taken(user, THUMBNAILS).tolist()
            name, count = str(self.factors.user_ids[user]), len(self.factors.seen_by(user))
            people.append({"user_id": name, "count": count, "items": [self.item(i) for i in last]})
        return {"total": len(self.browse.shuffled), "people": people}

    def bestsellers(self, k: int, category: str | None, excluded: Array) -> dict[str, Any]:
        """The fields of `schemas.Answer`: what most people took, as the model knows it."""
        best = best_sold(self.sold, k, self.allowed_in(category), self.groups, excluded)
        return self.scored(*best) | {"fallback": True}

    def draw_thumbnail(self, item_id: str, side: int) -> bytes:
        """A WebP of an item's photograph that fits a square of `side` pixels.

        Raises:
            VbprError: at present there is no photograph of it, or none that can be drawn.
        """
        image = self.photos.thumbnail(item_id, side, quality=80)
        if image is None:
            raise VbprError("this item has no photo")
        return image

    def positions(self, item_ids: Sequence[str]) -> Array:
        """int64 positions of items, each once; ids that the model does not know are left out."""
        return np.array([self.item_at[name] for name in dict.fromkeys(item_ids) if name in self.item_at], np.int64)

    def nearest(self, index: Nearest, query: Array, k: int, category: str | None, excluded: Array) -> dict[str, Any]:
        """The fields of `schemas.Answer`: the k items nearest to a query, (1, K); with groups, one of each, and none of
        the groups of `excluded`."""
        return self.scored(*nearest_but(index, query, k, excluded, self.allowed_in(category), self.groups))


def find(positions: dict[str, int], search: str, limit: int) -> dict[str, Any]:
    """The fields of `schemas.Found`: ids that contain a text in any case, the id itself first."""
    if not search:
        return {"total": len(positions), "ids": list(positions)[:limit]}
    wanted = search.casefold()
    hits = [name for name in positions if wanted in name.casefold()]
    if search in positions:
        hits.sort(key=lambda name: name != search)
    return {"total": len(hits), "ids": hits[:limit]}


def page_html(answers: Answers) -> str:
    """The page for people, with the names and figures of the model."""
    return filled(
        "page.html",
        title=answers.title,
        data=answers.factors.record.data_title,
        simulated=answers.factors.record.simulated,
        users=len(answers.factors.user_ids),
        items=len(answers.factors.item_ids),
        photos=answers.encoder is not None,
        no_photos=answers.no_photos,
        categories=sorted({value for value in answers.meta.get("category", {}).values() if value}),
        vectors=answers.factors.items.shape[1] > 1,
    )


def filled(template: str, **values: Any) -> str:
    """A file of templates/ with values in their places, escaped."""
    import jinja2

    text = (importlib.resources.files("vbpr") / "templates" / template).read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True).from_string(text).render(values)


__all__ = ["Answers", "filled", "find"]
