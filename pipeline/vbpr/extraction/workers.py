"""An extraction on a cluster: a worker loads the backbone once, and is given ranges of rows.

It reads the pictures itself, from a place that all machines reach, and gives float16 rows back: the driver alone
writes. On CPUs of one kind a row has the same bits wherever it is encoded.
"""

import dataclasses
import hashlib
import importlib.metadata
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np

from ..base.arrays import Array, Strings, update_with_ids
from ..base.errors import VbprError
from ..data.dataset import Dataset
from ..data.images.source import PASSING, ImageSource
from ..executors.job import Place, Unfit
from ..stores.features.layout import BLOCK
from .steps import Encoded, encoded, in_steps

RANGE = 256  # rows given out at a time, of engines that take few at once; else a block of the file
FEW = 64  # images of a step, at most, of such an engine


@dataclasses.dataclass(frozen=True)
class EncodingJob:
    """What each worker needs to know; see `Job`.

    Attributes:
        data: the data set's name: `sample`, or a path that all machines have. place, id_field: see `Dataset`.
        pictures: whether rows are all pictures, and not items. ids: the digest of their ids.
        fingerprint: of the backbone, as the driver has loaded it.
        engine, precision, batch, threads, device: as `extract` takes them.
        fallback: what a file that is there has on record; None: there is no file.
        versions: of the packages that decide what features are.
    """

    data: str
    place: str | None
    id_field: str | None
    pictures: bool
    ids: str
    backbone: str
    weights: str | None
    random_weights: bool
    fingerprint: str
    engine: str
    precision: str
    batch: int | None
    threads: int | None
    device: str
    fallback: str | None
    versions: dict[str, str]
    cores: int = 0
    overlap: int = 2  # while the last step of a range is encoded, the first of the next is decoded

    def begin(self, place: Place) -> "Encoding":
        """Load the backbone, and look at the pictures.

        Raises:
            VbprError: the machine has other versions, weights or pictures, or cannot reach them.
        """
        for name, version in self.versions.items():
            if (there := importlib.metadata.version(name)) != version:
                raise VbprError(f"it has {name} {there}, and this run is of {version}")
        data = dataclasses.replace(Dataset.resolve(self.data), place=self.place, id_field=self.id_field)
        images = data.images()
        source = images.pictures.source if self.pictures and images.pictures is not None else images
        if ids_digest(source.item_ids) != self.ids:
            raise VbprError(f"it sees other pictures in {self.data} ({len(source):,} of them)")
        from ..networks.registry import load_backbone
        from .engines.openvino import OpenvinoRunner

        OpenvinoRunner.alone = not place.node
        model = load_backbone(self.backbone, self.weights, self.random_weights)
        if model.fingerprint != self.fingerprint:
            raise VbprError(f"its weights of {self.backbone} are others ({model.weights})")
        device = ("cuda" if self.device == "auto" else self.device) if place.gpu else "cpu"
        encoder, fallback, rounding = begun(
            model, source, self.engine, device, self.precision, self.batch, self.fallback, len(source)
        )
        about = {"fallback": fallback, "rounding": rounding, "batch": encoder.batch}
        return Encoding(source, encoder, model.preprocessing, self.threads or max(1, place.cores), about, self)


def begun(
    model: Any,
    source: ImageSource,
    engine: str,
    device: str,
    precision: str,
    batch: int | None,
    recorded: str | None,
    images: int,
) -> tuple[Any, str, str]:
    """(encoder, why it is another engine than was asked for, engine and kind of device).

    Args:
        recorded: what a file that is there says of that; None: there is no file.

    Raises:
        VbprError: what is asked for is not there, or gives other features than the file that is there.
    """
    from ..compute.device import multiplies_bfloat16, pick_device
    from .engines import pick_engine
    from .trial import tried_encoder, two_pictures

    processor = pick_device(device)
    if precision == "fast" and not multiplies_bfloat16(processor):
        kind = "GPU" if processor.type == "cuda" else "CPU"
        raise VbprError(f"--precision fast: this {kind} has no units for bfloat16 and gains nothing; leave it out")
    chosen = pick_engine(engine, processor, batch)
    chosen = "torch" if recorded else chosen
    pictures = two_pictures(source, model.preprocessing)
    encoder, fault = tried_encoder(model, processor, precision, chosen, batch, images, pictures)
    gpu = " on a GPU" * (processor.type == "cuda")
    if recorded is not None and fault and precision == "fast":
        raise VbprError(f"the file was made by {chosen}{gpu}, but now {fault}; choose another --out")
    return encoder, fault if recorded is None else recorded, encoder.engine + gpu


