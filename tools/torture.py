"""Kill extractions with SIGKILL at random moments until the file is done, and compare it with an undisturbed one.

python tools/torture.py --kills 200
python tools/torture.py --kills 40 --images 100 --engine openvino --backbone inception
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "pipeline"))

SMALLEST = {"backbone": "test_efficientnet", "engine": "torch"}  # random weights: all the same to the file


def make_images(folder: Path, count: int = 300) -> None:
    """JPEGs of coarse noise, and a few files that are no images."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((180, 240), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=80)
    for i in range(3):
        (folder / f"bad{i}.jpg").write_bytes(b"<html>not found</html>")


def child(data: Path, out: Path, how: dict[str, Any]) -> int:
    """Fork a process that extracts (the imports are done: it starts at once); its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1), os.dup2(devnull, 2)
        from vbpr.data.dataset import Dataset
        from vbpr.extraction.extract import extract

        extract(Dataset(data), out=out, random_weights=True, device="cpu", batch=4, threads=2, **how)
        code = 0
    finally:
        os._exit(code)


def torture(
    kills: int, folder: Path, seed: int = 0, images: int = 300, how: dict[str, Any] = SMALLEST
) -> dict[str, float]:
    """Run until `kills` processes have been killed and the file that they worked on is finished.

    Args:
        how: what `extract` is told: its backbone and engine.

    Returns:
        killed, finished (how many files were completed in between), rows kept by the kills on average, seconds.

    Raises:
        AssertionError: a file lost rows, could not be resumed, or differs from the undisturbed one in any bit.
    """
    from vbpr.extraction import engines, extract, trial  # noqa: F401  the imports that the children inherit
    from vbpr.networks import registry  # noqa: F401
    from vbpr.stores.features.store import FeatureStore

    rng = random.Random(seed)
    make_images(folder / "images", images)
    whole, out = folder / "whole.h5", folder / "killed.h5"
    assert os.waitpid(child(folder / "images", whole, how), 0)[1] == 0, "the undisturbed run failed"
    expected = whole.read_bytes()
    start = time.monotonic()
    end = os.waitpid(child(folder / "images", out, how), 0)[1]
    span = time.monotonic() - start
    assert not end and out.read_bytes() == expected, "another undisturbed run differs"
    out.unlink()
    killed, finished, done, kept, complete = 0, 0, 0, [], False
    while killed < kills or not complete:  # whatever the last kill left is for a run after it
        pid = child(folder / "images", out, how)
        strike = killed < kills
        if strike:
            time.sleep(rng.uniform(0, 0.9 * span))
            os.kill(pid, signal.SIGKILL)
        end = os.waitpid(pid, 0)[1]
        killed += end == signal.SIGKILL
        assert not end or (strike and end == signal.SIGKILL), f"a resumed run failed with {end}"
        if out.exists():
            store = FeatureStore(out)  # every state that a kill leaves behind is a readable file
            now = len(store) - len(store.pending)
            assert now >= done, f"{done - now} finished rows were lost"
            kept.append(now - done)
            done = now
        complete = not end
        if complete:
            assert out.read_bytes() == expected, "the resumed file differs from the undisturbed one"
            assert not FeatureStore(out).verify()
            finished, done = finished + 1, 0
            out.unlink()
    left = sorted(p.name for p in folder.iterdir() if p.suffix == ".tmp")
    assert not left, f"temporary files were left behind: {left}"
    return {
        "killed": killed,
        "finished": finished,
        "rows a run": float(np.mean(kept)),
        "seconds": time.monotonic() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", default=SMALLEST["backbone"])
    parser.add_argument("--engine", default=SMALLEST["engine"], choices=("torch", "openvino"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        how = {"backbone": options.backbone, "engine": options.engine}
        result = torture(options.kills, Path(folder), options.seed, options.images, how)
    print(
        f"{result['killed']} processes killed with SIGKILL at random moments, {result['rows a run']:.0f} rows added "
        f"before each; {result['finished']} files finished, each bit-identical to the undisturbed one and verified "
        f"({result['seconds']:.0f} s)"
    )


if __name__ == "__main__":
    main()
