"""The parts of the report that show items: people, neighbours, axes of taste, and what gets shown to everyone."""

from typing import Any

import numpy as np

from ...answers.explain import explanation
from ...base.arrays import Array
from ...evaluation import metrics
from ...evaluation.evaluate import COLD, Metrics
from ...evaluation.ranks import Ranks
from ...stores.model.topk import best
from ..terminal import shares_are
from .gallery import Gallery

SHOWN, AXES = 8, 10  # items in a row; axes of taste
SUMMANDS = {"constant": "from what is the same for every taste", "bias": "from the item itself", "rest": "unexplained"}


def people(gallery: Gallery, rng: np.random.Generator, measured: Metrics, count: int) -> list[dict[str, Any]]:
    """Sampled users, then the best and the worst ones by AUC of the held-out item."""
    ranks = measured.ranks["all"]
    auc, users = metrics.mean_auc(ranks), np.unique(ranks.users)
    order = np.argsort(-auc, kind="stable")
    few = max(1, count // 2)
    groups = [
        ("Sampled users", np.sort(rng.choice(len(users), min(count, len(users)), replace=False))),
        ("The best served", order[:few]),
        ("The worst served", order[::-1][:few]),
    ]
    return [
        {"title": title, "users": [person(gallery, int(users[n]), ranks, auc[n]) for n in chosen]}
        for title, chosen in groups
    ]


def person(gallery: Gallery, user: int, ranks: Ranks, auc: float) -> dict[str, Any]:
    """A user's history, recommendations and held-out items; these compete among the recommendations, as in metrics."""
    f, held_out = gallery.factors, ranks.users == user
    history, seen = f.train[user].indices, f.seen_by(user)
    places = [
        f"rank {int(rank):,} of {int(n) + int(held_out.sum()):,}"  # the other held-out items compete, too
        for rank, n in zip(ranks.rank[held_out], ranks.candidates[held_out], strict=True)
    ]
    held = ranks.items[held_out]
    recommended, scores = f.choose(f.users[user], SHOWN, exclude=seen[~np.isin(seen, held)])
    held = held[:SHOWN]
    words = [f"{s:.2f}" + (" · held out" if i in held else "") for i, s in zip(recommended, scores, strict=True)]
    return {
        "at": user,
        "id": str(f.user_ids[user]),
        "first": int(recommended[0]) if len(recommended) else None,
        "auc": auc,
        "taken": len(history),
        "history": gallery.items(history[:SHOWN]),
        "recommended": gallery.items(recommended, words),
        "held": gallery.items(held, places),
    }


def reasons(gallery: Gallery, users: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Why each of these users (of `person`) gets the first item of their recommendations: what they took that speaks
    for it, with its share, and the terms that sum to the score."""
    out = []
    for user in users:
        if user["first"] is None:
            continue
        found = explanation(gallery.factors, user["at"], user["first"])
        told = found.to_json(SHOWN)
        because = [gallery.factors.item_index(each["item_id"]) for each in told["because"]]
        words = [f"adds {each['share']:.3f}" for each in told["because"]]
        terms = [(sum(found.shares[:SHOWN]), "from these")]
        if told["others"]["items"]:
            terms.append((told["others"]["share"], f"from {told['others']['items']:,} others they took"))
        terms += [(told[key], name) for key, name in SUMMANDS.items() if abs(told[key]) >= 0.0005]
        item = gallery.items(np.array([user["first"]]))[0]
        out.append(
            {
                "id": user["id"],
                "item": item,
                "because": gallery.items(np.array(because, np.int64), words),
                "sum": f"Score {found.score:.3f} = " + ", ".join(f"{term:.3f} {name}" for term, name in terms),
                "how": f"The {shares_are(told)}.",
            }
        )
    return out


def neighbours(gallery: Gallery, rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Sampled items, each with those most similar by cosine of the model's item vectors."""
    n = len(gallery.factors.item_ids)
    out = []
    for i in np.sort(rng.choice(n, min(count, n), replace=False)):
        similar, cosine = gallery.factors.similar_items(int(i), SHOWN)
        item = gallery.items(np.array([i]))[0]
        out.append({"item": item, "similar": gallery.items(similar, [f"{c:.2f}" for c in cosine])})
    return out


def axes(gallery: Gallery) -> list[dict[str, Any]]:
    """The directions in which tastes differ most, and the items at both ends of each.

    A model's own columns are arbitrary up to a rotation; these are the axes of its scores: the principal ones of
    items, weighted by how much users differ along them.
    """
    f = gallery.factors
    users, items = f.users - f.users.mean(0), f.items - f.items.mean(0)
    variance, directions = np.linalg.eigh(users.T @ users / len(users))
    weighted = items @ (directions * np.sqrt(np.maximum(variance, 0)))
    size, rotation = np.linalg.eigh(weighted.T @ weighted)
    share, along = size[::-1] / max(float(size.sum()), 1e-12), weighted @ rotation[:, ::-1][:, :AXES]
    out = []
    for n in range(min(AXES, int((share > 1e-6 * share[0]).sum()))):
        order = np.argsort(along[:, n], kind="stable")
        out.append({"share": share[n], "low": gallery.items(order[:SHOWN]), "high": gallery.items(order[::-1][:SHOWN])})
    return out


def spread(gallery: Gallery, users: Array | None) -> dict[str, Any]:
    """What gets shown: the first ten items of `users` (None: of everyone), by how popular an item is; the catalogue's
    coverage, and the items shown to most."""
    factors = gallery.factors
    shown = factors.recommend_all(users, k=10)[0]
    times = np.bincount(shown[shown >= 0], minlength=len(factors.item_ids))
    popularity = factors.train.getnnz(axis=0)
    edges = [0, 1, COLD, 10, 20, 50, np.inf]
    names = ["none", f"1 to {COLD - 1}", f"{COLD} to 9", "10 to 19", "20 to 49", "50 and more"]
    rows: list[dict[str, Any]] = []
    for name, low, high in zip(names, edges, edges[1:], strict=False):
        of = (popularity >= low) & (popularity < high)
        parts = [of.mean(), popularity[of].sum() / max(1, popularity.sum()), times[of].sum() / max(1, times.sum())]
        covered = (times[of] > 0).mean() if of.any() else 0.0
        rows.append({"name": name, "items": int(of.sum()), "parts": [float(p) for p in (*parts, covered)]})
    longest = max(part for row in rows for part in row["parts"][1:3])
    descending = np.sort(times)[::-1]
    total = descending.cumsum()
    most = best(times.astype(np.float32), SHOWN)
    return {
        "users": None if users is None else len(users),
        "coverage": float((times > 0).mean()),
        "half": int(np.searchsorted(total, total[-1] / 2) + 1) if total[-1] else 0,  # items that make up half of it
        "rows": rows,
        "longest": longest or 1.0,
        "most": gallery.items(most, [f"{n:,} users" for n in descending[:SHOWN]]),
    }


__all__ = ["axes", "neighbours", "people", "reasons", "spread"]
