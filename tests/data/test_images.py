"""Image sources: folders, tars and zips, and every kind of file that is none to be read."""

import io
import os
import shutil
import tarfile
import unicodedata
import zipfile

import numpy as np
import pytest

from conftest import board_items, square
from pictures import HOW, encoded, photo
from vbpr import Dataset, Interactions, VbprError, open_images
from vbpr.data.images.source import REASONS, BadImage, is_image_name
from vbpr.networks.prepare import prepare
from vbpr.stores.model.lookup import index_of


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
    found = set()
    for ns, data in ((1, b"x"), (2, b"x"), (2, b"xx"), (10**9 + 2, b"xx")):  # to the nanosecond, and by size
        path.write_bytes(data)
        os.utime(path, ns=(ns, ns))
        found.add(open_images(tmp_path).signature(0))
    assert len(found) == 4 and 0 not in found
    path.write_bytes(b"")
    assert open_images(tmp_path).signature(0) == 0  # nothing to look at


def test_signatures_in_archives_change_with_their_members(tmp_path):
    found = []
    for data, when in ((b"ab", 5), (b"ba", 5), (b"ab", 6), (b"abc", 6)):
        with tarfile.open(tmp_path / "a.tar", "w") as tar, zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            info = tarfile.TarInfo("a.png")
            info.size, info.mtime = len(data), when
            tar.addfile(info, io.BytesIO(data))
            packed.writestr("a.png", data)
        found.append([open_images(tmp_path / name).signature(0) for name in ("a.tar", "a.zip")])
    in_tar, in_zip = zip(*found, strict=True)
    assert in_tar[0] == in_tar[1] and len(set(in_tar)) == 3  # size and time; of the content a tar says nothing
    assert in_zip[0] == in_zip[2] and len(set(in_zip)) == 3  # size and checksum


@pytest.mark.parametrize("how", ["folder", "tar", "zip"])
def test_the_cap_on_bytes_holds_in_every_source(catalogue, monkeypatch, how):
    source = open_images(catalogue(images={"a": b"x" * 100, "b": b"x" * 101}, how=how))
    for reader in ("folder", "tars", "zips"):
        monkeypatch.setattr(f"vbpr.data.images.{reader}.MAX_BYTES", 100)
    assert len(source.read(0)) == 100
    with pytest.raises(BadImage, match="over the cap on bytes"):
        source.read(1)


def test_an_id_keeps_its_dots(tmp_path):
    for name in ("shoe.v2.png", "shoe.v3.png"):
        (tmp_path / name).write_bytes(b"x")
    assert open_images(tmp_path).item_ids.tolist() == ["shoe.v2", "shoe.v3"]


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
        [hostile("a.png", tarfile.FIFOTYPE)],
        [hostile("a.png"), hostile("a.png")],
    ],
    ids=["dots", "absolute", "symbolic link", "hard link", "pipe", "twice"],
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


def test_sparse_members_are_refused(tmp_path):
    """They lie in a tar without their empty blocks: read as they are, they run into the next."""
    member = tarfile.TarInfo("a.bmp")
    member.size, member.pax_headers = 512, {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,512"}
    with tarfile.open(tmp_path / "images.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(bytes(512)))
    with pytest.raises(VbprError, match="sparse"):
        open_images(tmp_path)


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


def test_what_is_no_source_is_told_what_to_do(tmp_path):
    (tmp_path / "images.tar.gz").write_bytes(b"x")
    with pytest.raises(VbprError, match=r"images\.zip; images\.tar\.gz is packed: unpack it"):
        open_images(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(VbprError, match=r"a\.jpg is one image; give FOLDER the folder that it is in"):
        open_images(tmp_path / "a.jpg", "FOLDER")


def test_an_id_is_one_however_its_letters_are_composed(tmp_path):
    """A Mac's file names have letters and their marks apart, and tables have them in one."""
    apart = unicodedata.normalize("NFD", "Größe é 1")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"{apart}.png").write_bytes(b"x")
    assert open_images(tmp_path).item_ids.tolist() == ["Größe é 1"]
    assert Interactions.of(["a", "a"], [apart, "Größe é 1"]).item_ids.tolist() == ["Größe é 1"]
    (tmp_path / "items.csv").write_text(f"item_id,title\n{apart},a skirt\n", encoding="utf-8")
    assert Dataset(tmp_path).items()["title"] == {"Größe é 1": "a skirt"}
    assert index_of(np.array(["Größe é 1"]), apart, "item") == 0


@pytest.mark.parametrize("padding", [0, 512, 9000])
def test_tars_that_were_put_together_by_cat_are_refused(tmp_path, padding):
    """A tar ends where the first of them does: the images of the others would be missing without a word."""
    parts = []
    for name in ("a.png", "b.png"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        parts.append(buffer.getvalue())
    path = tmp_path / "images.tar"
    path.write_bytes(parts[0] + parts[1])
    with pytest.raises(VbprError, match="holds another tar after its end; keep them apart"):
        open_images(tmp_path)
    path.write_bytes(parts[0] + bytes(padding) + b"a signature of somebody's own" * 20)
    assert len(open_images(tmp_path)) == 1
