"""Stage one: every image goes through the frozen backbone once, into the feature file.

extract(Dataset.resolve("data"), "inception", out="artifacts/inc.h5")
"""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .base.arrays import Array
from .base.errors import VbprError
from .base.files import artifact_name
from .base.progress import Progress, console
from .base.stopping import Stopped, stop_signals
from .base.targets import check_target
from .data.dataset import Dataset
from .data.images.folder import FolderImages
from .data.images.source import PASSING, REASONS, BadImage, ImageSource, Pixels, is_image_name
from .executors.world import EVERY, World
from .networks.prepare import Preprocessing, prepare
from .stores.features.layout import DONE, describe
from .stores.features.store import FeatureStore

WINDOW = 64  # full steps that are dealt out at a time


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
        VbprError: see `load_backbone`, `FeatureStore.create`; or too many bad images.
        Stopped: Ctrl-C or SIGTERM.
    """
    if precision not in ("exact", "fast"):
        raise VbprError(f"--precision {precision} is not known; choose exact or fast")
    if not 0 <= max_bad <= 1:
        raise VbprError(f"--max-bad is {max_bad}; it must be from 0 to 1")
    for name, value in (("batch", batch), ("threads", threads)):
        if value is not None and value < 1:
            raise VbprError(f"--{name} is {value}; it must be at least 1")
    data = Dataset.resolve(data)
    path = feature_file(backbone, out)
    if is_image_name(path.name):  # in a folder of images, the next run would take it for one
        raise VbprError(f"--out {path} is named like an image; give a name that ends in .h5")
    with World.here() as world:
        source = data.images()
        signatures = np.fromiter((source.signature(i) for i in range(len(source))), np.uint64, len(source))
        training = backbone == "cae" and weights is None and not random_weights
        how = {key: value for key, value in (cae or {}).items() if value is not None} if training else {}
        request = request_of(backbone, weights, random_weights, precision) | ({"cae": how} if how else {})
        finished = up_to_date(path, request, data, source, signatures) if world.first else None
        if finished is not None and verify and finished.verify():
            finished = None
        if world.once("finished", lambda: finished is not None):
            return (
                checked(finished, source, signatures, max_bad)
                if finished
                else Extraction(path, len(source), 0, [], 0.0, rank=world.rank)
            )
        check_target(path, "features")
        from .compute.device import multiplies_bfloat16, pick_device
        from .engines import Encoder, pick_engine
        from .networks.registry import load_backbone

        processor = pick_device(own_gpu(device, world.rank) if world.size > 1 else device)
        if precision == "fast" and not multiplies_bfloat16(processor):
            kind = "GPU" if processor.type == "cuda" else "CPU"
            raise VbprError(f"--precision fast: this {kind} has no units for bfloat16 and gains nothing; leave it out")
        chosen = pick_engine(engine, processor, batch)
        rounding = chosen + " on a GPU" * (processor.type == "cuda")
        if training:
            weights = world.once("weights", lambda: str(autoencoder(path, data, source, processor, how)))
        if not path.exists():
            world.once("names", lambda: check_names(data, source))
        model = load_backbone(backbone, weights, random_weights)
        provenance = {
            "backbone": model.name,
            "weights": model.weights,
            "weights_digest": model.digest,
            "weights_file": None if weights is None else os.path.realpath(weights),
            "dim": model.dim,
            "preprocessing": str(model.preprocessing),
            "precision": precision,
            **({"engine": rounding} if precision == "fast" else {}),
            # Fast engines round in their own ways, by up to 3% of a vector: a file keeps to one of them.
            "fingerprint": f"{model.fingerprint} {precision}" + f" {rounding}" * (precision == "fast"),
            "size": model.preprocessing.size,
            "data": data.name,
            "simulated": data.simulated,
            "reasons": [*REASONS, "other"],
            "versions": request["versions"],
            "request": request,
        }
        odd: list[tuple[str, str]] = []
        with opened(world, path, source, signatures, model.dim, provenance, verify) as store:
            total, mine = len(store.pending), world.share(store.pending)
            world.meet("opened")  # from here on they write
            written, rate = 0, 0.0
            if total:
                encoder = Encoder(model, str(processor), precision, chosen, batch, len(mine)) if len(mine) else None
                threads = threads or max(1, len(os.sched_getaffinity(0)) // world.size)
                with (
                    Progress(f"extract {backbone}", total, "images", shown=world.first) as bar,
                    stop_signals() as stopping,
                ):
                    steps = encoded(store, source, encoder, model.preprocessing, mine, threads, stopping, odd)
                    for rows, bad in steps if encoder else ():
                        written += rows
                        with heeding(stopping):
                            bar.advance(world.count(rows + bad) - bar.done)
                            world.check()
                    if world.size > 1:
                        with heeding(stopping):
                            written += others(world, store, bar, stopping, written, odd)
                    if stopping() and len(store.pending):
                        raise Stopped(
                            f"stopped with {len(store.done):,} of {len(store):,} items in {path}; run the same command "
                            "again to resume"
                        )
                    rate = bar.rate
            if not world.first:
                return Extraction(path, len(store), written, [], rate, odd=sorted(odd), rank=world.rank)
            done = checked(store, source, signatures, max_bad, written, rate)
            return dataclasses.replace(done, dropped=store.dropped, odd=sorted(odd))


def check_names(data: Dataset, source: ImageSource) -> None:
    """Have it said before the work, not by `train` after it, where images are not called as the items are.

    Raises:
        VbprError: no item that anybody took has an image.
    """
    try:
        items = data.interactions().item_ids
    except VbprError:  # features need none; where they are wanted, what is wrong with them is said
        return
    pictured = int(np.isin(items, source.item_ids).sum())
    names = f"here {items[0]}, there {source.item_ids[0]}"
    if not pictured:
        raise VbprError(
            f"none of the {len(items):,} items in the interactions has an image in {source.name} ({names}); name each "
            "image after its item, or take the interactions away"
        )
    if pictured < len(items) / 2:
        console.print(f"note: {pictured:,} of the {len(items):,} items in the interactions have an image")


def own_gpu(device: str, rank: int) -> str:
    """The GPU of one of several processes, where `device` leaves open which."""
    import torch

    from .compute.device import fault

    there = torch.cuda.device_count() if device in ("auto", "cuda") and torch.cuda.is_available() else 0
    if not there:
        return device
    return "cpu" if device == "auto" and fault(rank % there) else f"cuda:{rank % there}"


@contextlib.contextmanager
def heeding(stopping: Callable[[], bool]) -> Iterator[None]:
    """For a process that was told to stop, it is no fault that the others have ended before it."""
    try:
        yield
    except VbprError:
        if not stopping():
            raise


@contextlib.contextmanager
def opened(
    world: World,
    path: Path,
    source: ImageSource,
    signatures: Array,
    dim: int,
    provenance: dict[str, Any],
    verify: bool,
) -> Iterator[FeatureStore]:
    """The feature file, open for writing by every process of the run: the first makes it, the others join."""
    if world.first:
        with FeatureStore.create(path, source.item_ids, signatures, dim, provenance, verify) as store:
            store.retry(PASSING)
            if world.size > 1:
                store.admit()
            world.tell("ready")
            yield store
        return
    world.hear("ready")
    with FeatureStore.join(path) as store:
        known = np.where(signatures, signatures, store.signature) if len(store) == len(signatures) else signatures
        if store.provenance["fingerprint"] != provenance["fingerprint"] or not store.holds(source.item_ids, known):
            raise VbprError(f"{source.name} or the weights change while they are read; run the same command again")
        yield store


def others(
    world: World,
    store: FeatureStore,
    bar: Progress,
    stopping: Callable[[], bool],
    written: int,
    odd: list[tuple[str, str]],
) -> int:
    """The first process waits for the others, takes in what they have done, and returns how many rows they have
    written; these tell it."""
    if not world.first:
        world.tell(f"done by {world.rank}", [written, odd])
        return 0
    more = 0
    for rank in range(1, world.size):
        told = None
        while not stopping() and (told := world.told(f"done by {rank}")) is None:
            bar.advance(world.count(0) - bar.done)
            time.sleep(EVERY)
        if told is not None:
            more += told[0][0]
            odd += map(tuple, told[0][1])
    bar.advance(world.count(0) - bar.done)
    store.gather()
    if len(store.pending) and not stopping():
        raise VbprError(f"{store.path} lacks {len(store.pending):,} of {len(store):,} items; run again to resume")
    return more


def autoencoder(path: Path, data: Dataset, source: ImageSource, device: Any, how: dict[str, Any]) -> Path:
    """The autoencoder of a feature file: the one that it was made with, or where it is not there yet, one that is
    trained on these images now.

    Raises:
        VbprError: the file was made otherwise, or with an autoencoder that is gone.
    """
    from .networks.cae_training import check_training, train_autoencoder

    beside = autoencoder_of(path)
    if not path.exists():
        if isinstance(source, FolderImages) and path.resolve().is_relative_to(Path(source.name).resolve()):
            raise VbprError(
                f"--out {path} lies among the images, where the next run would take the autoencoder's picture "
                f"{beside.with_suffix('.png').name} for one; choose another folder"
            )
        with stop_signals() as stopping:
            train_autoencoder(source, beside, data=data.name, device=device, **how)
            if stopping():
                raise Stopped(f"stopped with {beside} trained; run the same command again to resume")
        return beside
    told = FeatureStore(path).provenance
    made_with = told.get("weights_file")
    if told["backbone"] != "cae" or not made_with:
        raise VbprError(
            f"{path} was made by {describe(told)}; this run would train an autoencoder; delete the file or choose "
            "another with --out"
        )
    found = next((file for file in (Path(made_with), beside) if file.is_file()), None)
    if found is None:
        raise VbprError(
            f"{path} was made with {made_with}, which is gone; give it with --weights, or choose another --out"
        )
    check_training(found, path, **how)
    return found


def autoencoder_of(path: Path) -> Path:
    """Where the autoencoder of a new feature file goes: artifacts/cae.h5 -> artifacts/cae.cae.safetensors."""
    return path.with_name(f"{path.name.removesuffix('.h5')}.cae.safetensors")


def feature_file(backbone: str, out: Path | str | None) -> Path:
    """Where features go: `out`, or else into artifacts/ under the backbone's name."""
    return Path(out) if out is not None else Path("artifacts") / f"{artifact_name(backbone)}.h5"


