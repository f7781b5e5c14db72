"""The items for a user, someone unknown, anyone, or many users at once, from a model file and a command's options.

recommend("artifacts/inc.model.h5", user="A0", k=10).item_ids
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array
from ..base.targets import check_table
from ..data.dataset import Dataset
from ..executors.cluster import check_address
from ..stores.model.factors import Factors
from ..stores.model.lists import Lists, write_tables
from .answer import Answer, Written
from .everyone import ListsJob, shared_lists
from .filters import allowed as allow
from .filters import groups_of, read_ids, read_known
from .lists import Wishes, best_of, check_new, exclusions, lists_of, texts_of, unseen_items
from .popular import best_sold, bestsellers


def recommend(
    model: Path | str,
    user: str | None = None,
    k: int = 10,
    *,
    liked: Sequence[str] = (),
    images: Sequence[Path] = (),
    weights: Path | None = None,
    seen: bool = False,
    held_out: str | None = None,
    diversity: float = 0.0,
    new: int = 0,
    fallback: bool = False,
    category: str | None = None,
    allowed: Path | None = None,
    one_per: str | None = None,
    data: str | None = None,
) -> Answer:
    """The items that a user will like best; without a user, someone unknown who likes these items and photos.

    Args:
        weights: see `encode_photos`.
        seen: whether items that the user took may come back. held_out: which held-out items may: see
            `Factors.before_holding_out`.
        diversity: see `Factors.choose`. new: see `Wishes`.
        fallback: whether a user whom the model does not know, or someone who likes nothing that it knows, gets
            bestsellers.
        category, allowed, one_per, data: see `opened`.

    Raises:
        VbprError: what is asked for is not in the model or the data set.
    """
    factors, dataset, mask, groups = opened(model, category, allowed, one_per, data, held_out)
    check_new(factors, new)
    if fallback and not images and not known_to(factors, user, liked):
        told: dict[str, Any] = {"liked": list(liked), "images": []} if user is None else {"user": user}
        title = f"for {user or 'someone'}, whom the model does not know: bestsellers of all time"
        return popular_answer(bestsellers(factors)[0], title, k, told | {"fallback": True}, dataset, mask, groups)
    asked: dict[str, Any]
    if user is not None:
        at = factors.user_index(user)
        took, given = factors.seen_by(at), []
        who = f"{user}{' (a simulated shopper)' if factors.record.simulated else ''}"
        asked, title, heading = {"user": user}, f"for {who}", f"what {who} took"
        if new:
            wishes = Wishes(min(k, len(factors.item_ids)), seen, mask, groups, new)
            items, scores = (row[0] for row in best_of(factors, np.array([at]), wishes))
            items, scores = items[items >= 0], scores[items >= 0]
        else:
            items, scores = factors.recommend(at, k, seen, allowed=mask, diversity=diversity, groups=groups)
    else:
        took = factors.item_indices(list(dict.fromkeys(liked)))
        given = [str(path) for path in images]
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
    shown = factors.item_ids[took].tolist() + given
    return Answer(
        asked,
        title,
        shown[:20],
        f"{heading} ({len(shown)})",
        f"recommended by {factors.record.title}",
        factors.item_ids[items].tolist(),
        scores.tolist(),
        "score",
        dataset,
        factors.record.added,
    )


def known_to(factors: Factors, user: str | None, liked: Sequence[str]) -> bool:
    """Whether a model has this user, or without one any of the items that someone likes."""
    ids = factors.item_ids if user is None else factors.user_ids
    return bool(np.isin(np.array(list(liked) if user is None else [user], np.str_), ids).any())


def for_anyone(
    model: Path | str,
    k: int = 10,
    *,
    since: str | None = None,
    category: str | None = None,
    allowed: Path | None = None,
    one_per: str | None = None,
    data: str | None = None,
) -> Answer:
    """Bestsellers: what most people took, of all time or of a window; see `bestsellers`.

    Args:
        category, allowed, one_per, data: see `opened`.
    """
    factors, dataset, mask, groups = opened(model, category, allowed, one_per, data, None)
    sold, when = bestsellers(factors, dataset, since)
    return popular_answer(sold, f"for anyone: bestsellers {when}", k, {"anyone": when}, dataset, mask, groups)


def popular_answer(
    sold: Factors,
    title: str,
    k: int,
    asked: dict[str, Any],
    dataset: Dataset,
    allowed: Array | None,
    groups: Array | None,
) -> Answer:
    items, people = best_sold(sold, k, allowed, groups)
    ids, added = sold.item_ids[items].tolist(), sold.record.added
    return Answer(asked, title, [], "", "bestsellers", ids, [int(n) for n in people], "people", dataset, added)


def recommend_to_many(
    model: Path | str,
    out: Path,
    users: Path | None = None,
    k: int = 10,
    *,
    seen: bool = False,
    held_out: str | None = None,
    new: int = 0,
    fallback: bool = False,
    since: str | None = None,
    exclude: Path | None = None,
    columns: Sequence[str] = (),
    wide: bool = False,
    category: str | None = None,
    allowed: Path | None = None,
    one_per: str | None = None,
    data: str | None = None,
    cluster: str | None = None,
) -> Written:
    """The same for the users that a file names, or everyone, as a table; see `write_tables`.

    Args:
        new, exclude: see `Wishes`.
        fallback: whether users whom the model does not know get bestsellers, of all time or of `since`, with a column
            that tells so; else they are left out.
        columns: of the data set's items, which the table has as well. wide: whether it has a row a user.
        cluster: `local`, or HOST:PORT of a Ray cluster's head, whose workers share the users; None: this process.
    """
    check_table(out)
    if cluster is not None:
        check_address(cluster)
    factors, dataset, mask, groups = opened(model, category, allowed, one_per, data, held_out)
    check_new(factors, new)
    texts = texts_of(dataset.items(), list(columns), factors.item_ids) if columns else {}
    unseen, sold = unseen_items(factors), bestsellers(factors, dataset, since)[0] if fallback else None
    barred = None if exclude is None else exclusions(factors, exclude)
    who = factors.user_ids
    if users is not None:
        names = list(dict.fromkeys(read_ids(users))) if fallback else read_known(users, factors.user_ids, "users")
        who = np.array(names, np.str_)
    wishes = Wishes(k, seen, mask, groups, new, barred, sold)
    started = time.monotonic()
    counts = np.zeros(3, np.int64)

    job = ListsJob(str(Path(model).resolve()), factors.digest() if cluster else "", held_out, wishes)
    made = lists_of(factors, who, wishes) if cluster is None else shared_lists(cluster, job, out, who)

    def counting() -> Iterator[Lists]:
        for lists in made:
            listed = lists.items[lists.items >= 0]
            counts[:] += [
                int(lists.fallback.sum()) if lists.fallback is not None else 0,
                unseen[listed].sum(),
                len(listed),
            ]
            yield lists

    rows = write_tables(out, counting(), factors.item_ids, min(k, len(factors.item_ids)), texts, fallback, wide)
    seconds = time.monotonic() - started
    fallen, of_unseen, listed = counts.tolist()
    return Written(rows, len(who), seconds, fallen, of_unseen, int(unseen.sum()), listed)


def opened(
    model: Path | str,
    category: str | None,
    allowed: Path | None,
    one_per: str | None,
    data: str | None,
    held_out: str | None,
) -> tuple[Factors, Dataset, Array | None, Array | None]:
    """The factors and their data set, which items may be answers, and the groups of which only one may come.

    Args:
        category: only items of it. allowed: a file of ids; only these items.
        one_per: a column of the data set's items, of each value of which one item comes.
        data: the data set, where it is not the one on record.
        held_out: see `Factors.before_holding_out`; None: none of them.
    """
    factors = Factors.load(model)
    dataset = Dataset.behind(factors.record.data, data)
    columns = dataset.items() if category is not None or one_per is not None else {}
    groups = None if one_per is None else groups_of(factors.item_ids, columns, one_per)
    mask = allow(factors.item_ids, columns, category, read_known(allowed, factors.item_ids) if allowed else None)
    return factors.before_holding_out(held_out) if held_out else factors, dataset, mask, groups


__all__ = ["for_anyone", "recommend", "recommend_to_many"]
