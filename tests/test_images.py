"""Image sources and decoding: every kind of file that a catalogue may hold."""

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from conftest import board_items, square
from vbpr import VbprError, images, open_images
from vbpr.images import REASONS, BadImage, Preprocessing, is_image_name, load, prepare

HOW = Preprocessing(16, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(size=(48, 40), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


@pytest.mark.parametrize("how", ["folder", "tar", "zip"])
def test_every_source_gives_the_same_images_in_the_order_of_ids(catalogue, how):
    made = board_items()
    source = open_images(catalogue(images=made, how=how))
    assert source.item_ids.tolist() == sorted(made)
    assert all(source.read(n) == made[item] for n, item in enumerate(source.item_ids))
    assert len(source) == len(made) and len({source.signature(n) for n in range(len(source))}) > 1


def test_shards_are_one_catalogue(tmp_path):
    made = board_items()
    for part in (0, 1):
        with tarfile.open(tmp_path / f"images-{part}.tar", "w") as archive:
            for name in sorted(made)[part::2]:
                info = tarfile.TarInfo(f"deep/{name}.png")
                info.size = len(made[name])
                archive.addfile(info, io.BytesIO(made[name]))
    source = open_images(tmp_path)
    assert [source.read(n) for n in range(len(source))] == [made[i] for i in sorted(made)]


def test_signature_changes_with_the_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(square(0.1, np.random.default_rng(0)))
    before = open_images(tmp_path).signature(0)
    os.utime(path, ns=(1, 1))
    assert open_images(tmp_path).signature(0) != before


def test_two_images_of_one_item_are_refused(tmp_path):
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(VbprError, match=r"both the image of item a; keep one"):
        open_images(tmp_path)


def test_nothing_there_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.jpg").write_text("x")
    with pytest.raises(VbprError, match="no images found"):
        open_images(tmp_path)
    with pytest.raises(VbprError, match="does not exist"):
        open_images(tmp_path / "none")


def hostile(name, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "members",
    [
        [hostile("../a.png")],
        [hostile("/a.png")],
        [hostile("a.png", tarfile.SYMTYPE)],
        [hostile("a.png", tarfile.LNKTYPE)],
        [hostile("a.png"), hostile("a.png")],
    ],
    ids=["dots", "absolute", "symbolic link", "hard link", "twice"],
)
def test_hostile_tars_are_refused(tmp_path, members):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for info in members:
            archive.addfile(info)
    with pytest.raises(VbprError, match=r"images\.tar: member"):
        open_images(tmp_path)


@pytest.mark.parametrize("name", ["images.tar", "images.zip"])
def test_damaged_archives_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"nonsense" * 300)
    with pytest.raises(VbprError, match="not a readable"):
        open_images(tmp_path)


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
    monkeypatch.setattr(images, "MAX_PIXELS", 48 * 40 - 1)
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


def test_sparse_members_are_refused(tmp_path):
    """They lie in a tar without their empty blocks: read as they are, they run into the next."""
    member = tarfile.TarInfo("a.bmp")
    member.size, member.pax_headers = 512, {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,512"}
    with tarfile.open(tmp_path / "images.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(bytes(512)))
    with pytest.raises(VbprError, match="sparse"):
        open_images(tmp_path)


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

    monkeypatch.setattr(images, "on_white", out)
    assert bad(encoded(photo())) in images.PASSING

    def in_words(*_):  # as libavif has it
        raise ValueError("Failed to decode frame 0: Out of memory")

    monkeypatch.setattr(images, "on_white", in_words)
    assert bad(encoded(photo())) in images.PASSING


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


def test_a_wrong_extension_does_not_matter(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(photo(), "PNG"))
    source = open_images(tmp_path)
    assert prepare(source.read(0), HOW).shape == (16, 16, 3)


def unreadable_link(path):
    path.symlink_to(path.with_name("gone"))


def looping_link(path):
    path.symlink_to(path)


def named_pipe(path):
    os.mkfifo(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [unreadable_link, looping_link, named_pipe])
def test_what_is_not_a_file_is_bad_and_never_hangs(tmp_path, make):
    make(tmp_path / "a.jpg")
    source = open_images(tmp_path)
    with pytest.raises(BadImage) as caught:
        source.read(0)
    assert str(caught.value) in REASONS


def test_a_folder_called_jpg_is_walked_into_and_reported(tmp_path):
    (tmp_path / "b.jpg").mkdir()
    (tmp_path / "b.jpg" / "c.png").write_bytes(encoded(photo()))
    source = open_images(tmp_path)
    assert source.item_ids.tolist() == ["b", "c"]
    with pytest.raises(BadImage, match="not a regular file"):
        source.read(0)
    assert source.read(1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_no_permission_is_bad(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(BadImage, match="no permission"):
        open_images(tmp_path).read(0)


def test_a_file_that_vanishes_is_bad(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    source = open_images(tmp_path)
    path.unlink()
    with pytest.raises(BadImage, match="no such file"):
        source.read(0)
    assert source.signature(0) == 0


def test_names_that_are_not_utf8_have_ids_that_can_be_written(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9\n.jpg"
    with open(name, "wb") as handle:  # noqa: PTH123
        handle.write(encoded(photo()))
    source = open_images(tmp_path)
    source.item_ids[0].encode("utf-8")
    assert "\\xe9" in source.item_ids[0] and prepare(source.read(0), HOW).shape == (16, 16, 3)


def test_an_encrypted_or_damaged_zip_member_is_bad(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encoded(photo()))
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadImage, match="damaged"):
        open_images(tmp_path).read(0)


def test_which_names_are_looked_at():
    names = ["a.jpg", "b.JPEG", "c.jpe", "d.jfif", "e.avif", "f.png", "g.webp", "h.gif", "i.tif", "j.TIFF", "x/k.bmp"]
    assert all(map(is_image_name, [*names, "l.ppm", "m.pgm", "n.v2.png"]))
    assert not any(map(is_image_name, ["a", ".jpg", ".hidden.jpg", "a.txt", "a.jpg.txt", "jpg", "a.mp4"]))


@pytest.mark.parametrize("how", ["folder", "tar", "zip"])
def test_files_that_are_not_named_like_images_are_counted(tmp_path, how):
    files = {"a.png": 1, "deep/b.HEIC": 2, "c.heic": 3, "README": 4, "notes.txt": 5, ".DS_Store": 6, "deep/.x.png": 7}
    folder = tmp_path / "images"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    if how == "folder":
        (folder / "linked").symlink_to(folder / "deep")
    else:
        shutil.make_archive(str(folder), how, folder)
        shutil.rmtree(folder)
    linked = {"links to folders": 1} if how == "folder" else {}
    assert open_images(tmp_path).others == {".heic": 2, "no ending": 1, ".txt": 1} | linked


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
