"""Stage one: every image goes through the frozen backbone once, into the feature file.

extract(Dataset.resolve("data"), "inception", out="artifacts/inc.h5")
"""

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.progress import Progress, console
from ..base.stopping import Stopped, stop_signals
from ..base.targets import check_target
from ..data.dataset import Dataset
from ..data.images.source import PASSING, ImageSource
from ..executors import hired
from ..executors.cluster import check_cluster
from ..executors.job import Crew
from ..executors.parts import Ranges
from ..networks.names import parted
from ..stores.features.layout import DONE
from ..stores.features.store import FeatureStore
from ..stores.features.writer import Writer
from .own_autoencoder import autoencoder
from .provenance import provenance_of, recorded_fallback
from .request import (
    How,
    check_names,
    check_options,
    feature_file,
    placed,
    recorded_place,
    request_of,
    up_to_date,
    with_layers,
)
from .shared import SHARED, refuse, shared_pictures
from .steps import Encoded, encoded, in_steps
from .views import combined, take_over, views_file
from .workers import EncodingJob, begun, ids_digest, range_of


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What a run did.

    Attributes:
        items: rows in the file. written: images encoded now. failures: (item id, reason). rate: images a second.
        dropped: finished rows that went with their items. away: ids of items whose image is away (a dangling link,
            a folder that may not be entered, an empty file) but whose features, made before, are kept. odd: (item id,
            "W x H") of images, among those written now, that are so small or narrow that they say little. others: files
            passed over because they are not named like an image, by ending. shared: of each picture that several
            items share, how many these are, the largest number first, and the id of one; looked for in
            runs that encode.
        views: where items have several pictures, what was done with these; `failures`, `away`, `odd` and `shared` of
            it go by the pictures' paths.
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
    shared: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    views: "Extraction | None" = None


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
    images: Path | str | None = None,
    id_field: str | None = None,
    views: str = "mean",
    max_shared: int | None = None,
    max_bad: float = 0.05,
    verify: bool = False,
    cluster: str | None = None,
    layer: str | None = None,
    cae: dict[str, Any] | None = None,
) -> Extraction:
    """Encode every image of a data set that is not yet in the feature file `out`.

    A killed or stopped run resumes; a changed image is encoded again, a new one added, one that is gone dropped. One
    that is there but has nothing to look at for now (a dangling link, an empty file) keeps its features. On a cluster,
    workers share the images, and each takes a GPU or some cores; this process alone writes the very same file.

    Args:
        images: where they are, if not in the data set: a folder, tar or zip, or an address of one (s3://, gs://,
            http://, https://).
        id_field: of samples in tars (WebDataset, img2dataset), the field that is the item's id; None: that which fits.
        views: where items have several pictures, `mean` of their features (each picture then has a row in a file of
            its own, `inc.views.h5` beside `inc.h5`), or `first`.
        max_shared: a picture that more items than this have, byte by byte, is no photo of any of them.
        max_bad: the largest share of images that may be unusable.
        verify: compare a file that is there with its digests first, and encode anew what has changed in it.
        cluster: `local`, or HOST:PORT of a Ray cluster's head; None: this process alone. See `CLUSTER`.
        layer: of the network's layers, those whose pooled maps are put side by side: see `networks.layers`.
        cae: how the backbone `cae` is trained on these images where no weights are given: see `train_autoencoder`.

    Raises:
        VbprError: see `load_backbone`, `Writer.create`; or too many bad images.
        Stopped: Ctrl-C or SIGTERM.
    """
    check_options(precision, max_bad, batch, threads, views, max_shared)
    check_cluster(cluster, device)
    backbone = with_layers(backbone, layer)
    data, path = placed(Dataset.resolve(data), images, id_field), feature_file(backbone, out)
    how = How(
        *(backbone, weights, random_weights, device, precision, engine, batch, threads),
        *(max_shared, max_bad, verify, cluster),
    )
    source = data.images()
    if source.pictures is None:
        return encode(data, source, path, how, cae or {}, {})
    if views == "first":
        return encode(data, source, path, how, cae or {}, {"views": "first"})
    check_target(path, "features")
    done = encode(data, source.pictures.source, views_file(path), how, cae or {}, {"pictures": True}, (path, source))
    store, dropped = combined(path, FeatureStore(done.path), source, verify)
    totals = checked(store, source, store.signature, 1.0, done.written, done.rate)
    return dataclasses.replace(totals, dropped=dropped, views=done)


