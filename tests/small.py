"""A small catalogue with a trained model, made once a run: 30 items in three colours, 24 users of one colour each."""

import functools
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from vbpr import Dataset, configure, extract, train

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 210)}


def draw(path, colour, rng):
    """A noisy square of one colour."""
    pixels = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 25, (40, 30, 3)), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def make_data(folder):
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    names = list(COLOURS)
    lines, events = ["item_id,title,category"], ["user_id,item_id"]
    for n in range(30):
        colour = names[n % 3]
        draw(folder / "images" / f"item-{n:02}.png", colour, rng)
        lines.append(f"item-{n:02},{colour} thing <{n}>,{colour}")
    for u in range(24):
        own = [n for n in range(30) if n % 3 == u % 3]
        events += [f"user/{u:02},item-{n:02}" for n in rng.choice(own, 6, replace=False)]
    (folder / "items.csv").write_text("\n".join(lines) + "\n")
    (folder / "interactions.csv").write_text("\n".join(events) + "\n")


@functools.cache
def made():
    """The folder with data/, small.h5 and small.model.h5; lives as long as the run. Copy what you change."""
    home = tempfile.TemporaryDirectory()
    made.home = home
    folder = Path(home.name)
    make_data(folder / "data")
    data = Dataset.resolve(folder / "data")
    extract(data, "test_resnet", folder / "small.h5", random_weights=True, engine="torch")
    train(data, [folder / "small.h5"], configure("visual", dim=8, epochs=3), folder / "small.model.h5")
    return folder