def request_of(backbone: str, weights: Path | str | None, random_weights: bool, precision: str) -> dict[str, Any]:
    """All that decides what the features of an image are, as far as it is known without loading the model."""
    file = None if weights is None else Path(os.path.realpath(weights))  # of a link to itself, that
    status = file.stat() if file is not None and file.is_file() else None
    return {
        "backbone": backbone,
        "weights_file": None if file is None else str(file),
        "weights_size": status and status.st_size,
        "weights_time": status and status.st_mtime_ns,
        "random_weights": random_weights,
        "precision": precision,
        "versions": {name: importlib.metadata.version(name) for name in ("vbpr", "torch", "timm", "pillow")},
    }


def up_to_date(
    path: Path, request: dict[str, Any], data: Dataset, source: ImageSource, signatures: Array
) -> FeatureStore | None:
    """The feature file, if this very request has been carried out on these very images; else None."""
    if not path.is_file():
        return None
    store = FeatureStore(path)
    known = store.remembered(source.item_ids, signatures)
    same = (store.provenance.get("request"), store.provenance["data"]) == (request, data.name)
    same = same and store.holds(source.item_ids, known)
    # What failed for a passing reason is looked at again, unless it still is not there (signature 0).
    failed = {item for item, reason in store.failures() if reason in PASSING}
    again = bool(failed) and np.isin(store.item_ids[store.signature != 0], list(failed)).any()
    # Nor is it done with a row pending, or where a kill came between the last row and its digest.
    return store if same and not again and store.sealed_rows() == len(store) else None


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


