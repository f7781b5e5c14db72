"""The items for one user of a model file, of which no more is read than the answer needs.

recommend_one("artifacts/inc.model.h5", "A0", 10).item_ids
"""

from pathlib import Path

from ..data.dataset import Dataset
from ..stores.model.stored import StoredModel
from .answer import Answer


def recommend_one(
    model: Path | str,
    user: str,
    k: int = 10,
    *,
    seen: bool = False,
    held_out: str | None = None,
    diversity: float = 0.0,
    category: str | None = None,
    allowed: Path | None = None,
    one_per: str | None = None,
    data: str | None = None,
) -> Answer | None:
    """What `recommend` answers for a user; None for a file of old, which must be read whole.

    Raises:
        VbprError: see `recommend`.
    """
    known = StoredModel.open(model)
    if known is None:
        return None
    dataset, mask, groups = Dataset.behind(known.record.data, data), None, None
    if category is not None or allowed is not None or one_per is not None:
        from .filters import allowed as allow
        from .filters import groups_of, read_known

        columns = {} if category is None and one_per is None else dataset.items()
        ids = read_known(allowed, known.item_ids) if allowed else None
        groups = None if one_per is None else groups_of(known.item_ids, columns, one_per)
        mask = allow(known.item_ids, columns, category, ids)
    known = known.before_holding_out(held_out) if held_out else known
    at = known.user_index(user)
    items, scores = known.recommend(at, k, seen, allowed=mask, diversity=diversity, groups=groups)
    took = known.names(known.seen_by(at))
    who = f"{user}{' (a simulated shopper)' if known.record.simulated else ''}"
    return Answer(
        {"user": user},
        f"for {who}",
        took[:20],
        f"what {who} took ({len(took)})",
        f"recommended by {known.record.title}",
        known.names(items),
        scores.tolist(),
        "score",
        dataset,
        known.record.added,
    )


__all__ = ["recommend_one"]
