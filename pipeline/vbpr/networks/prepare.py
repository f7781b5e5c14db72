"""Pixels as a network wants them: any image decoded alike, resized and cropped.

pixels = prepare(source.read(0), backbone.preprocessing)
"""

import dataclasses
import io
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ..data.images.decode import JPEG, MAX_PIXELS, load, too_many_scans
from ..data.images.source import Pixels

SMALLEST, LONGEST = 16, 16  # pixels of a side, and ratio of the sides, beyond which an image says little


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a backbone wants its images: resize so that the shorter side is `size / crop`, crop the centre, scale.

    Attributes:
        size: pixels of a side of the square that goes in.
        crop: the share of the resized shorter side that the square keeps.
        interpolation: nearest, bilinear or bicubic.
        mean, std: of each channel, for pixels in [0, 1].
        squash: resize both sides to `size / crop`, whatever the image's shape.
    """

    size: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    squash: bool = False

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) to resize to before the centre crop, as timm's evaluation transform rounds them."""
        short = math.floor(self.size / self.crop)
        if self.squash:
            return short, short
        if width <= height:
            return short, max(short, int(short * height / width))
        return max(short, int(short * width / height)), short

    def corner(self, width: int, height: int) -> tuple[int, int]:
        """(left, top) of the centre crop of a resized image."""
        return round((width - self.size) / 2), round((height - self.size) / 2)

    def __str__(self) -> str:
        crop = f"centre crop {self.crop}{' when squashed' * self.squash}"
        crop = "no crop" if self.squash and self.crop == 1 else crop
        return f"{self.size} px, {crop}, {self.interpolation}, mean {self.mean}, std {self.std}"


RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def prepare(data: bytes, how: Preprocessing, odd: Callable[[int, int], None] | None = None) -> Pixels:
    """Encoded bytes to the (size, size, 3) uint8 square that the backbone sees.

    Plain JPEGs take torchvision's decoder and resizer, four times as fast as Pillow's and within 2/255 of them; all
    that it refuses, and every other format, takes Pillow.

    Args:
        odd: is told width and height of an image that is tiny or a sliver.

    Raises:
        BadImage: see `load`.
    """
    pixels = prepare_jpeg(data, how, odd) if data[:3] == JPEG and how.interpolation != "nearest" else None
    return prepare_any(data, how, odd) if pixels is None else pixels


def prepare_any(data: bytes, how: Preprocessing, odd: Callable[[int, int], None] | None = None) -> Pixels:
    """`prepare` by Pillow alone."""
    image = load(data)
    if odd is not None and says_little(*image.size):
        odd(*image.size)
    width, height = how.resized(*image.size)
    if width * height > MAX_PIXELS:  # a sliver: only its centre is ever seen
        image = sliver(image)
        width, height = how.resized(*image.size)
    # Width first, always: Pillow 13 picks the order by shape, and rounding between the passes would tell them apart.
    for size in ((width, image.height), (width, height)):
        image = image.resize(size, RESAMPLING[how.interpolation])
    left, top = how.corner(width, height)
    return np.asarray(image.crop((left, top, left + how.size, top + how.size)))


def says_little(width: int, height: int) -> bool:
    """Whether an image is tiny or a sliver."""
    return min(width, height) < SMALLEST or max(width, height) > LONGEST * min(width, height)


def prepare_jpeg(data: bytes, how: Preprocessing, odd: Callable[[int, int], None] | None = None) -> Pixels | None:
    """`prepare` by torchvision; None for what is better left to Pillow. It starts no threads of its own."""
    import torch

    header = jpeg_header(data)
    if header is None or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:  # torchvision means to leave decoding to others, some day
        return None

    width, height, orientation = header
    width, height = (width, height) if orientation < 5 else (height, width)
    wide, high = how.resized(width, height)
    if wide * high > MAX_PIXELS:
        return None
    try:
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError:
        return None  # Pillow says what is wrong with it
    if odd is not None and says_little(width, height):
        odd(width, height)
    # Turned, cut and copied by NumPy: torch would do it on several threads, against the ones that run the model.
    upright = oriented(image.permute(1, 2, 0).numpy(), orientation)
    left, top = how.corner(wide, high)
    first, start, seen, stop = rows_needed(height, high, top, how.size)
    narrow = stretched(upright[seen:stop], 1, left + how.size, wide / width, how.interpolation)
    rows = np.empty((stop - start, how.size, 3), np.uint8)  # whatever lies before `seen` ends up above the crop
    rows[seen - start :] = narrow[:, left : left + how.size]
    square = stretched(rows, 0, top + how.size - first, high / height, how.interpolation)
    return np.ascontiguousarray(square[top - first : top - first + how.size])


