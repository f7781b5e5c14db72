"""Stage one: every image goes through the frozen backbone once, into the feature file.

extract(Dataset.resolve("data"), "inception", out="artifacts/inc.h5")
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.progress import Progress, console
from ..base.stopping import Stopped, stop_signals
from ..base.targets import check_target
from ..data.dataset import Dataset
from ..data.images.source import ImageSource
from ..executors.world import World
from ..stores.features.layout import DONE
from ..stores.features.store import FeatureStore
from ..stores.features.writer import Writer
from .own_autoencoder import autoencoder
from .processes import heeding, opened, others, own_gpu
from .provenance import provenance_of, recorded_fallback
from .request import check_names, check_options, feature_file, request_of, up_to_date
from .steps import encoded


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What a run did.

    Attributes:
        items: rows in the file. written: rows written now. failures: (item id, reason). rate: images a second.
        dropped: finished rows that went with their items. away: ids of items whose image is away (a dangling link,
            a folder that may not be entered, an empty file) but whose features, made before, are kept. odd: (item id,
            "W x H") of images, among those written now, that are so small or narrow that they say little. others: files
            passed over because they are not named like an image, by ending. rank: which of several processes this
            is; all but the first (0) know what they have written themselves only.
    """

    path: Path
    items: int
    written: int
    failures: list[tuple[str, str]]
    rate: float
    dropped: int = 0
    away: list[str] = dataclasses.field(default_factory=list)
    odd: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    others: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rank: int = 0


