"""Stage one: every image goes through the frozen backbone once, into the feature file.

extract(Dataset.resolve("data"), "inception", out="artifacts/inc.h5")
"""

import dataclasses
import importlib.metadata
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .datasets import Dataset
from .errors import VbprError
from .features import FeatureStore
from .files import writable_parent
from .images import REASONS, BadImage, ImageSource, Pixels, Preprocessing, prepare
from .progress import Progress, Stopped, stop_signals

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What a run did: rows in the file, rows written now, failures (item id, reason), images a second."""

    path: Path
    items: int
    written: int
    failures: list[tuple[str, str]]
    rate: float


def extract(
    data: Dataset,
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
    cae: dict[str, Any] | None = None,
) -> Extraction:
    """Encode every image of a data set that is not yet in the feature file `out`.

    A killed or stopped run resumes; a changed image is encoded again, a new one added, one that is gone dropped.

    Args:
        max_bad: the largest share of images that may be unusable.
        cae: how the backbone `cae` is trained on these images where no weights are given: see `train_autoencoder`.

    Raises:
        VbprError: see `load_backbone`, `FeatureStore.create`; or too many bad images.
        Stopped: Ctrl-C or SIGTERM.
    """
    from .backbones import artifact_name  # the early return below must not pay for torch

    if precision not in ("exact", "fast"):
        raise VbprError(f"--precision {precision} is not known; choose exact or fast")
    path = Path(out) if out is not None else Path("artifacts") / f"{artifact_name(backbone)}.h5"
    writable_parent(path)
    source = data.images()
    signatures = np.fromiter((source.signature(i) for i in range(len(source))), np.uint64, len(source))
    from .backbones import Encoder, load_backbone, pick_device

    if backbone == "cae" and weights is None and not random_weights:
        from .autoencoder import train_autoencoder

        weights = path.with_suffix(".cae.safetensors")
        train_autoencoder(source, weights, device=pick_device(device), **(cae or {}))
    model = load_backbone(backbone, weights, random_weights)
    fingerprint = f"{model.fingerprint} {precision}"
    provenance = {
        "backbone": model.name,
        "weights": model.weights,
        "weights_digest": model.digest,
        "dim": model.dim,
        "preprocessing": str(model.preprocessing),
        "precision": precision,
        "fingerprint": fingerprint,
        "size": model.preprocessing.size,
        "data": data.name,
        "simulated": data.simulated,
        "reasons": [*REASONS, "other"],
        "versions": {name: importlib.metadata.version(name) for name in ("vbpr", "torch", "timm", "pillow")},
    }
    with FeatureStore.create(path, source.item_ids, signatures, model.dim, provenance) as store:
        pending = store.pending
        written, rate = 0, 0.0
        if len(pending):
            encoder = Encoder(model, device, precision, engine, batch)
            with Progress(f"extract {backbone}", len(pending), "images") as bar, stop_signals() as stopping:
                for rows, bad in encoded(store, source, encoder, model.preprocessing, pending, threads):
                    written += rows
                    bar.advance(rows + bad)
                    if stopping():
                        raise Stopped(
                            f"stopped with {len(store.done):,} of {len(store):,} items in {path}; run the "
                            "same command again to resume"
                        )
                rate = bar.rate
        failures = store.failures()
        if not len(store.done):
            raise VbprError(
                f"none of the {len(store):,} images of {source.name} could be used ({summary(failures)}); "
                "give --data a folder of readable images"
            )
        if len(failures) > max_bad * len(store):
            raise VbprError(
                f"{len(failures):,} of {len(store):,} images of {source.name} could not be used "
                f"({summary(failures)}; first: {failures[0][0]}), more than --max-bad {max_bad:g}; mend "
                "them or raise it"
            )
        return Extraction(path, len(store), written, failures, rate)


def encoded(
    store: FeatureStore, source: ImageSource, encoder: Any, how: Preprocessing, pending: Array, threads: int | None
) -> Iterator[tuple[int, int]]:
    """Decode ahead in threads, encode, write; yields (rows written, rows failed) after each batch."""
    import torch

    workers = threads or max(2, torch.get_num_threads())
    batches = [pending[a : a + encoder.batch] for a in range(0, len(pending), encoder.batch)]

    def decode(row: int) -> Pixels | str:
        try:
            return prepare(source.read(row), how)
        except BadImage as error:
            return str(error)

    with ThreadPoolExecutor(workers, "decode") as pool:
        ahead: deque[tuple[Array, list[Future[Pixels | str]]]] = deque()
        todo = iter(batches)

        def submit() -> None:
            rows = next(todo, None)
            if rows is not None:
                ahead.append((rows, [pool.submit(decode, int(row)) for row in rows]))

        def commit(job: tuple[Array, Any, Array, list[str]]) -> tuple[int, int]:
            good, features, bad, reasons = job
            if len(good):
                store.write(good, features.cpu().numpy())
            store.fail(bad, reasons)
            return len(good), len(bad)

        try:
            for _ in range(2 + 2 * workers // encoder.batch):
                submit()
            running = None
            while ahead:
                rows, futures = ahead.popleft()
                decoded = [future.result() for future in futures]
                submit()
                fine = np.array([not isinstance(d, str) for d in decoded], bool)
                pixels = [d for d in decoded if not isinstance(d, str)]
                features = encoder.start(np.stack(pixels)) if pixels else None
                if running is not None:
                    yield commit(running)  # while the device is busy with the next batch
                running = (rows[fine], features, rows[~fine], [d for d in decoded if isinstance(d, str)])
            if running is not None:
                yield commit(running)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def summary(failures: list[tuple[str, str]]) -> str:
    """Failures by reason: `12 truncated, 3 not an image`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(r for _, r in failures).most_common())


__all__ = ["Extraction", "extract", "summary"]
