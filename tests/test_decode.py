"""The fast JPEG path against Pillow: the same picture within 2/255, the same refusals, no threads of its own."""

import contextlib
import io
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vbpr.images import BadImage, Preprocessing, plain_size, prepare, prepare_any, prepare_jpeg, rows_needed

HALF = (0.5, 0.5, 0.5)


def picture(seed, width, height, smooth=1):
    pixels = np.random.default_rng(seed).integers(
        0, 256, (-(-height // smooth), -(-width // smooth), 3), dtype=np.uint8
    )
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def by_pillow(data, how):
    """Ten plain lines: upright, width first and then height, centre crop."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    width, height = how.resized(*image.size)
    filter = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[how.interpolation]
    image = image.resize((width, image.height), filter).resize((width, height), filter)
    left, top = round((width - how.size) / 2), round((height - how.size) / 2)
    return np.asarray(image.crop((left, top, left + how.size, top + how.size)))


shapes = st.integers(1, 500)
hows = st.builds(
    lambda size, crop, how, squash: Preprocessing(size, crop, how, HALF, HALF, squash),
    st.integers(8, 300),
    st.sampled_from([0.5, 0.875, 0.95, 1.0]),
    st.sampled_from(["bilinear", "bicubic"]),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(shapes, shapes, hows, st.integers(0, 3), st.sampled_from([75, 95]), st.booleans())
def test_within_2_of_pillow_for_any_shape(width, height, how, seed, quality, grey):
    image = picture(seed, width, height)
    data = jpeg(image.convert("L") if grey else image, quality=quality)
    pixels = prepare(data, how)
    assert pixels.shape == (how.size, how.size, 3) and pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - by_pillow(data, how)).max() <= 2
    assert np.array_equal(prepare_any(data, how), by_pillow(data, how))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("squash", [False, True])
def test_exif_orientation(orientation, squash):
    exif = Image.Exif()
    exif[0x112] = orientation
    data = jpeg(picture(0, 90, 150, 10), exif=exif)
    how = Preprocessing(64, 0.875, "bicubic", HALF, HALF, squash)
    assert prepare_jpeg(data, how) is not None
    assert np.abs(prepare(data, how).astype(int) - by_pillow(data, how)).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1)])
def test_a_line_of_pixels_may_be_turned(size, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    data = io.BytesIO()
    Image.effect_noise(size, 90).save(data, "JPEG", exif=exif)
    how = Preprocessing(64, 0.9, "bicubic", HALF, HALF)
    a, b = prepare(data.getvalue(), how), prepare_any(data.getvalue(), how)
    assert np.abs(a.astype(int) - b).max() <= 2


@pytest.mark.parametrize(
    ("kind", "value"),
    [(3, struct.pack("<HH", 9, 0)), (3, bytes(4)), (2, b"6\0\0\0"), (11, struct.pack("<f", 6.5))],
    ids=["9", "0", "text", "6.5"],
)
def test_an_orientation_that_is_no_orientation(kind, value):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", 0x112, kind, 1 + (kind == 2)) + value + bytes(4)
    data = jpeg(picture(0, 90, 150, 10), exif=exif)
    how = Preprocessing(64, 1.0, "bicubic", HALF, HALF, squash=True)
    assert np.abs(prepare(data, how).astype(int) - by_pillow(data, how)).max() <= 2


@pytest.mark.parametrize("text", ['tiff:Orientation="6"', "<tiff:Orientation>8</tiff:Orientation>"])
def test_an_orientation_in_xmp_alone(text):
    data = jpeg(picture(0, 90, 150, 10), xmp=f"<x:xmpmeta>{text}</x:xmpmeta>".encode())
    how = Preprocessing(64, 1.0, "bicubic", HALF, HALF, squash=True)
    assert prepare_jpeg(data, how) is not None
    assert np.abs(prepare(data, how).astype(int) - by_pillow(data, how)).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"comment": b"x" * 300}, {"icc_profile": b"x" * 300}, {"exif": b"Exif\0\0II"}],
)
def test_a_plain_header_is_read_as_pillow_reads_it(mode, options):
    data = jpeg(picture(0, 93, 151, 10).convert(mode), **options)
    plain = mode != "CMYK" and not options.keys() & {"icc_profile", "exif"}
    assert plain_size(data) == ((93, 151) if plain else None)
    for at in range(2, data.index(b"\xff\xda") + 2):
        for value in (0, 255, data[at] ^ 1):  # forged: what is plain still is what Pillow says, or decodes by neither
            forged = data[:at] + bytes([value]) + data[at + 1 :]
            try:
                size = plain_size(forged)
            except IndexError:
                continue
            if size is not None:
                with contextlib.suppress(Exception):
                    assert size == Image.open(io.BytesIO(forged), formats=["JPEG"]).size


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused(progressive):
    data = jpeg(picture(0, 40, 50, 4), progressive=progressive)
    how = Preprocessing(32, 0.875, "bilinear", HALF, HALF)
    prepare(data, how)
    for cut in range(len(data)):
        with pytest.raises(BadImage):
            prepare(data[:cut], how)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_damaged_jpegs_are_refused_or_decoded_never_worse(seed, count):
    rng = np.random.default_rng(seed)
    data = bytearray(jpeg(picture(0, 40, 50, 4)))
    for at in rng.integers(0, len(data), count):
        data[at] = rng.integers(0, 256)
    try:
        pixels = prepare(bytes(data), Preprocessing(32, 0.875, "bilinear", HALF, HALF))
    except BadImage:
        return
    assert pixels.shape == (32, 32, 3)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 600), st.data())
def test_rows_needed_start_on_whole_rows_and_cover_the_filter(height, resized, data):
    size = data.draw(st.integers(1, resized))
    top = data.draw(st.integers(0, resized - size))
    first, start, seen, stop = rows_needed(height, resized, top, size)
    assert start * resized == first * height  # the same grid
    reach = 2 * max(1.0, height / resized)
    lowest, highest = (top + 0.5) * height / resized - reach, (top + size - 0.5) * height / resized + reach
    assert start <= seen and (seen == 0 or seen <= lowest)
    assert stop == height or stop >= highest


@pytest.mark.slow
def test_warnings_as_errors_leave_the_decoder_alone(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(0, 90, 150, 10)))
    code = """
import sys
from pathlib import Path
from vbpr.images import Preprocessing, prepare_jpeg
how = Preprocessing(64, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3, squash=True)
assert prepare_jpeg(Path(sys.argv[1]).read_bytes(), how) is not None
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path / "a.jpg"], check=True, timeout=60)


@pytest.mark.slow
def test_it_starts_no_threads():
    """Decoding runs in many threads beside the model: torch's own on top of them would fight for the cores."""
    code = """
import io, os, sys
import numpy as np, torch
from PIL import Image
from vbpr.images import Preprocessing, prepare_jpeg
out = io.BytesIO()
exif = Image.Exif()
exif[0x112] = 6
Image.fromarray(np.zeros((1200, 900, 3), np.uint8)).save(out, "JPEG", exif=exif)
before = len(os.listdir("/proc/self/task"))
assert prepare_jpeg(out.getvalue(), Preprocessing(299, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)) is not None
assert len(os.listdir("/proc/self/task")) == before
torch.zeros(4_000_000).mul_(2.0)
assert torch.get_num_threads() == 1 or len(os.listdir("/proc/self/task")) > before
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "2"}, timeout=60)


def test_without_torchvisions_decoder_pillow_does_it(monkeypatch):
    how, data = Preprocessing(64, 0.875, "bicubic", HALF, HALF), jpeg(picture(1, 90, 120))
    monkeypatch.delattr("torchvision.io.decode_jpeg")
    assert prepare_jpeg(data, how) is None
    assert np.array_equal(prepare(data, how), prepare_any(data, how))