class Encoding:
    """A loaded backbone at work on ranges, one after another without a pause between them; see `Work`."""

    def __init__(
        self, source: ImageSource, encoder: Any, how: Any, threads: int, about: dict[str, Any], job: EncodingJob
    ) -> None:
        self.source, self.encoder, self.how, self.threads, self.about, self.job = (
            source,
            encoder,
            how,
            threads,
            about,
            job,
        )
        self.waiting: queue.SimpleQueue[Range] = queue.SimpleQueue()
        self.stopped = False
        threading.Thread(target=self.work, daemon=True).start()

    def agree(self, first: dict[str, Any]) -> None:
        """
        Raises:
            VbprError: this engine rounds otherwise than the first worker's, where that makes other features.
        """
        mine = [self.about["fallback"], *([self.about["rounding"]] if self.job.precision == "fast" else [])]
        others = [first["fallback"], *([first["rounding"]] if self.job.precision == "fast" else [])]
        if mine != others:
            raise VbprError(f"it would encode by {self.about['rounding']}, and the first worker by {first['rounding']}")

    def stop(self) -> None:
        self.stopped = True

    def __call__(self, part: tuple[Array, Array]) -> Encoded:
        """What came of a range.

        Args:
            part: rows, and the signatures of their images as the driver sees them.

        Raises:
            Unfit: most of these images are not there for this machine, or are others.
        """
        rows, signatures = part
        here = np.array([self.source.signature(int(row)) for row in rows], np.uint64)
        strange = (here != signatures) & (signatures != 0)
        if 2 * strange.sum() > len(rows):
            what = "cannot reach the" if not here[strange].any() else "sees other"
            raise Unfit(f"it {what} pictures in {self.job.data} (first: {self.source.item_ids[rows[strange][0]]})")
        task = Range(rows, self.encoder.dim)
        self.waiting.put(task)
        done = task.ended.result()
        passing = [reason for reason, row in zip(done.reasons, done.failed, strict=True) if reason in PASSING]
        if 2 * len(passing) > np.count_nonzero(signatures):
            raise Unfit(f"it cannot read the pictures in {self.job.data} ({passing[0]})")
        return done

    def work(self) -> None:
        """Of a thread: encode what waits, until the process ends."""
        while True:
            tasks = [self.waiting.get()]
            try:
                steps = self.steps(tasks)
                for step in encoded(self.source, self.encoder, self.how, steps, self.threads, lambda: self.stopped):
                    tasks[0].take(step)
                    if tasks[0].left == 0:
                        tasks.pop(0).end()
                for task in tasks:  # stopped: with as much as is done
                    task.end()
            except BaseException as error:
                for task in tasks:
                    task.ended.set_exception(error)

    def steps(self, tasks: list["Range"]) -> Iterator[tuple[Array, Array]]:
        """The steps of a range, and of those that wait when its last step has been taken."""
        task = tasks[0]
        while True:
            yield from in_steps(task.rows, self.encoder.batch)
            try:
                task = self.waiting.get_nowait()
            except queue.Empty:
                return
            tasks.append(task)


class Range:
    """A range in hand: its rows, what has come of them, and how many are left."""

    def __init__(self, rows: Array, dim: int) -> None:
        self.rows, self.left, self.dim = rows, len(rows), dim
        self.steps: list[Encoded] = []
        self.ended: Future[Encoded] = Future()

    def take(self, step: Encoded) -> None:
        self.left -= len(step.rows) + len(step.failed)
        with np.errstate(over="ignore"):  # whoever writes refuses what float16 does not hold
            step.features = step.features.astype(np.float16)
        self.steps.append(step)

    def end(self) -> None:
        none = np.empty(0, np.int64)
        self.ended.set_result(
            Encoded(
                np.concatenate([none, *(step.rows for step in self.steps)]),
                np.concatenate([np.empty((0, self.dim), np.float16), *(step.features for step in self.steps)]),
                np.concatenate([none, *(step.failed for step in self.steps)]),
                [reason for step in self.steps for reason in step.reasons],
                [odd for step in self.steps for odd in step.odd],
            )
        )


def ids_digest(ids: Strings) -> str:
    """By which a machine knows that it sees the same pictures."""
    digest = hashlib.blake2b(digest_size=16)
    update_with_ids(digest, ids)
    return digest.hexdigest()


def range_of(batch: int) -> int:
    """Rows of a range, for an engine of so many images a step."""
    return RANGE if batch <= FEW else BLOCK


__all__ = ["EncodingJob", "begun", "ids_digest", "range_of"]
