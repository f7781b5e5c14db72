"""One HTML page to judge a model by, with everything inside it: figures first, then pictures.

report("artifacts/inc.model.h5")        # artifacts/inc.model.html

Each thumbnail is made once and stored once in the page; wherever it is shown refers to it.
"""

import importlib.resources
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import VbprError
from ...base.files import replace_text
from ...base.progress import Progress
from ...base.targets import check_target
from ...data.dataset import Dataset
from ...data.parts import MATRICES
from ...data.split import Split
from ...evaluation.evaluate import Metrics, evaluate
from ...stores.features.store import FeatureStore
from ...stores.model.factors import Factors
from ...training.catalogue import align
from ...training.configure import configure
from ...training.fit import fit
from ...training.models import MODELS
from ..photos import Photos
from .gallery import Gallery
from .plots import curve, style_map
from .sections import axes, neighbours, people, reasons, spread

MADE_BY = ("backbone", "weights_digest", "preprocessing", "precision")  # features that agree in these are comparable


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
        users: how many sampled users are shown, and as many items with neighbours.
        map_items: most items on the map of styles.
        rank_users: measure on so many users only, drawn at random; None for everyone. The time grows with them.

    Raises:
        VbprError: the model file cannot be used or the page not be written.
    """
    path = Path(out) if out is not None else Path(model).with_suffix(".html")
    check_target(path, "a page")
    factors = Factors.load(model)
    rng = np.random.default_rng(seed)
    dataset = Dataset.behind(factors.record.data, data)
    gallery = Gallery(factors, Photos(dataset, factors.record.added))
    measured, note = measure(factors, device, rank_users, seed)
    ranked = None if rank_users is None else np.unique(measured[0].ranks["all"].users)
    has_vectors = bool(factors.items.shape[1])
    with Progress("report", 4, "parts") as bar:
        sections: dict[str, Any] = {
            "metrics": [m.summary() for m in measured],
            "note": note,
            "curve": curve(factors),
            "people": people(gallery, rng, measured[0], users),
            "spread": spread(gallery, ranked),
        }
        sections["reasons"] = reasons(gallery, sections["people"][0]["users"])
        bar.advance(1, "users")
        if has_vectors:
            sections |= {"neighbours": neighbours(gallery, rng, users), "axes": axes(gallery)}
        bar.advance(1, "items")
        sections["map"] = style_map(factors, gallery.photos, rng, map_items) if has_vectors and map_items else None
        bar.advance(1, "map")
        html = render(factors, dataset, gallery, sections)
        replace_text(path, html, "a page", "backslashreplace")
        bar.advance(1, "page")
    gallery.photos.warn_if_none(factors.item_ids[list(gallery.number)])
    return path


def measure(factors: Factors, device: str, users: int | None, seed: int) -> tuple[list[Metrics], str]:
    """The model's metrics, those of the baselines that can be fitted here, and a sentence on the one that cannot."""
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
    baselines = [
        fit(split, features if name == "knn" else None, configure(name)) for name in names if name != record.model
    ]
    return [evaluate(f, device=device, users=users, seed=seed) for f in (factors, *baselines)], note


def render(factors: Factors, dataset: Dataset, gallery: Gallery, sections: dict[str, Any]) -> str:
    """The page: templates/report.html with these sections, and all that is on record of how the model was made."""
    import jinja2

    record = factors.record
    text = (importlib.resources.files("vbpr") / "templates" / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    apart = {"title", "data_title", "simulated", "scores_unseen", "curve", "config", "features", "versions", "added"}
    apart |= {"blend", "choice"}
    made = {key: value for key, value in factors.about.items() if key not in apart}
    options = {"model", *(MODELS[record.model].reads if record.model in MODELS else record.config)}
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
        config={key: value for key, value in record.config.items() if key in options},
        versions=record.versions,
        blend=factors.about.get("blend"),
        choice=factors.about.get("choice"),
        thumbnails=gallery.thumbnails(),
        **sections,
    )


__all__ = ["report"]
