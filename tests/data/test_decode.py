"""Bytes to pixels: every kind of image that a catalogue may hold; the fast JPEG path against Pillow: the same picture
within 2/255, the same refusals, no threads of its own."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pictures import HOW, encoded, photo
from vbpr.data.images import decode
from vbpr.data.images.decode import load
from vbpr.data.images.source import PASSING, REASONS, BadImage
from vbpr.networks import prepare as prepare_module
from vbpr.networks.prepare import Preprocessing, plain_size, prepare, prepare_any, prepare_jpeg, rows_needed

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
import zlib
from pathlib import Path
from vbpr.networks.prepare import Preprocessing, prepare_jpeg
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
from vbpr.networks.prepare import Preprocessing, prepare_jpeg
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


def bad(data):
    with pytest.raises(BadImage) as caught:
        prepare(data, HOW)
    assert str(caught.value) in REASONS
    return str(caught.value)


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_empty_html_and_truncated_files():
    assert bad(b"") == "empty file"
    assert bad(b"<!doctype html><title>404</title>") == "not an image"
    whole = encoded(photo(), "JPEG")
    assert bad(whole[: len(whole) // 2]) == "truncated"
    assert bad(encoded(photo())[:-600]) in ("truncated", "damaged")


def test_flipped_bytes_in_a_png_are_seen():
    data = bytearray(encoded(photo()))
    data[len(data) // 2] ^= 0xFF
    assert bad(bytes(data)) in ("damaged", "truncated")


def test_bombs_are_refused_before_they_are_decoded(monkeypatch):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    assert bad(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"x")) == "over the cap on pixels"
    monkeypatch.setattr(decode, "MAX_PIXELS", 48 * 40 - 1)
    assert bad(encoded(photo())) == "over the cap on pixels"


def test_a_jpeg_of_thousands_of_scans_is_refused():
    """Each of a hundred bytes is a pass over all pixels: a megabyte would take minutes."""
    data = encoded(photo(), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    scans = data.count(b"\xff\xda")
    assert 5 < scans < 20
    allowed = data[:-2] + last * (100 - scans) + data[-2:]
    assert prepare(allowed, HOW).shape == (16, 16, 3)
    assert bad(data[:-2] + last * (101 - scans) + data[-2:]) == "over the cap on scans"
    film = np.random.default_rng(0).bytes(20_000_000)  # behind the picture, as phones leave one
    assert film.count(b"\xff\xda") > 100 and np.array_equal(prepare(data + film, HOW), prepare(data, HOW))


def test_an_exif_that_cannot_be_read_turns_nothing():
    data = encoded(photo())
    junk = data[:33] + png_chunk(b"eXIf", b"no such thing") + data[33:]
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(junk)).getexif()
    assert np.array_equal(np.asarray(load(junk)), np.asarray(load(data)))


def test_a_tile_larger_than_its_image_is_a_bomb(monkeypatch):
    """libtiff takes memory for a whole tile, whatever there is to see of it."""
    data = bytearray(encoded(photo(), "TIFF"))
    at = data.index(struct.pack("<HHI", 0x116, 4, 1))  # rows a strip; where there are tiles, their sizes
    data[at : at + 2] = struct.pack("<H", 322)
    data[at + 8 : at + 12] = struct.pack("<I", 65_000_000)
    assert bad(bytes(data)) == "over the cap on pixels"


def test_compressed_text_bombs_are_refused():
    data = encoded(photo())
    bomb = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 80_000_000))
    prepared = data[:33] + bomb + data[33:]
    assert bad(prepared) in ("damaged", "not an image")


@pytest.mark.parametrize("mode", ["L", "P", "LA", "1", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "F") else "PNG"
    if mode in ("I;16", "F"):
        ramp = np.linspace(0, 1, 40 * 48).reshape(40, 48)
        image = Image.fromarray((ramp * 65535).astype(np.uint16) if mode == "I;16" else ramp.astype(np.float32))
    else:
        image = photo().convert(mode)
    pixels = prepare(encoded(image, kind), HOW)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8 and pixels.std() > 0


def test_16_bit_is_scaled_by_257_rather_than_clipped():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert np.asarray(load(encoded(Image.fromarray(values))))[0, :, 0].tolist() == [0, 1, 128, 255]


def tiff(pixels, bits, white_is_zero=False, kind=1):
    """An uncompressed grey TIFF of (height, width) numbers already packed; `kind`: 1 unsigned, 2 signed, 3 float."""
    height, width = pixels.shape
    data = pixels.tobytes()
    tags = {256: width * 8 * pixels.itemsize // bits, 257: height, 258: bits, 259: 1, 262: int(not white_is_zero)}
    tags |= {273: 8, 277: 1, 278: height, 279: len(data), 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_grey_tiffs_say_how_many_bits_they_have_and_whether_0_is_white():
    wanted = np.tile(np.arange(0, 256, 2), (4, 1))

    def found(*args, **options):
        return np.asarray(load(tiff(*args, **options)))[..., 0]

    pairs = (wanted * 4095 // 255).reshape(4, -1, 2)  # two numbers of 12 bits in three bytes
    high, low = pairs[..., 0], pairs[..., 1]
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], -1).astype(np.uint8).reshape(4, -1)
    assert np.abs(found(packed, 12).astype(int) - wanted).max() <= 1
    assert np.array_equal(found((wanted * 257).astype("<u2"), 16), wanted)
    assert np.array_equal(found((65535 - wanted * 257).astype("<u2"), 16, white_is_zero=True), wanted)
    assert np.abs(found((wanted * 32767 // 255).astype("<i2"), 16, kind=2).astype(int) - wanted).max() <= 1
    assert np.array_equal(found((1 - wanted / 255).astype("<f4"), 32, white_is_zero=True, kind=3), wanted)
    assert bad(tiff((wanted * -9).astype("<i2"), 16, kind=2)) == "values outside their range"


def test_values_outside_their_range_are_refused():
    """Floats are taken for shares of white; what else they mean, nobody can say."""
    ramp = np.linspace(0, 1, 40 * 48, dtype=np.float32).reshape(40, 48)
    assert np.array_equal(np.asarray(load(encoded(Image.fromarray(ramp), "TIFF")))[..., 0], np.rint(ramp * 255))
    for wrong in (np.nan, np.inf, -0.1, 1.1):
        values = ramp.copy()
        values[3, 5] = wrong
        assert bad(encoded(Image.fromarray(values), "TIFF")) == "values outside their range"
    assert bad(encoded(Image.fromarray(np.array([[0, 70_000]], np.int32)), "TIFF")) == "values outside their range"


def test_formats_that_run_programs_or_decode_before_the_cap_are_refused():
    icon = encoded(photo((64, 64)), "ICO")
    assert Image.open(io.BytesIO(icon)).format == "ICO" and bad(icon) == "not an image"
    assert bad(encoded(photo(), "EPS")) == "not an image"


def test_memory_that_gives_out_is_the_machines_fault(monkeypatch):
    def out(*_):
        raise MemoryError

    monkeypatch.setattr(decode, "on_white", out)
    assert bad(encoded(photo())) in PASSING

    def in_words(*_):  # as libavif has it
        raise ValueError("Failed to decode frame 0: Out of memory")

    monkeypatch.setattr(decode, "on_white", in_words)
    assert bad(encoded(photo())) in PASSING


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert (np.asarray(load(encoded(image))) == 255).all()
    half = np.asarray(load(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))))
    assert abs(int(half[0, 0, 0]) - 127) <= 1


def test_transparency_of_16_bit_grey_is_laid_on_white():
    """PNG may name one value, of 16 bits, that is transparent."""
    values = np.array([[0, 700, 701, 65535]], np.uint16)
    data = encoded(Image.fromarray(values))
    data = data[:33] + png_chunk(b"tRNS", struct.pack(">H", 700)) + data[33:]
    assert np.asarray(load(data))[0, :, 0].tolist() == [0, 255, 3, 255]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_of_few_bits_is_laid_on_white(bits):
    """PNG tells it in the file's own bits, Pillow's pixels have eight."""
    most, clear = 2**bits - 1, 2**bits // 3
    row = np.array([clear, most, clear, most, 0, 0, 0, 0] if clear else [clear, most] * 4, np.uint8)
    packed = np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :])
    got = np.asarray(load(raw_png(8, bits, 0, packed.tobytes(), struct.pack(">H", clear))))[0, :, 0]
    np.testing.assert_array_equal(got, np.where(row == clear, 255, row.astype(int) * 255 // most))


def test_a_transparent_colour_of_16_bits_is_laid_on_white():
    clear, other = struct.pack(">HHH", 0x1234, 0xFF00, 0x9ABC), struct.pack(">HHH", 0x1334, 0xFF00, 0x9ABC)
    got = np.asarray(load(raw_png(2, 16, 2, clear + other, clear)))[0]
    assert got.tolist() == [[255, 255, 255], [0x13, 0xFF, 0x9A]]


def raw_png(width, bits, colour, row, clear):
    """One row of a PNG with a transparent colour."""
    header = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    parts = {b"IHDR": header, b"tRNS": clear, b"IDAT": zlib.compress(b"\0" + row), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, data) for name, data in parts.items())


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (20, 20), c) for c in ("#ff0000", "#0000ff")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(load(data))[5, 5].tolist() == [255, 0, 0]


def test_what_a_first_frame_leaves_bare_is_white():
    small = Image.new("P", (4, 4), 1)
    small.putpalette([0, 0, 0, 255, 0, 0])
    data = bytearray(encoded(small, "GIF"))
    data[6:10] = struct.pack("<HH", 8, 6)  # the screen
    corner = data.index(b",", 13) + 1  # of the frame on it
    data[corner : corner + 4] = struct.pack("<HH", 2, 1)
    expected = np.full((6, 8, 3), 255)
    expected[1:5, 2:6] = [255, 0, 0]
    np.testing.assert_array_equal(np.asarray(load(bytes(data))), expected)


def test_exif_orientation_is_applied():
    image = photo((30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = load(encoded(image, "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(turned), np.asarray(image.rotate(-90, expand=True)))


@pytest.mark.parametrize("size", [(1, 1), (8000, 1), (1, 8000), (3, 500)])
def test_slivers_and_dots_are_usable(size):
    data = encoded(Image.new("RGB", size, "#102030"))
    assert (prepare(data, HOW) == np.array([0x10, 0x20, 0x30])).all()


def test_no_crop_squashes_the_whole_image():
    image = photo((60, 20))
    how = Preprocessing(32, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, squash=True)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(prepare(encoded(image), how), expected)


@pytest.mark.parametrize("size", [(48, 40), (40, 48), (500, 20), (33, 33)])
@pytest.mark.parametrize("crop", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("squash", [False, True])
def test_geometry_equals_torchvisions(size, crop, squash):
    """Resize the shorter side or both, crop the centre: the same pixels as timm's own evaluation transform."""
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    image, short = photo(size), int(32 / crop)
    how = Preprocessing(32, crop, "bicubic", (0.5,) * 3, (0.5,) * 3, squash)
    if squash:  # width first, always: where Pillow would begin with the height, it cuts other values off in between
        bicubic = Image.Resampling.BICUBIC
        resized = image.resize((short, image.height), bicubic).resize((short, short), bicubic)
    else:
        resized = Resize(short, InterpolationMode.BICUBIC)(image)
    np.testing.assert_array_equal(prepare(encoded(image), how), np.asarray(CenterCrop(32)(resized)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_images_that_say_little_are_told(kind):
    told = []
    for size in ((16, 16), (15, 20), (20, 15), (20, 320), (20, 321), (321, 20)):
        prepare(encoded(Image.new("RGB", size), kind), HOW, lambda *size: told.append(size))
    assert told == [(15, 20), (20, 15), (20, 321), (321, 20)]


def test_a_sliver_is_never_resized_beyond_the_cap(monkeypatch):
    monkeypatch.setattr(prepare_module, "MAX_PIXELS", 100_000)
    assert prepare_jpeg(encoded(Image.new("RGB", (8000, 1)), "JPEG"), HOW) is None
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, *a: (sizes.append(size), resize(self, size, *a))[1])
    prepare(encoded(Image.new("RGB", (8000, 1)), "PNG"), HOW)
    assert sizes and max(width * height for width, height in sizes) <= 100_000


def test_the_nearest_pixel_of_a_jpeg_is_pillows():
    data = encoded(photo(), "JPEG")
    how = Preprocessing(16, 1.0, "nearest", HALF, HALF, squash=True)
    wanted = Image.open(io.BytesIO(data)).resize((16, 40), 0).resize((16, 16), 0)
    np.testing.assert_array_equal(prepare(data, how), np.asarray(wanted))
