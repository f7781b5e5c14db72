"""Drawings of the report: the learning curve, and the map of styles."""

import importlib.util
import io
import warnings
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ...base.arrays import Array, Strings
from ...stores.model.factors import Factors
from ...stores.model.head import unit_rows
from ..photos import Photos
from .gallery import data_url, threads

CELL = 72  # pixels of a thumbnail on the map
ATLAS = 40  # cells on a side of one picture of the map's thumbnails


def curve(factors: Factors) -> dict[str, Any] | None:
    """The learning curve of the first part trained, as a drawing of 600 by 200; None for fewer than two epochs."""
    points = [p for p in factors.record.first_curve() if "auc" in p]
    if len({p["epoch"] for p in points}) < 2:
        return None
    epochs, aucs = [p["epoch"] for p in points], [p["auc"] for p in points]
    low, high = min(aucs), max(aucs)
    x = [50 + 530 * (e - epochs[0]) / (epochs[-1] - epochs[0]) for e in epochs]
    y = [180 - 160 * (a - low) / max(high - low, 1e-9) for a in aucs]
    marks = [{"x": a, "y": b, "epoch": e, "auc": auc} for a, b, e, auc in zip(x, y, epochs, aucs, strict=True)]
    return {"marks": marks, "low": low, "high": high, "first": epochs[0], "last": epochs[-1]}


def style_map(factors: Factors, photos: Photos, rng: np.random.Generator, count: int) -> dict[str, Any] | None:
    """Items in the plane, those alike close together, with their thumbnails in a few large pictures; None for fewer
    than ten items."""
    n = len(factors.item_ids)
    if n < 10:
        return None
    at = np.sort(rng.choice(n, min(count, n), replace=False))
    places, method = plane(unit_rows(factors.items[at]))
    ids = factors.item_ids[at]
    column = photos.data.items().get("category", {})
    names = [column.get(str(i), "") for i in ids]
    common = [name for name, _ in Counter(names).most_common() if name][:10]
    return {
        "how": method,
        "total": n,
        "data": {
            "cell": CELL,
            "columns": ATLAS,
            "xy": [[round(float(x), 4), round(float(y), 4)] for x, y in places],
            "ids": ids.tolist(),
            "titles": photos.titles(ids),
            "kinds": [common.index(name) if name in common else -1 for name in names],
            "names": common,
            "atlases": atlases(photos, ids),
        },
    }


def atlases(photos: Photos, ids: Strings) -> list[str]:
    """The photographs of items as cells of large pictures, ATLAS x ATLAS of them in each; their data URLs."""
    cells = threads(lambda i: ImageOps.fit(photos.get(str(i)), (CELL, CELL), Image.Resampling.BILINEAR), ids)
    out = []
    for a in range(0, len(cells), ATLAS * ATLAS):
        part = cells[a : a + ATLAS * ATLAS]
        sheet = Image.new("RGB", (ATLAS * CELL, -(-len(part) // ATLAS) * CELL), "white")
        for k, image in enumerate(part):
            sheet.paste(image, (k % ATLAS * CELL, k // ATLAS * CELL))
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", quality=60)
        out.append(data_url(buffer.getvalue()))
    return out


def plane(vectors: Array) -> tuple[Array, str]:
    """(n, 2) places in [0, 1] of (n, K) unit vectors, and in words how they came about."""
    centred = vectors - vectors.mean(0)
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(vectors), 2))
    places[:, : min(2, len(axes))] = centred @ axes[:2].T
    if len(vectors) >= 100 and importlib.util.find_spec("openTSNE") is not None:
        import openTSNE

        method = "t-SNE: near each other means alike; distances far off mean little"
        start = places / max(float(places[:, 0].std()), 1e-12) * 1e-4
        tsne = openTSNE.TSNE(
            perplexity=min(30, len(vectors) // 4), metric="euclidean", initialization=start, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            places = np.asarray(tsne.fit(vectors))
    else:
        share = float((size[:2] ** 2).sum() / max(float((size**2).sum()), 1e-12))
        method = f"the first two principal axes, which hold {share:.0%} of the differences"
        if len(vectors) >= 100:
            method += " (pip install openTSNE gives a t-SNE map, which separates styles better)"
    low, high = places.min(0), places.max(0)
    return (places - low) / np.maximum(high - low, 1e-12), method


__all__ = ["curve", "plane", "style_map"]