def extract(
    data: Dataset | Path | str,
    backbone: str = "inception",
    out: Path | str | None = None,
    *,
    weights: Path | str | None = None,
    random_weights: bool = False,
    device: str = "auto",
    precision: str = "exact",
    engine: str = "auto",
    batch: int | None = None,
    threads: int | None = None,
    max_bad: float = 0.05,
    verify: bool = False,
    cae: dict[str, Any] | None = None,
) -> Extraction:
    """Encode every image of a data set that is not yet in the feature file `out`.

    A killed or stopped run resumes; a changed image is encoded again, a new one added, one that is gone dropped. One
    that is there but has nothing to look at for now (a dangling link, an empty file) keeps its features. Where
    torchrun has started several processes on a machine, they share the images, and each takes a GPU.

    Args:
        max_bad: the largest share of images that may be unusable.
        verify: compare a file that is there with its digests first, and encode anew what has changed in it.
        cae: how the backbone `cae` is trained on these images where no weights are given: see `train_autoencoder`.

    Raises:
        VbprError: see `load_backbone`, `Writer.create`; or too many bad images.
        Stopped: Ctrl-C or SIGTERM.
    """
    check_options(precision, max_bad, batch, threads)
    data, path = Dataset.resolve(data), feature_file(backbone, out)
    with World.here() as world:
        source = data.images()
        signatures = np.fromiter((source.signature(i) for i in range(len(source))), np.uint64, len(source))
        training = backbone == "cae" and weights is None and not random_weights
        recipe = {key: value for key, value in (cae or {}).items() if value is not None} if training else {}
        request = request_of(backbone, weights, random_weights, precision, recipe)
        finished = up_to_date(path, request, data, source, signatures, verify) if world.first else None
        if world.once("finished", lambda: finished is not None):
            if finished is None:  # it is the first process that looked
                return Extraction(path, len(source), 0, [], 0.0, rank=world.rank)
            return checked(finished, source, signatures, max_bad)
        check_target(path, "features")
        from ..networks.registry import load_backbone
        from ..networks.timm_models import size_of_bare_name
        from .trial import tried_encoder, two_pictures

        processor, chosen = pick_processor(world, engine, device, precision, batch)
        if training:
            weights = world.once("weights", lambda: str(autoencoder(path, data, source, processor, recipe)))
        if not path.exists():
            world.once("names", lambda: check_names(data, source))
            if world.first and weights is not None and (note := size_of_bare_name(backbone)):
                console.print(f"note: {note}")
        model = load_backbone(backbone, weights, random_weights)
        how, fallback = model.preprocessing, recorded_fallback(path)
        chosen = "torch" if fallback else chosen

        def start(images: int) -> tuple[Any, str]:
            pictures = two_pictures(source, how)
            return tried_encoder(model, processor, precision, chosen, batch, images, pictures)

        encoder, fallback = (None, fallback) if path.exists() else start(len(source) // world.size)
        rounding = (encoder.engine if encoder else chosen) + " on a GPU" * (processor.type == "cuda")
        provenance = provenance_of(model, request, data, weights, rounding, fallback)
        with opened(world, path, source, signatures, model.dim, provenance, verify) as store:
            mine = world.share(store.pending)
            if len(mine) and encoder is None:
                encoder, fault = start(len(mine))
                if fault and precision == "fast":
                    raise VbprError(f"{path} was made by {rounding}, but now {fault}; choose another --out")
            threads = threads or max(1, len(os.sched_getaffinity(0)) // world.size)
            done = encode_pending(world, store, source, encoder, how, threads, f"extract {backbone}")
            if not world.first:
                return done
            totals = checked(store, source, signatures, max_bad, done.written, done.rate)
            return dataclasses.replace(totals, dropped=store.dropped, odd=done.odd)


def pick_processor(world: World, engine: str, device: str, precision: str, batch: int | None) -> tuple[Any, str]:
    """(torch device, engine) of this process.

    Raises:
        VbprError: they are not there, or gain nothing by `precision`.
    """
    from ..compute.device import multiplies_bfloat16, pick_device
    from .engines import pick_engine

    processor = pick_device(own_gpu(device, world.rank) if world.size > 1 else device)
    if precision == "fast" and not multiplies_bfloat16(processor):
        kind = "GPU" if processor.type == "cuda" else "CPU"
        raise VbprError(f"--precision fast: this {kind} has no units for bfloat16 and gains nothing; leave it out")
    return processor, pick_engine(engine, processor, batch)


def encode_pending(
    world: World,
    store: Writer,
    source: ImageSource,
    encoder: Any,
    preprocessing: Any,
    threads: int,
    label: str,
) -> Extraction:
    """Encode the rows that are pending: this process its share, and the first waits for the others.

    Raises:
        Stopped: Ctrl-C or SIGTERM, before the last row.
    """
    total, mine = len(store.pending), world.share(store.pending)
    world.meet("opened")  # from here on they write
    written, rate = 0, 0.0
    odd: list[tuple[str, str]] = []
    if total:
        with Progress(label, total, "images", shown=world.first) as bar, stop_signals() as stopping:
            steps = encoded(store, source, encoder, preprocessing, mine, threads, stopping, odd)
            for rows, bad in steps if len(mine) else ():
                written += rows
                with heeding(stopping):
                    bar.advance(world.count(rows + bad) - bar.done)
                    world.check()
            if world.size > 1:
                with heeding(stopping):
                    written += others(world, store, bar, stopping, written, odd)
            if stopping() and len(store.pending):
                raise Stopped(
                    f"stopped with {len(store.done):,} of {len(store):,} items in {store.path}; run the same command "
                    "again to resume"
                )
            rate = bar.rate
    return Extraction(store.path, len(store), written, [], rate, odd=sorted(odd), rank=world.rank)


def checked(
    store: FeatureStore,
    source: ImageSource,
    signatures: Array,
    max_bad: float,
    written: int = 0,
    rate: float = 0.0,
) -> Extraction:
    """What was done, unless too many images could not be used."""
    failures, away = store.failures(), store.item_ids[(store.state == DONE) & (signatures == 0)].tolist()
    if not len(store.done):
        raise VbprError(
            f"none of the {len(store):,} images of {source.name} could be used ({summary(failures)}); "
            "give --data a folder of readable images"
        )
    bad = failures + [(item, "away, features kept") for item in away]
    if len(bad) > max_bad * len(store):
        raise VbprError(
            f"{len(bad):,} of {len(store):,} images of {source.name} could not be used ({summary(bad)}; first: "
            f"{bad[0][0]!r}), more than --max-bad {max_bad:g}; mend them or raise it"
        )
    return Extraction(store.path, len(store), written, failures, rate, away=away, others=source.others)


def summary(failures: list[tuple[str, str]]) -> str:
    """Failures by reason: `12 truncated, 3 not an image`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(r for _, r in failures).most_common())


__all__ = ["Extraction", "extract", "summary"]
