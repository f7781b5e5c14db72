"""One HTML page to judge a model by, with everything inside it: figures first, then pictures.

report("artifacts/inc.model.h5")        # artifacts/inc.model.html

Each thumbnail is made once and stored once in the page; wherever it is shown refers to it.
"""

import base64
import dataclasses
import importlib.resources
import importlib.util
import io
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ...base.arrays import Array
from ...base.errors import VbprError
from ...base.files import replace_text
from ...base.progress import Progress
from ...base.targets import check_target
from ...data.dataset import Dataset
from ...data.parts import MATRICES
from ...data.split import Split
from ...evaluation import metrics
from ...evaluation.evaluate import COLD, Metrics, evaluate
from ...evaluation.ranks import Ranks
from ...stores.features.store import FeatureStore
from ...stores.model.factors import Factors
from ...stores.model.head import unit_rows
from ...stores.model.topk import best
from ...training.catalogue import align
from ...training.configure import configure
from ...training.fit import fit
from ...training.models import MODELS
from ..photos import Photos

SIDE, CELL = 200, 72  # pixels of a thumbnail in the rows, and of one on the map
MADE_BY = ("backbone", "weights_digest", "preprocessing", "precision")  # of features, what makes them comparable
SHOWN, AXES = 8, 10  # items in a row; directions of taste
ATLAS = 40  # cells on a side of one picture of the map's thumbnails


def report(
    model: Path | str,
    out: Path | str | None = None,
    *,
    users: int = 6,
    map_items: int = 4000,
    rank_users: int | None = None,
    seed: int = 0,
    data: str | None = None,
    device: str = "auto",
) -> Path:
    """Write the page of a model; returns where it lies.

    Args:
        users: sampled users shown, and as many items with neighbours. map_items: on the style map, at most.
        rank_users: measure on so many users only, drawn at random; None for everyone. The time goes with them.

    Raises:
        VbprError: the model file cannot be used or the page not be written.
    """
    path = Path(out) if out is not None else Path(model).with_suffix(".html")
    check_target(path, "a page")
    factors = Factors.load(model)
    rng = np.random.default_rng(seed)
    dataset = Dataset.behind(factors.record.data, data)
    page = Page(factors, Photos(dataset, factors.record.added))
    measured, note = measure(factors, device, rank_users, seed)
    asked = None if rank_users is None else np.unique(measured[0].ranks["all"].users)
    with Progress("report", 4, "parts") as bar:
        sections = {
            "metrics": [m.summary() for m in measured],
            "note": note,
            "curve": curve(factors),
            "people": page.people(rng, measured[0], users),
            "spread": spread(factors, page, asked),
        }
        bar.advance(1, "users")
        if factors.items.shape[1]:
            sections |= {"neighbours": page.neighbours(rng, users), "axes": page.axes()}
        bar.advance(1, "items")
        sections["map"] = page.style_map(rng, map_items) if factors.items.shape[1] and map_items else None
        bar.advance(1, "map")
        html = render(factors, dataset, page, sections)
        replace_text(path, html, "a page", "backslashreplace")
        bar.advance(1, "page")
    page.photos.tell_absent(factors.item_ids[list(page.number)])
    return path


def measure(factors: Factors, device: str, users: int | None, seed: int) -> tuple[list[Metrics], str]:
    """The model's metrics and those of the baselines that can be fitted here, and a word on what cannot."""
    record, note = factors.record, ""
    split = Split(factors.user_ids, factors.item_ids, factors.train, factors.validation, factors.test, record.split)
    names, features = ["popularity", "random"], None
    try:
        recorded = record.features
        stores = [FeatureStore(f["path"]) for f in recorded]
        for store, f in zip(stores, recorded, strict=True):
            if any(store.provenance.get(key) != f.get(key) for key in MADE_BY):
                raise VbprError(f"{store.path} was made anew, by another network, since the model was trained")
        if stores:
            features, names = align(stores, factors.item_ids), ["knn", *names]
    except VbprError as error:
        note = f"Visual nearest neighbours are left out: {error}."
    rest = [fit(split, features if name == "knn" else None, configure(name)) for name in names if name != record.model]
    return [evaluate(f, device=device, users=users, seed=seed) for f in (factors, *rest)], note


def curve(factors: Factors) -> dict[str, Any] | None:
    """The learning curve as points of a drawing, 600 by 200."""
    points = [p for p in factors.record.first_curve() if "auc" in p]
    if len({p["epoch"] for p in points}) < 2:
        return None
    epochs, aucs = [p["epoch"] for p in points], [p["auc"] for p in points]
    low, high = min(aucs), max(aucs)
    x = [50 + 530 * (e - epochs[0]) / (epochs[-1] - epochs[0]) for e in epochs]
    y = [180 - 160 * (a - low) / max(high - low, 1e-9) for a in aucs]
    marks = [{"x": a, "y": b, "epoch": e, "auc": auc} for a, b, e, auc in zip(x, y, epochs, aucs, strict=True)]
    return {"marks": marks, "low": low, "high": high, "first": epochs[0], "last": epochs[-1]}


