"""How encoded bytes become pixels: any image decoded alike, resized and cropped as a backbone wants it.

pixels = prepare(source.read(0), backbone.preprocessing)
"""

import dataclasses
import io
import math
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL import features as codecs

from .images import BadImage, Pixels

MAX_PIXELS = 64_000_000  # one image decoded: 192 MB; a larger one is taken for a decompression bomb
MAX_SCANS = 100  # of a JPEG: programs write about ten; each is a pass over all pixels, for a hundred bytes
JPEG = b"\xff\xd8\xff"  # how the file begins; of a scan so much that a film behind the picture has none by chance
SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
Image.MAX_IMAGE_PIXELS = None  # our own cap is an error rather than a warning
# What shops keep, told by content and not by name. Others start a program (EPS), or decode before our cap (ICO).
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"] + ["AVIF"] * bool(codecs.check("avif"))
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # here, once: threads share the filters
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities of TorchVision are deprecated")
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


def load(data: bytes) -> Image.Image:
    """Decode any image that Pillow knows to RGB: first frame, EXIF orientation applied, transparency on white, 16-bit
    scaled by 1/257 (grey; of colours Pillow keeps the upper byte, which is within 1 of that).

    Raises:
        BadImage: it cannot be decoded whole, or is larger than `MAX_PIXELS`.
    """
    if not data:
        raise BadImage("empty file")
    if too_many_scans(data):
        raise BadImage("over the cap on scans")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BadImage("over the cap on pixels")
        tags = getattr(image, "tag_v2", {})  # of a TIFF, whose tiles may be larger than the image
        if math.prod(tags.get(tag, 1) for tag in (322, 323)) > MAX_PIXELS:
            raise BadImage("over the cap on pixels")
        tiles = getattr(image, "tile", ())
        image.load()
        if image.format == "GIF" and tiles and tiles[0].extents != (0, 0, *image.size):  # Pillow paints what is bare
            small = image.crop(tiles[0].extents).convert("RGBA")
            image = Image.new("RGBA", image.size)
            image.paste(small, tiles[0].extents)
        if image.format == "PNG":
            in_eight_bits(image, data[24])
        turn(image)
        return in_grey(image, tags) if image.mode.startswith("I") or image.mode == "F" else on_white(image)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage("not an image") from error
    except MemoryError as error:  # the machine's fault: the next run looks again
        raise BadImage("unreadable") from error
    except Exception as error:  # Pillow's decoders raise anything at all on damaged bytes
        text = str(error).lower()
        reasons = {"memory": "unreadable", "truncated": "truncated", "not enough": "truncated"}
        raise BadImage(next((reason for words, reason in reasons.items() if words in text), "damaged")) from error


def in_eight_bits(image: Image.Image, bits: int) -> None:
    """Give a PNG's transparent colour, which is told in the file's bits, those of Pillow's pixels."""
    clear = image.info.get("transparency")
    if image.mode not in ("L", "RGB") or not isinstance(clear, int | tuple):
        return
    colour = [c >> 8 if bits == 16 else c * 255 // (2**bits - 1) for c in np.atleast_1d(clear).tolist()]
    image.info["transparency"] = tuple(colour) if isinstance(clear, tuple) else colour[0]


def turn(image: Image.Image) -> None:
    """Turn an image as its EXIF says, in place."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # an EXIF that cannot be read turns nothing; the pixels are good
        pass


def too_many_scans(data: bytes) -> bool:
    return data[:3] == JPEG and len(SCAN.findall(data)) > MAX_SCANS


def in_grey(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """A picture of numbers wider than a byte, scaled to bytes, as RGB.

    Args:
        tags: of a TIFF, which tell how many bits there are, of what kind, and whether 0 is white.
    """
    values = np.asarray(image)
    bits, kind = (tags.get(tag, (default,))[0] for tag, default in ((258, 16), (339, 1)))
    most = 1 if image.mode == "F" else 2 ** (min(16, bits) - (kind == SIGNED and bits <= 16)) - 1
    if not (float(values.min()) >= 0 and float(values.max()) <= most):  # nor if either is not a number
        raise BadImage("values outside their range")
    grey = np.empty(values.shape, np.uint8)
    for a in range(0, len(values), STRIP):  # a large image has eight times its bytes in float64
        grey[a : a + STRIP] = np.rint(values[a : a + STRIP].astype(np.float64) * 255 / most)
    if tags.get(262) == 0:
        np.subtract(255, grey, out=grey)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey, "L").convert("RGB")


SIGNED = 2  # of a TIFF's sample format
STRIP = 64  # rows at a time


def on_white(image: Image.Image) -> Image.Image:
    """As RGB, what is transparent on white."""
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return image.convert("RGB")
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, STRIP):
        strip = image.crop((0, top, image.width, min(image.height, top + STRIP))).convert("RGBA")
        rgb.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return rgb


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


__all__ = ["MAX_PIXELS", "Preprocessing", "load", "prepare"]