def encode(
    data: Dataset,
    source: ImageSource,
    path: Path,
    how: How,
    cae: dict[str, Any],
    told: dict[str, Any],
    of: tuple[Path, ImageSource] | None = None,
) -> Extraction:
    """Encode the images of a source that the feature file at `path` lacks; see `extract`.

    Args:
        told: what else the file records: see `TOLD`.
        of: where the source is one of pictures, the feature file and the source of the items that they are of.
    """
    signatures = np.fromiter((source.signature(i) for i in range(len(source))), np.uint64, len(source))
    training = how.backbone == "cae" and how.weights is None and not how.random_weights
    recipe = {key: value for key, value in cae.items() if value is not None} if training else {}
    told = told | recorded_place(data) | ({"max_shared": how.max_shared} if how.max_shared else {})
    request = request_of(how.backbone, how.weights, how.random_weights, how.precision, recipe)
    finished = up_to_date(path, request, data, source, signatures, how.verify, told)
    if finished is not None:
        return checked(finished, source, signatures, how.max_bad)
    check_target(path, "features")
    from ..compute.device import pick_device
    from ..networks.registry import load_backbone
    from ..networks.timm_models import size_of_bare_name

    weights = how.weights
    if training:
        weights = autoencoder(path, data, source, pick_device(how.device), recipe)
    if not path.exists():
        check_names(data, source if of is None else of[1])
        if weights is not None and (note := size_of_bare_name(parted(how.backbone)[0])):
            console.print(f"note: {note}")
    model = load_backbone(how.backbone, weights, how.random_weights)
    job = EncodingJob(
        data.name,
        data.place,
        data.id_field,
        of is not None,
        ids_digest(source.item_ids),
        how.backbone,
        None if weights is None else os.path.realpath(weights),
        how.random_weights,
        model.fingerprint,
        how.engine,
        how.precision,
        how.batch,
        how.threads,
        how.device,
        recorded_fallback(path) if path.exists() else None,
        request["versions"],
    )
    groups = shared_pictures(source, of[1].pictures if of else None)
    refused = [group.rows for group in groups if how.max_shared and group.items > how.max_shared]
    with at_work(how.cluster, job, model, source, signatures) as work:
        provenance = provenance_of(model, request, data, weights, work.rounding, work.fallback, told)
        with FeatureStore.create(path, source.item_ids, signatures, model.dim, provenance, how.verify) as store:
            store.retry(PASSING)
            refuse(store, refused)
            if of is not None:
                take_over(store, *of)
            done = encode_pending(store, work, f"extract {how.backbone}")
            totals = checked(store, source, signatures, how.max_bad, done.written, done.rate)
    shared = [(group.items, str(source.item_ids[group.rows[0]])) for group in groups]
    return dataclasses.replace(totals, dropped=store.dropped, odd=done.odd, shared=shared)


@contextlib.contextmanager
def at_work(
    cluster: str | None, job: EncodingJob, model: Any, source: ImageSource, signatures: Array
) -> "Iterator[Here | There]":
    """This process, or the workers of a cluster, ready to encode."""
    if cluster is None:
        yield Here(job, model, source)
        return
    with hired(cluster, job) as crew:
        yield There(crew, signatures)


class Here:
    """This process at work on the images of a run.

    Attributes:
        fallback, rounding: see `begun`; of a file that is there, as recorded, until the work begins.
    """

    def __init__(self, job: EncodingJob, model: Any, source: ImageSource) -> None:
        self.job, self.model, self.source = job, model, source
        self.encoder: Any = None
        if job.fallback is None:
            self.begin(len(source))
            return
        from ..compute.device import pick_device
        from .engines import pick_engine

        processor = pick_device(job.device)
        engine = "torch" if job.fallback else pick_engine(job.engine, processor, job.batch)
        self.fallback, self.rounding = job.fallback, engine + " on a GPU" * (processor.type == "cuda")

    def begin(self, images: int) -> None:
        job = self.job
        self.encoder, self.fallback, self.rounding = begun(
            self.model, self.source, job.engine, job.device, job.precision, job.batch, job.fallback, images
        )

    def run(self, pending: Array, stopping: Callable[[], bool]) -> Iterator[Encoded]:
        """What comes of these rows, step by step."""
        if self.encoder is None:
            self.begin(len(pending))
        steps = in_steps(pending, self.encoder.batch)
        threads = self.job.threads or len(os.sched_getaffinity(0))
        return encoded(self.source, self.encoder, self.model.preprocessing, steps, threads, stopping)


class There:
    """The workers of a cluster at work on them; see `Here`."""

    def __init__(self, crew: Crew, signatures: Array) -> None:
        self.crew, self.signatures = crew, signatures
        self.fallback, self.rounding = crew.about["fallback"], crew.about["rounding"]

    def run(self, pending: Array, stopping: Callable[[], bool]) -> Iterator[Encoded]:
        """What comes of these rows, range by range."""
        ranges = Ranges(len(self.signatures), range_of(self.crew.about["batch"]))
        parts = ((rows, self.signatures[rows]) for rows in ranges.left(pending))
        return (done for _, _, done in self.crew.run(parts, stopping))


def encode_pending(store: Writer, work: Here | There, label: str) -> Extraction:
    """Encode the rows that are pending.

    Raises:
        Stopped: Ctrl-C or SIGTERM, before the last row.
    """
    pending = store.pending
    written, rate = 0, 0.0
    odd: list[tuple[str, str]] = []
    if len(pending):
        with Progress(label, len(pending), "images") as bar, stop_signals() as stopping:
            for step in work.run(pending, stopping):
                store.write(step.rows, step.features)
                store.fail(step.failed, step.reasons)
                odd += [(str(store.item_ids[row]), size) for row, size in step.odd]
                written += len(step.rows)
                bar.advance(len(step.rows) + len(step.failed))
            if stopping() and len(store.pending):
                raise Stopped(
                    f"stopped with {len(store.done):,} of {len(store):,} items in {store.path}; run the same command "
                    "again to resume"
                )
            rate = bar.rate
    return Extraction(store.path, len(store), written, [], rate, odd=sorted(odd))


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
    bad = [failure for failure in failures if failure[1] != SHARED]
    bad += [(item, "away, features kept") for item in away]
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