def spread(factors: Factors, page: "Page", users: Array | None) -> dict[str, Any]:
    """Which items the first ten of `users` are (None: of everyone's): coverage, by how popular an item is, and the most
    shown ones."""
    shown = factors.recommend_all(users, k=10)[0]
    times = np.bincount(shown[shown >= 0], minlength=len(factors.item_ids))
    taken = factors.train.getnnz(axis=0)
    edges = [0, 1, COLD, 10, 20, 50, np.inf]
    names = ["none", f"1 to {COLD - 1}", f"{COLD} to 9", "10 to 19", "20 to 49", "50 and more"]
    rows: list[dict[str, Any]] = []
    for name, low, high in zip(names, edges, edges[1:], strict=False):
        some = (taken >= low) & (taken < high)
        parts = [some.mean(), taken[some].sum() / max(1, taken.sum()), times[some].sum() / max(1, times.sum())]
        covered = (times[some] > 0).mean() if some.any() else 0.0
        rows.append({"name": name, "items": int(some.sum()), "parts": [float(p) for p in (*parts, covered)]})
    longest = max(part for row in rows for part in row["parts"][1:3])
    half = np.sort(times)[::-1].cumsum()
    return {
        "users": None if users is None else len(users),
        "coverage": float((times > 0).mean()),
        "half": int(np.searchsorted(half, half[-1] / 2) + 1) if half[-1] else 0,
        "rows": rows,
        "longest": longest or 1.0,
        "most": page.items(
            best(times.astype(np.float32), SHOWN), [f"{n:,} users" for n in np.sort(times)[::-1][:SHOWN]]
        ),
    }


