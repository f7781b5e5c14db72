"""An encoded image as RGB, by Pillow, whatever its kind; refused with a reason where it cannot be used."""

import io
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import features as codecs

from .source import BadImage

MAX_PIXELS = 64_000_000  # one image decoded: 192 MB; a larger one is taken for a decompression bomb
MAX_SCANS = 100  # of a JPEG: programs write about ten; each is a pass over all pixels, for a hundred bytes
JPEG = b"\xff\xd8\xff"  # how the file begins; of a scan so much that a film behind the picture has none by chance
SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
Image.MAX_IMAGE_PIXELS = None  # our own cap is an error rather than a warning
# What shops keep, told by content and not by name. Others start a program (EPS), or decode before our cap (ICO).
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"] + ["AVIF"] * bool(codecs.check("avif"))
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # here, once: threads share the filters
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities of TorchVision are deprecated")


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


__all__ = ["JPEG", "MAX_PIXELS", "load", "too_many_scans"]