@dataclasses.dataclass
class Batch:
    """One step's images on their way through: decoded, encoded, written.

    An image has its own place in `pixels`, for an engine's last bits may depend on it; the other places are black.
    Memory is bounded by the number of these: `encoder.depth` under way, and one more than that (at least two) decoding.
    """

    rows: Array
    places: Array
    pixels: Pixels
    reasons: list[str]  # "" for an image that is fine
    decoding: list[Future[None]]
    good: Array = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    features: Callable[[], Array] | None = None


def encoded(
    store: FeatureStore,
    source: ImageSource,
    encoder: Any,
    how: Preprocessing,
    pending: Array,
    threads: int,
    stopping: Callable[[], bool] = lambda: False,
    odd: list[tuple[str, str]] | None = None,
) -> Iterator[tuple[int, int]]:
    """Decode ahead in threads, encode, write; yields (rows written, rows failed) after each batch.

    Three things go on at once: threads decode the batches to come, the encoder has up to `depth` batches, and this
    thread writes the one that is ready. Told to stop, it finishes the batches that the encoder has. `odd`: see
    `Extraction`.
    """

    def decode(batch: Batch, part: Array) -> None:
        for at in part:
            row = int(batch.rows[at])

            def note(width: int, height: int, row: int = row) -> None:
                if odd is not None:
                    odd.append((str(store.item_ids[row]), f"{width} x {height}"))

            try:
                batch.pixels[batch.places[at]] = prepare(source.read(row), how, note)
            except BadImage as error:
                batch.reasons[at] = str(error)

    def commit(batch: Batch) -> tuple[int, int]:
        if batch.features is not None:
            store.write(batch.rows[batch.good], batch.features()[batch.places[batch.good]])
        bad = np.flatnonzero([reason != "" for reason in batch.reasons])
        store.fail(batch.rows[bad], [batch.reasons[i] for i in bad])
        return len(batch.good), len(bad)

    with ThreadPoolExecutor(threads, "decode") as pool:
        decoding: deque[Batch] = deque()
        encoding: deque[Batch] = deque()
        size = encoder.batch
        waiting = in_steps(pending, size)

        def ahead() -> None:
            while len(decoding) <= max(1, encoder.depth) and (step := next(waiting, None)) is not None:
                rows, places = step
                pixels = np.zeros((size, how.size, how.size, 3), np.uint8)
                batch = Batch(rows, places, pixels, [""] * len(rows), [])
                parts = np.array_split(np.arange(len(rows)), min(len(rows), 4 * threads))
                batch.decoding = [pool.submit(decode, batch, part) for part in parts]
                decoding.append(batch)

        try:
            ahead()
            while decoding and not stopping():
                batch = decoding.popleft()
                for future in batch.decoding:
                    future.result()
                ahead()
                batch.good = np.flatnonzero([reason == "" for reason in batch.reasons])
                if len(batch.good):
                    batch.features = encoder.start(batch.pixels[: batch.places[batch.good].max() + 1])
                encoding.append(batch)
                if len(encoding) > encoder.depth:
                    yield commit(encoding.popleft())
            while encoding:
                yield commit(encoding.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def in_steps(rows: Array, size: int) -> Iterator[tuple[Array, Array]]:
    """Rows in steps of at most `size`, with a place for each, which is `row % size`; all rows: in order.

    Rows so scattered that this would take many more steps are packed instead. They are dealt out `WINDOW` full steps
    at a time, so that the memory does not grow with the catalogue.
    """
    for first in range(0, len(rows), WINDOW * size):
        window = rows[first : first + WINDOW * size]
        order = np.argsort(window % size, kind="stable")
        place = (window % size)[order]
        nth = np.arange(len(window)) - np.searchsorted(place, place)  # rows before it that want its place
        if 1 + nth.max() > 1 + 1.25 * -(-len(window) // size):
            packed = (window[a : a + size] for a in range(0, len(window), size))
            yield from ((step, np.arange(len(step))) for step in packed)
            continue
        again = order[np.argsort(nth, kind="stable")]
        for start, end in itertools.pairwise([0, *np.cumsum(np.bincount(nth))]):
            step = np.sort(window[again[start:end]])
            yield step, step % size


def summary(failures: list[tuple[str, str]]) -> str:
    """Failures by reason: `12 truncated, 3 not an image`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(r for _, r in failures).most_common())


__all__ = ["Extraction", "autoencoder_of", "extract", "feature_file", "summary"]
