"""Pictures of noise, encoded, and how a small network wants them."""

import io

import numpy as np
from PIL import Image

from vbpr.networks.prepare import Preprocessing

HOW = Preprocessing(16, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(size=(48, 40), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
