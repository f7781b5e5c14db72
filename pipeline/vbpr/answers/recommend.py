"""The items for a user, for someone unknown, or for many users at once, from a model file and the options of a command.

recommend("artifacts/inc.model.h5", user="A0", k=10).item_ids
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base.arrays import Array
from ..base.targets import check_table
from ..data.dataset import Dataset
from ..stores.model.factors import Factors
from .answer import Answer, Written
from .filters import allowed as allow
from .filters import groups_of, read_known


def recommend(
    model: Path | str,
    user: str | None = None,
    k: int = 10,
    *,
    liked: Sequence[str] = (),
    images: Sequence[Path] = (),
    weights: Path | None = None,
    seen: bool = False,
    held_out: bool = False,
    diversity: float = 0.0,
    category: str | None = None,
    allowed: Path | None = None,
    one_per: str | None = None,
    data: str | None = None,
) -> Answer:
    """The items that a user will like best; without a user, someone unknown who likes these items and photos.

    Args:
        weights: see `encode_photos`.
        seen: whether items that the user took may come back. held_out: whether test and validation items may.
        diversity: see `Factors.choose`.
        category, allowed, one_per, data: see `opened`.

    Raises:
        VbprError: what is asked for is not in the model or the data set.
    """
    factors, dataset, mask, groups = opened(model, category, allowed, one_per, data, held_out)
    asked: dict[str, Any]
    if user is not None:
        at = factors.user_index(user)
        took, given = factors.seen_by(at), []
        who = f"{user}{' (a simulated shopper)' if factors.record.simulated else ''}"
        asked, title, heading = {"user": user}, f"for {who}", f"what {who} took"
        items, scores = factors.recommend(at, k, seen, allowed=mask, diversity=diversity, groups=groups)
    else:
        took, given = factors.item_indices(list(dict.fromkeys(liked))), [str(path) for path in images]
        tastes = [factors.items[took]]
        if images:
            from ..extraction.photos import encode_photos

            tastes.append(factors.encoded(encode_photos(images, factors.record.features, weights)))
        asked, title, heading = {"liked": list(liked), "images": given}, "for someone who likes these", "liked"
        items, scores = factors.choose(
            factors.fold_in(*tastes),
            k,
            exclude=None if seen else took,
            allowed=mask,
            diversity=diversity,
            groups=groups,
        )
    given = factors.item_ids[took].tolist() + given
    return Answer(
        asked,
        title,
        given[:20],
        f"{heading} ({len(given)})",
        f"recommended by {factors.record.title}",
        factors.item_ids[items].tolist(),
        scores.tolist(),
        "score",
        dataset,
        factors.record.added,
    )


def recommend_to_many(
    model: Path | str,
    out: Path,
    users: Path | None = None,
    k: int = 10,
    *,
    seen: bool = False,
    held_out: bool = False,
    category: str | None = None,
    allowed: Path | None = None,
    one_per: str | None = None,
    data: str | None = None,
) -> Written:
    """The same for the users that a file names, or everyone, as a table; see `Factors.write_recommendations`."""
    check_table(out)
    factors, _, mask, groups = opened(model, category, allowed, one_per, data, held_out)
    many = None if users is None else factors.user_indices(read_known(users, factors.user_ids, "users"))
    started = time.monotonic()
    rows = factors.write_recommendations(out, k, many, seen, mask, groups)
    return Written(rows, len(factors.user_ids) if many is None else len(many), time.monotonic() - started)


def opened(
    model: Path | str,
    category: str | None,
    allowed: Path | None,
    one_per: str | None,
    data: str | None,
    held_out: bool,
) -> tuple[Factors, Dataset, Array | None, Array | None]:
    """The factors and their data set, which items may be answers, and the groups of which only one may come.

    Args:
        category: only items of it. allowed: a file of ids; only these items.
        one_per: a column of the data set's items, of each value of which one item comes.
        data: the data set, where it is not the one on record.
        held_out: see `Factors.before_holding_out`.
    """
    factors = Factors.load(model)
    dataset = Dataset.behind(factors.record.data, data)
    columns = dataset.items() if category is not None or one_per is not None else {}
    groups = None if one_per is None else groups_of(factors.item_ids, columns, one_per)
    mask = allow(factors.item_ids, columns, category, read_known(allowed, factors.item_ids) if allowed else None)
    return factors.before_holding_out() if held_out else factors, dataset, mask, groups


__all__ = ["recommend", "recommend_to_many"]