@dataclasses.dataclass
class Page:
    """What the page shows of items: each is numbered when first shown, and its thumbnail made at the end, once."""

    factors: Factors
    photos: Photos
    number: dict[int, int] = dataclasses.field(default_factory=dict)

    def items(self, at: Array, words: Sequence[str] = ()) -> list[dict[str, Any]]:
        ids = self.factors.item_ids[at]
        titles = self.photos.titles(ids)
        return [
            {
                "n": self.number.setdefault(int(i), len(self.number)),
                "id": str(item),
                "title": title,
                "words": words[n] if n < len(words) else "",
            }
            for n, (i, item, title) in enumerate(zip(at, ids, titles, strict=True))
        ]

    def people(self, rng: np.random.Generator, measured: Metrics, count: int) -> list[dict[str, Any]]:
        """Sampled users, then the best and the worst ones by AUC of the held-out item."""
        ranks = measured.ranks["all"]
        auc, who = metrics.mean_auc(ranks), np.unique(ranks.users)
        order = np.argsort(-auc, kind="stable")
        few = max(1, count // 2)
        groups = [
            ("Sampled users", np.sort(rng.choice(len(who), min(count, len(who)), replace=False))),
            ("The best served", order[:few]),
            ("The worst served", order[::-1][:few]),
        ]
        return [
            {"title": title, "users": [self.person(int(who[n]), ranks, auc[n]) for n in some]} for title, some in groups
        ]

    def person(self, user: int, ranks: Ranks, auc: float) -> dict[str, Any]:
        f = self.factors
        took = f.train[user].indices
        own = ranks.users == user
        places = [
            f"rank {int(rank):,} of {int(n) + int(own.sum()):,}"  # the other held-out items compete, too
            for rank, n in zip(ranks.rank[own], ranks.candidates[own], strict=True)
        ]
        held = ranks.items[own][:SHOWN]
        hidden = f.seen_by(user)
        known = hidden[~np.isin(hidden, ranks.items[own])]  # the held-out items compete, as in the metrics
        found, scores = f.choose(f.users[user], SHOWN, exclude=known)
        words = [f"{s:.2f}" + (" · held out" if i in held else "") for i, s in zip(found, scores, strict=True)]
        return {
            "id": str(f.user_ids[user]),
            "auc": auc,
            "took": len(took),
            "history": self.items(took[:SHOWN]),
            "found": self.items(found, words),
            "held": self.items(held, places),
        }

    def neighbours(self, rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
        at = np.sort(rng.choice(len(self.factors.item_ids), min(count, len(self.factors.item_ids)), replace=False))
        out = []
        for i in at:
            found, cosine = self.factors.similar_items(int(i), SHOWN)
            out.append({"item": self.items(np.array([i]))[0], "found": self.items(found, [f"{c:.2f}" for c in cosine])})
        return out

    def axes(self) -> list[dict[str, Any]]:
        """The directions in which tastes differ most, and the items at both ends of each.

        A model's own columns are arbitrary up to a rotation; these are the axes of its scores: the principal ones of
        items, weighted by how much users differ along them.
        """
        f = self.factors
        users, items = f.users - f.users.mean(0), f.items - f.items.mean(0)
        spread, vectors = np.linalg.eigh(users.T @ users / len(users))
        weighted = items @ (vectors * np.sqrt(np.maximum(spread, 0)))
        size, turn = np.linalg.eigh(weighted.T @ weighted)
        share, along = size[::-1] / max(float(size.sum()), 1e-12), weighted @ turn[:, ::-1][:, :AXES]
        out = []
        for n in range(min(AXES, int((share > 1e-6 * share[0]).sum()))):
            order = np.argsort(along[:, n], kind="stable")
            out.append({"share": share[n], "low": self.items(order[:SHOWN]), "high": self.items(order[::-1][:SHOWN])})
        return out

    def style_map(self, rng: np.random.Generator, count: int) -> dict[str, Any] | None:
        """Items in the plane, those alike close together, with their thumbnails in a few large pictures."""
        n = len(self.factors.item_ids)
        if n < 10:
            return None
        at = np.sort(rng.choice(n, min(count, n), replace=False))
        places, how = plane(unit_rows(self.factors.items[at]))
        ids = self.factors.item_ids[at]
        column = self.photos.data.items().get("category", {})
        names = [column.get(str(i), "") for i in ids]
        common = [name for name, _ in Counter(names).most_common() if name][:10]
        kinds = [common.index(name) if name in common else -1 for name in names]
        cells = threads(lambda i: ImageOps.fit(self.photos.get(str(i)), (CELL, CELL), Image.Resampling.BILINEAR), ids)
        atlases = []
        for a in range(0, len(cells), ATLAS * ATLAS):
            part = cells[a : a + ATLAS * ATLAS]
            sheet = Image.new("RGB", (ATLAS * CELL, -(-len(part) // ATLAS) * CELL), "white")
            for k, image in enumerate(part):
                sheet.paste(image, (k % ATLAS * CELL, k // ATLAS * CELL))
            buffer = io.BytesIO()
            sheet.save(buffer, "WEBP", quality=60)
            atlases.append(data_url(buffer.getvalue()))
        return {
            "how": how,
            "total": n,
            "data": {
                "cell": CELL,
                "columns": ATLAS,
                "xy": [[round(float(x), 4), round(float(y), 4)] for x, y in places],
                "ids": ids.tolist(),
                "titles": self.photos.titles(ids),
                "kinds": kinds,
                "names": common,
                "atlases": atlases,
            },
        }

    def thumbnails(self) -> list[str]:
        """The data URL of each numbered item, in order; empty where there is no photograph."""
        ids = self.factors.item_ids[list(self.number)]

        def one(item_id: Any) -> str:
            data = self.photos.thumbnail(str(item_id), SIDE)
            return "" if data is None else data_url(data)

        return threads(one, ids)


def plane(vectors: Array) -> tuple[Array, str]:
    """(n, 2) places in [0, 1] of unit vectors, and how they were found, in words."""
    centred = vectors - vectors.mean(0)
    _, size, turn = np.linalg.svd(centred, full_matrices=False)
    first = np.zeros((len(vectors), 2))
    first[:, : min(2, len(turn))] = centred @ turn[:2].T
    if len(vectors) >= 100 and importlib.util.find_spec("openTSNE") is not None:
        import openTSNE

        how = "t-SNE: near each other means alike; distances far off mean little"
        scaled = first / max(float(first[:, 0].std()), 1e-12) * 1e-4
        tsne = openTSNE.TSNE(
            perplexity=min(30, len(vectors) // 4), metric="euclidean", initialization=scaled, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first = np.asarray(tsne.fit(vectors))
    else:
        share = float((size[:2] ** 2).sum() / max(float((size**2).sum()), 1e-12))
        how = f"the first two principal axes, which hold {share:.0%} of the differences"
        if len(vectors) >= 100:
            how += " (pip install 'vbpr[report]' gives a t-SNE map, which separates styles better)"
    low, high = first.min(0), first.max(0)
    return (first - low) / np.maximum(high - low, 1e-12), how


def threads(work: Callable[[Any], Any], values: Any) -> list[Any]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, values))


def data_url(webp: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def render(factors: Factors, dataset: Dataset, page: Page, sections: dict[str, Any]) -> str:
    import jinja2

    record = factors.record
    text = (importlib.resources.files("vbpr") / "templates" / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    apart = ("title", "data_title", "simulated", "scores_unseen", "curve", "config", "features", "versions", "added")
    made = {key: value for key, value in factors.about.items() if key not in apart}
    read = {"model", *(MODELS[record.model].reads if record.model in MODELS else record.config)}
    return environment.from_string(text).render(
        title=record.title,
        data=record.data_title or dataset.title,
        simulated=record.simulated,
        users=len(factors.user_ids),
        items=len(factors.item_ids),
        parts={name: getattr(factors, name).nnz for name in MATRICES},
        made=made,
        features=record.features,
        added=record.added,
        config={key: value for key, value in record.config.items() if key in read},
        versions=record.versions,
        thumbnails=page.thumbnails(),
        **sections,
    )


__all__ = ["report"]