def stretched(pixels: Pixels, axis: int, length: int, scale: float, interpolation: str) -> Pixels:
    """(rows, columns, 3) resized by `scale` along one axis, of which the first `length` places, or more, are given."""
    import torch

    if scale == 1:
        return pixels
    shape, scales = [*pixels.shape[:2]], [1.0, 1.0]
    # torch leaves an axis alone whose length stays the same, be its scale what it may.
    shape[axis], scales[axis] = length + (length == pixels.shape[axis]), scale
    whole = np.ascontiguousarray(pixels)
    if min(whole.strides) < 0:  # NumPy leaves a flipped axis of length 1 as it is, which torch does not take
        whole = whole.copy()
    image = torch.from_numpy(whole)
    rows, columns, _ = pixels.shape
    # Batch and channel strides as of a channels-last batch: torch would else repack a batch of one, at twice the cost.
    batch = image.permute(2, 0, 1).as_strided((1, 3, rows, columns), (image.numel(), 1, 3 * columns, 3))
    resize = getattr(torch.ops.aten, f"_upsample_{interpolation}2d_aa")
    result: Pixels = resize(batch, shape, False, *scales)[0].permute(1, 2, 0).numpy()
    return result


def jpeg_header(data: bytes) -> tuple[int, int, int] | None:
    """(width, height, EXIF orientation) of a grey or YCbCr JPEG within the caps; None for anything else."""
    if too_many_scans(data):
        return None
    try:
        size, orientation = plain_size(data), 1
        if size is None:
            image = Image.open(io.BytesIO(data), formats=["JPEG"])
            size = image.size if image.format == "JPEG" and image.mode in ("RGB", "L") else (0, 0)
            orientation = ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation), 1)
    except Exception:  # whatever a damaged header provokes: `load` names it
        return None
    return (*size, orientation) if 0 < size[0] * size[1] <= MAX_PIXELS else None


ORIENTATIONS: dict[Any, int] = {n: n for n in range(2, 9)}  # any other value is none, as for `ImageOps.exif_transpose`
FRAMES = {0xC0, 0xC1, 0xC2}  # baseline to progressive; beside them tables, JFIF and comments, which turn nothing
PLAIN = FRAMES | {0xC4, 0xDB, 0xDD, 0xE0, 0xFE}


def plain_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG of one or three components whose header holds `PLAIN` markers only; None for others,
    of which Pillow knows more, in ten times the time."""
    at, size = 2, None
    while data[at] == 0xFF and (marker := data[at + 1]) in PLAIN:
        if marker in FRAMES:
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            if bits != 8 or components not in (1, 3):
                return None
            size = width, height
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return size if data[at : at + 2] == b"\xff\xda" else None


def oriented(image: Pixels, orientation: int) -> Pixels:
    """(height, width, 3) turned upright, as `PIL.ImageOps.exif_transpose` does; a view."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    down, across = (
        slice(None, None, -1) if orientation in turned else slice(None) for turned in ((3, 4, 7, 8), (2, 3, 6, 7))
    )
    return image[down, across]


def rows_needed(height: int, resized: int, top: int, size: int) -> tuple[int, int, int, int]:
    """Which rows of an image to resize when only `size` rows from `top` of the result are wanted.

    Row r of the result looks at rows around (r + 0.5) * height / resized. Rows [start, stop) give the very same
    pixels as the whole image if `start` lies on a whole row of both (start / height = first / resized) and no wanted
    row's filter reaches over the cut.

    Returns:
        (first, start, seen, stop): `start` corresponds to row `first` of the result; rows before `seen` are not
        looked at by any wanted row.
    """
    scale = height / resized
    step = resized // math.gcd(height, resized)
    reach = 2 * max(1.0, scale)  # of a bicubic filter, in rows of the image
    first = max(0, top - math.ceil(reach / scale) - 1) // step * step
    start = first * height // resized
    seen = max(start, math.floor((top + 0.5) * scale - reach) - 1)
    stop = min(height, math.ceil((top + size) * scale + reach) + 1)
    return first, start, seen, stop


def sliver(image: Image.Image, ratio: int = 64) -> Image.Image:
    """The centre of an image longer than `ratio` times its width, cut to that ratio."""
    width, height = image.size
    w, h = min(width, ratio * height), min(height, ratio * width)
    w, h = w - (width - w) % 2, h - (height - h) % 2  # as much from either side: the centre stays where it is
    left, top = (width - w) // 2, (height - h) // 2
    return image.crop((left, top, left + w, top + h))


__all__ = ["Preprocessing", "prepare"]
