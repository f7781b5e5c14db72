"""What extraction must survive: bad images, full and failing disks, second writers, foreign files, other models."""

import contextlib
import errno
import fcntl
import importlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import PROVENANCE, run_python
from vbpr import VbprError
from vbpr.base.files import replacing
from vbpr.base.locks import locked
from vbpr.cli import app
from vbpr.data.dataset import Dataset
from vbpr.data.images import open_images
from vbpr.data.images.source import BadImage
from vbpr.extraction.extract import extract
from vbpr.stores.features.store import FeatureStore

BACKBONE = "test_efficientnet"  # timm's smallest
WORDS = ("--random-weights", "--engine", "torch", "--device", "cpu", "--batch", "4", "--data")
SETTINGS = {"random_weights": True, "engine": "torch", "device": "cpu", "batch": 4, "threads": 2}
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def jpeg(seed=0, size=(90, 120), **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    for i in range(10):
        (images / f"i{i}.jpg").write_bytes(jpeg(i))
    return tmp_path / "data"


def run(folder, out, **options):
    return extract(Dataset(folder), BACKBONE, out, **(SETTINGS | options))


def cli(*words):
    """(exit code, standard error) of a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app([str(word) for word in words])
        except SystemExit as stop:
            return stop.code, err.getvalue()
    return 0, err.getvalue()


def extract_cli(folder, out, *words):
    return cli("extract", "--backbone", BACKBONE, *WORDS, folder, "--out", out, *words)


def made(path, n=6, dim=4, ids=None, **more):
    ids = np.array([f"i{k}" for k in range(n)]) if ids is None else ids
    return FeatureStore.create(path, ids, np.arange(len(ids), dtype=np.uint64), dim, PROVENANCE | more)


# ------------------------------------------------------------------------------------------ images


def test_bad_images_are_skipped_and_named(folder, tmp_path):
    images = folder / "images"
    (images / "empty.jpg").touch()
    (images / "html.jpg").write_bytes(b"<html>404</html>")
    (images / "cut.jpg").write_bytes(jpeg()[:-300])
    (images / "folder.jpg").mkdir()
    (images / "dangling.jpg").symlink_to("nowhere")
    (images / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(images / "fifo.jpg")
    (images / "device.jpg").symlink_to("/dev/zero")
    (images / "new\nline.jpg").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(images) + b"/\xff\xfe.jpg")).write_bytes(b"")
    (images / "png-inside.jpg").write_bytes(png(Image.new("RGB", (40, 30), "red")))
    Image.new("RGB", (1, 1)).save(images / "one.png")
    Image.new("RGB", (8000, 1)).save(images / "sliver.png")
    done = run(folder, tmp_path / "f.h5", max_bad=0.6)
    assert dict(done.failures) == {
        "empty": "empty file",
        "html": "not an image",
        "cut": "truncated",
        "folder": "not a regular file",
        "dangling": "no such file, or a dangling link",
        "loop": "no such file, or a dangling link",
        "fifo": "not a regular file",
        "device": "not a regular file",
        "new\nline": "empty file",
        "\\xff\\xfe": "empty file",
    }
    assert done.items == 23
    code, _ = cli("info", tmp_path / "f.h5", "--failures", "--verify")
    assert code == 0


def png(image, **options):
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def test_an_image_that_vanishes_is_skipped(folder, tmp_path, monkeypatch):
    module = importlib.import_module("vbpr.extraction.extract")

    opened = open_images(folder)
    (folder / "images" / "i3.jpg").unlink()
    monkeypatch.setattr(module.Dataset, "images", lambda self: opened)
    assert run(folder, tmp_path / "f.h5", max_bad=0.2).failures == [("i3", "no such file, or a dangling link")]


def test_an_image_without_permission_is_tried_again(folder, tmp_path, monkeypatch):
    from vbpr.data.images.folder import FolderFiles

    read = FolderFiles.read

    def refuse(self, i):
        if self.paths[i] == "i3.jpg":
            raise BadImage("no permission to read it")
        return read(self, i)

    monkeypatch.setattr(FolderFiles, "read", refuse)
    assert run(folder, tmp_path / "f.h5", max_bad=0.2).failures == [("i3", "no permission to read it")]
    monkeypatch.undo()
    done = run(folder, tmp_path / "f.h5")
    assert (done.failures, done.written) == ([], 1)
    run(folder, tmp_path / "whole.h5")
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_too_many_bad_images_and_none_at_all(folder, tmp_path):
    (folder / "images" / "html.jpg").write_bytes(b"<html>")
    code, error = extract_cli(folder, tmp_path / "f.h5")
    assert code == 2 and "1 of 11 images" in error and "--max-bad" in error and "not an image" in error
    for image in (folder / "images").iterdir():
        image.write_bytes(b"<html>")
    code, error = extract_cli(folder, tmp_path / "g.h5")
    assert code == 2 and "none of the 11 images" in error
    code, error = extract_cli(tmp_path / "data" / "nothing", tmp_path / "g.h5")
    assert code == 2 and "does not exist" in error


def tar_of(path, names):
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(jpeg())
            archive.addfile(info, io.BytesIO(jpeg()))


def test_a_missing_shard_and_a_cut_tar(tmp_path):
    for k in (0, 1, 3):
        tar_of(tmp_path / f"images-{k:03}.tar", [f"{k}.jpg"])
    with pytest.raises(VbprError, match=r"images-001\.tar and later ones but not images-002\.tar"):
        open_images(tmp_path)
    tar_of(tmp_path / "images-002.tar", ["2.jpg"])
    assert open_images(tmp_path).item_ids.tolist() == ["0", "1", "2", "3"]
    with (tmp_path / "images-003.tar").open("r+b") as handle:
        handle.truncate(600)
    with pytest.raises(VbprError, match=r"images-003\.tar"):
        open_images(tmp_path)


def test_shards_of_several_series_more_than_open_files_are_allowed(tmp_path):
    for name in ("images-train-0", "images-val-0", "images-val-1", *(f"images{k}" for k in range(60))):
        tar_of(tmp_path / f"{name}.tar", [f"{name}.jpg"])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
    try:
        source = open_images(tmp_path)
        assert [source.read(i) for i in range(len(source))] == [jpeg()] * 63
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_zips_whose_inflation_python_does_not_bound_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.jpg", jpeg())
    with pytest.raises(VbprError, match=r"a\.jpg.*neither stored nor deflated"):
        open_images(tmp_path)


def test_a_tar_that_ends_too_early_or_goes_wrong_on_the_way(tmp_path):
    tar_of(tmp_path / "images.tar", [f"i{k}.jpg" for k in range(4)])
    whole = (tmp_path / "images.tar").read_bytes()
    with tarfile.open(tmp_path / "images.tar") as archive:
        third = archive.getmembers()[2].offset
    damaged = bytearray(whole)
    damaged[third + 110] ^= 1
    for data in (whole[:third], whole[: third + 100], bytes(damaged)):
        (tmp_path / "images.tar").write_bytes(data)
        with pytest.raises(VbprError, match=rf"images\.tar.*cut off or damaged at byte {third:,}"):
            open_images(tmp_path)


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("how", ["moved into place", "overwritten"])
def test_an_archive_that_changes_during_the_run_ends_it(tmp_path, kind, how):
    def make(path, shift):
        if kind == "tar":
            tar_of(path, [f"i{k}.jpg" for k in range(shift, 6)])
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for k in range(shift, 6):
                    archive.writestr(f"i{k}.jpg", jpeg(k))

    path, new = tmp_path / f"images.{kind}", tmp_path / f"new.{kind}"
    make(path, 1)
    make(new, 0)
    source = open_images(tmp_path)
    before = source.read(2)
    new.rename(path) if how == "moved into place" else shutil.copyfile(new, path)
    if (kind, how) == ("zip", "moved into place"):  # the old one is still open
        assert source.read(2) == before
    else:
        with pytest.raises(VbprError, match="has changed since this run began"):
            source.read(2)


def test_which_images_are_meant_must_be_clear(folder, tmp_path):
    (folder / "images").rename(tmp_path / "far")
    (folder / "thumbs").mkdir()
    (folder / "thumbs" / "i0.jpg").write_bytes(jpeg())
    (folder / "images").symlink_to(tmp_path / "nowhere")
    with pytest.raises(VbprError, match="images is a link to what is not there"):
        open_images(folder)
    (folder / "images").unlink()
    (tmp_path / "far").rename(folder / "images")
    tar_of(folder / "images-backup.tar", ["i0.jpg"])
    with pytest.raises(VbprError, match=r"has images/ and images-backup\.tar"):
        open_images(folder)
    shutil.rmtree(folder / "images")
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("i0.jpg", jpeg())
    with pytest.raises(VbprError, match=r"has images-backup\.tar and images\.zip"):
        open_images(folder)


@pytest.mark.parametrize("name", ["images.tar", "images.zip"])
@pytest.mark.parametrize("what", ["pipe", "dangling link"])
def test_an_archive_that_is_none_is_not_waited_for_nor_passed_over(folder, name, what):
    (folder / "images").rename(folder / "loose")  # which would be taken for the catalogue
    (os.mkfifo if what == "pipe" else lambda path: path.symlink_to("/nowhere/images"))(folder / name)
    for path in (folder, folder / name):
        with pytest.raises(VbprError, match=f"{name} is .*(regular file|what is not there)"):
            open_images(path)


def test_folders_too_deep_in_each_other_are_refused(folder, monkeypatch):
    def walk(*_, **__):  # as Python 3.11 does it in 1,100 of them
        raise RecursionError

    monkeypatch.setattr("vbpr.data.images.folder.os.walk", walk)
    with pytest.raises(VbprError, match="images has folders that lie too deep in each other"):
        open_images(folder)


def test_a_file_that_has_nothing_to_say_now_is_tried_again(folder, monkeypatch):
    """As /proc/kmsg: a regular file whose read gives neither bytes nor an error."""

    class Silent(io.BytesIO):
        def read(self, size=-1):
            return None

    def silent(descriptor, *_):
        os.close(descriptor)
        return Silent()

    source, status = open_images(folder), (folder / "images" / "i0.jpg").stat()
    monkeypatch.setattr("vbpr.data.images.folder.os.fdopen", silent)
    monkeypatch.setattr("vbpr.data.images.folder.os.fstat", lambda _: status)
    with pytest.raises(BadImage, match="unreadable"):
        source.read(0)
    monkeypatch.setattr(Silent, "read", lambda *_: bytearray(2**62))  # nor does one for which there is no memory
    with pytest.raises(BadImage, match="unreadable"):
        source.read(0)


@pytest.mark.parametrize("name", ["z" * 300, "i3\0"])
def test_names_that_would_not_fit_a_column_are_refused(tmp_path, name):
    with tarfile.open(tmp_path / "images.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size, member.pax_headers = len(jpeg()), {"path": f"{name}.jpg"}
        archive.addfile(member, io.BytesIO(jpeg()))
    with pytest.raises(VbprError, match="is no item id"):
        open_images(tmp_path)


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_flipped_bytes_in_a_zip_are_caught_wherever_they_are(tmp_path, how):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", how) as archive:
        for k in range(10):
            archive.writestr(f"i{k}.jpg", jpeg(k))
        start, length = archive.getinfo("i3.jpg").header_offset + 45, archive.getinfo("i3.jpg").compress_size
    sound = path.read_bytes()
    for at in (start, start + 3, start + length // 2, start + length - 20):
        data = bytearray(sound)
        data[at] ^= 255
        path.write_bytes(data)
        assert [item for item, _ in run(tmp_path, tmp_path / f"{at}.h5", max_bad=0.2).failures] == ["i3"]


def test_a_zip_that_cannot_be_read_for_now_is_read_by_the_next_run(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for k in range(10):
            archive.writestr(f"i{k}.jpg", jpeg(k))
    opened, left = zipfile.ZipFile.open, [9]  # eight pictures are looked at before the file is begun

    def failing(self, name, *rest, **more):
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.EIO, "Input/output error")
        return opened(self, name, *rest, **more)

    monkeypatch.setattr(zipfile.ZipFile, "open", failing)
    first = run(tmp_path, tmp_path / "f.h5", max_bad=0.2)
    assert [reason for _, reason in first.failures] == ["unreadable"]
    again = run(tmp_path, tmp_path / "f.h5")
    assert again.written == 1 and not again.failures


def test_archives_whose_headers_are_forged(folder, tmp_path):
    """Each byte of the names, numbers and flags in turn: a file is refused, an image skipped, or all is well."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("é.jpg", b"picture" * 9)
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("é.jpg")
        member.size, member.mtime = 63, 1.5
        archive.addfile(member, io.BytesIO(b"picture" * 9))
    reasons = set()
    for name, whole in (("x.zip", zipped.getvalue()), ("x.tar", tarred.getvalue())):
        for at in (at for at in range(len(whole)) if whole[at] or name == "x.zip"):
            for value in (0, 255, whole[at] ^ 1, ord("-")):
                data = bytearray(whole)
                data[at] = value
                for start in (0, 1024) if name == "x.tar" else ():  # the header's own checksum
                    total = sum(data[start : start + 148]) + 256 + sum(data[start + 156 : start + 512])
                    data[start + 148 : start + 156] = b"%06o\0 " % total
                (tmp_path / name).write_bytes(data)
                with contextlib.suppress(VbprError), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of a name that is there twice
                    source = open_images(tmp_path / name)
                    try:
                        source.read(0)
                    except BadImage as bad:
                        reasons.add(str(bad))
    assert {"damaged", "encrypted"} <= reasons


@pytest.mark.slow
def test_sizes_that_a_zip_forges_do_not_fill_the_memory(tmp_path):
    path, size = tmp_path / "images.zip", 300 * 2**20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(size))
        archive.writestr("good.jpg", jpeg())
    assert path.stat().st_size < 2**19
    data = path.read_bytes().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(data)
    tracemalloc.start()
    done = run(tmp_path, tmp_path / "f.h5", max_bad=0.6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert [item for item, _ in done.failures] == ["bomb"]


# ------------------------------------------------------------------------------------------ catalogues that change


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "link to itself"])
def test_what_is_no_file_is_not_written_nor_waited_for(folder, tmp_path, what):
    out = tmp_path / "f.h5"
    if what == "pipe":
        os.mkfifo(out)
    elif what == "folder":
        out.mkdir()
    else:
        out.symlink_to("/dev/null" if what == "device" else out)
    says = {"pipe": "not a regular file", "device": "not a regular file", "folder": "a folder", "link to itself": ""}
    code, error = extract_cli(folder, out)
    assert code == 2 and f"{out} {'is' if says[what] else 'cannot be written'} {says[what]}".strip() in error
    if what != "folder":
        assert cli("info", out)[0] == 2
    assert not (tmp_path / ".f.h5.lock").exists()


def test_a_lock_that_is_a_link_does_not_write_to_its_target(folder, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".f.h5.lock").symlink_to(tmp_path / "precious")
    code, error = extract_cli(folder, tmp_path / "f.h5")
    assert code == 2 and "cannot be opened" in error
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_disk_that_is_not_mounted_behind_links_takes_no_features(folder, tmp_path):
    disk, out = tmp_path / "disk", tmp_path / "f.h5"
    (folder / "images").rename(disk)
    (folder / "images").mkdir()
    for image in disk.iterdir():
        (folder / "images" / image.name).symlink_to(image)
    assert run(folder, out).written == 10
    before = out.read_bytes()
    disk.rename(tmp_path / "away")
    with pytest.raises(VbprError, match="10 away, features kept"):
        run(folder, out)
    assert out.read_bytes() == before
    (tmp_path / "away").rename(disk)
    assert run(folder, out).written == 0


def test_images_that_are_away_or_empty_keep_their_features(folder, tmp_path, capsys):
    out, images = tmp_path / "f.h5", folder / "images"
    for i in (2, 3):
        (images / f"i{i}.jpg").rename(tmp_path / f"i{i}.jpg")
        (images / f"i{i}.jpg").symlink_to(tmp_path / f"i{i}.jpg")
    run(folder, out)
    before = FeatureStore(out).rows(np.array(["i2", "i3", "i7"]))
    (tmp_path / "i2.jpg").unlink()
    (images / "i7.jpg").write_bytes(b"")
    (images / "new.jpg").write_bytes(jpeg(11))  # so that a new file is made, beside
    done = run(folder, out, max_bad=0.2)
    assert (done.written, done.failures, done.away) == (1, [], ["i2", "i7"])
    assert np.array_equal(FeatureStore(out).rows(np.array(["i2", "i3", "i7"])), before)
    assert run(folder, out, max_bad=0.2).away == ["i2", "i7"]
    capsys.readouterr()
    app(
        ["extract", "--backbone", BACKBONE, *WORDS, str(folder), "--out", str(out), "--max-bad", ".2"],
        standalone_mode=False,
    )
    assert "kept the features of 2 items whose images cannot be looked at now (i2, i7)" in capsys.readouterr().out
    (tmp_path / "i2.jpg").write_bytes(jpeg(12))  # another picture
    assert run(folder, out, max_bad=0.2).written == 1
    assert run(folder, tmp_path / "fresh.h5", max_bad=0.2).failures == [("i7", "empty file")]


def test_an_empty_name_is_no_wish_for_the_sample(tmp_path):
    code, error = extract_cli("", tmp_path / "f.h5")
    assert code == 2 and "--data is empty" in error


def test_standard_output_on_a_full_disk_is_said(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vbpr", "info", str(out)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 2 and "the output cannot be written (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr and "internal failure" not in done.stderr


def test_a_finished_catalogue_is_left_alone_without_torch(folder, tmp_path):
    out = tmp_path / "f.h5"
    assert run(folder, out).written == 10
    before = out.read_bytes(), out.stat().st_mtime_ns
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from vbpr.data.dataset import Dataset; from vbpr.extraction.extract import extract\n"
        f"done = extract(Dataset(__import__('pathlib').Path({str(folder)!r})), {BACKBONE!r}, {str(out)!r}, "
        "random_weights=True)\nassert (done.items, done.written) == (10, 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert (out.read_bytes(), out.stat().st_mtime_ns) == before


def test_changed_new_and_vanished_images_cost_only_themselves(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    before = FeatureStore(out).rows(np.array(["i0", "i5"]))
    (folder / "images" / "i1.jpg").write_bytes(jpeg(101, (91, 120)))
    (folder / "images" / "new.jpg").write_bytes(jpeg(102))
    (folder / "images" / "i2.jpg").unlink()
    assert run(folder, out).written == 2
    store = FeatureStore(out)
    assert np.array_equal(store.rows(np.array(["i0", "i5"])), before)
    assert "i2" not in store.item_ids and "new" in store.item_ids
    assert run(folder, tmp_path / "fresh.h5").written == 10
    fresh = FeatureStore(tmp_path / "fresh.h5")
    assert np.array_equal(fresh.features, store.features)
    assert (tmp_path / "fresh.h5").read_bytes() == out.read_bytes()


@pytest.fixture
def bfloat16(monkeypatch):
    """This processor multiplies bfloat16, be it true or not."""
    monkeypatch.setattr("vbpr.compute.device.multiplies_bfloat16", lambda _: True)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_fast_precision_is_refused_where_it_would_be_slower(folder, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("vbpr.compute.device.pick_device", lambda _: torch.device(kind))
    monkeypatch.setattr("vbpr.compute.device.multiplies_bfloat16", lambda device: device.type != kind)
    named = "GPU" if kind == "cuda" else "CPU"
    with pytest.raises(VbprError, match=f"--precision fast: this {named} has no units for bfloat16"):
        run(folder, tmp_path / "f.h5", precision="fast")
    assert not (tmp_path / "f.h5").exists()


def test_another_model_weights_or_precision_is_refused_naming_both(folder, tmp_path, bfloat16):
    out = tmp_path / "f.h5"
    run(folder, out)
    kept = out.read_bytes()
    for name, options in (("test_resnet", {}), (BACKBONE, {"precision": "fast"})):
        with pytest.raises(VbprError, match=rf"was made by {BACKBONE}.*would be {name}.*--out"):
            extract(Dataset(folder), name, out, **(SETTINGS | options))
    assert out.read_bytes() == kept


def test_engines_that_round_in_their_own_ways_are_not_mixed(folder, tmp_path, bfloat16):
    run(folder, tmp_path / "f.h5", precision="fast")
    pytest.importorskip("openvino")
    (folder / "images" / "new.jpg").write_bytes(jpeg(11))
    with pytest.raises(VbprError, match=r"fast; torch.*would be.*fast; openvino"):
        run(folder, tmp_path / "f.h5", precision="fast", engine="openvino")


def test_what_still_is_not_there_does_not_load_the_model(folder, tmp_path, monkeypatch):
    (folder / "images" / "link.jpg").symlink_to(tmp_path / "later.jpg")
    run(folder, tmp_path / "f.h5", max_bad=0.2)
    with monkeypatch.context() as patched:
        patched.setattr("vbpr.networks.registry.load_backbone", lambda *_: pytest.fail("loaded"))
        assert run(folder, tmp_path / "f.h5", max_bad=0.2).written == 0
    (tmp_path / "later.jpg").write_bytes(jpeg())
    assert run(folder, tmp_path / "f.h5").written == 1


def test_a_catalogue_that_shrinks_says_so_and_one_half_gone_is_refused(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    for i in range(4):
        (folder / "images" / f"i{i}.jpg").unlink()
    assert run(folder, out).dropped == 4 and len(FeatureStore(out)) == 6
    kept = out.read_bytes()
    for i in range(4, 8):
        (folder / "images" / f"i{i}.jpg").unlink()
    with pytest.raises(VbprError, match=r"4 of its 6 items \(first: i4\) are not in this one.*shard missing"):
        run(folder, out)
    assert out.read_bytes() == kept


def test_images_that_say_little_are_told_of(folder, tmp_path, capsys):
    Image.new("RGB", (1, 1)).save(folder / "images" / "one.png")
    Image.new("RGB", (8000, 1)).save(folder / "images" / "sliver.jpg")
    assert run(folder, tmp_path / "f.h5").odd == [("one", "1 x 1"), ("sliver", "8000 x 1")]
    words = ("--engine", "torch", "--device", "cpu", "--data", folder, "--out", tmp_path / "g.h5")
    app(["extract", "--backbone", BACKBONE, "--random-weights", *map(str, words)], standalone_mode=False)
    assert "2 images so small or narrow as to say little ('one' is 1 x 1" in capsys.readouterr().out


def test_the_data_set_on_record_is_the_last_one(folder, tmp_path):
    out, other = tmp_path / "f.h5", tmp_path / "other"
    run(folder, out)
    shutil.copytree(folder, other)  # with the times of the images
    done = run(other, out)
    assert done.written == 0 and FeatureStore(out).provenance["data"] == str(other)
    before = out.stat().st_ino
    assert run(other, out).written == 0 and out.stat().st_ino == before


def test_reasons_are_carried_over_by_name(tmp_path):
    path, ids = tmp_path / "f.h5", np.array([f"i{k}" for k in range(7)])
    with made(path) as store:
        store.fail(np.array([2]), ["truncated"])
    with made(path, ids=ids, reasons=["a new one", "truncated", "other"]) as store:
        assert store.failures() == [("i2", "truncated")]
    with made(path, ids=ids[:6], reasons=["a new one", "other"]) as store:
        assert store.failures() == [("i2", "other")]


def test_a_private_file_stays_private(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    out.chmod(0o600)
    (folder / "images" / "new.jpg").write_bytes(jpeg(11))
    assert run(folder, out).written == 1 and out.stat().st_mode & 0o777 == 0o600


def test_training_does_not_write_over_what_is_no_model(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    kept = out.read_bytes()
    for target in (out, folder / "images" / "i0.jpg"):
        code, error = cli("train", "--features", out, "--data", folder, "--out", target)
        assert code == 2 and f"{target} is there and holds {'features' if target == out else 'something'}" in error
    assert out.read_bytes() == kept


def test_nothing_else_is_written_over_a_feature_file(folder, tmp_path):
    """Nor over one that cannot be read now, whatever it holds."""
    out, model = tmp_path / "f.h5", tmp_path / "m.h5"
    run(folder, out)
    taken = [f"u{user},i{(user + k) % 10}" for user in range(8) for k in range(6)]
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id", *taken]))
    popular = ("train", "--model", "popularity", "--data", folder, "--out")
    assert cli(*popular, model)[0] == 0
    kept = out.read_bytes()
    for words in (
        ("index", out, "--out", out),
        ("evaluate", model, "--json", out),
        ("report", model, "--out", out),
        ("tune", "--model", "bprmf", "--data", folder, "--out", out),
    ):
        code, error = cli(*words)
        assert code == 2 and f"{out} is there and holds features" in error, words
    assert out.read_bytes() == kept
    holds = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print(flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", holds, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    code, error = cli(*popular, out)
    other.communicate(b"\n", timeout=60)
    assert code == 2 and "in use by another program" in error
    kept = out.read_bytes()
    out.write_bytes(kept[:3000])
    code, error = cli(*popular, out)
    assert code == 2 and "not a readable HDF5 file" in error and "delete it, or choose another place" in error
    assert out.read_bytes() == kept[:3000]


def test_another_driver_of_hdf5_is_not_used(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    words = [sys.executable, "-m", "vbpr", "info", str(out), "--verify"]
    done = subprocess.run(words, env=os.environ | {"HDF5_DRIVER": "split"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "verified: 10 of 10" in done.stdout


@pytest.mark.slow
def test_a_bar_that_cannot_be_shown_ends_nothing(folder, tmp_path):
    words = ["extract", "--backbone", BACKBONE, *WORDS, str(folder), "--out", str(tmp_path / "f.h5")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vbpr", *words],
            env=os.environ | {"FORCE_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0 and "10 of 10 items" in done.stdout


def test_a_lock_that_is_a_pipe_is_not_waited_for(folder, tmp_path):
    os.mkfifo(tmp_path / ".f.h5.lock")
    held = os.open(tmp_path / ".f.h5.lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        code, error = extract_cli(folder, tmp_path / "f.h5")
    finally:
        os.close(held)
    assert code == 2 and "in use by another process" in error


def test_a_link_to_the_feature_file_stays_one(folder, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "f.h5").symlink_to("far/f.h5")
    run(folder, tmp_path / "f.h5")
    assert (tmp_path / "f.h5").is_symlink() and len(FeatureStore(tmp_path / "far" / "f.h5").done) == 10
    inner = locked(tmp_path / "f.h5")
    with locked(tmp_path / "far" / "f.h5"), pytest.raises(VbprError, match="in use by pid"), inner:
        pass


def test_another_catalogue_does_not_replace_the_file(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    other = tmp_path / "other" / "images"
    other.mkdir(parents=True)
    (other / "z.jpg").write_bytes(jpeg())
    with pytest.raises(VbprError, match="another catalogue"):
        run(tmp_path / "other", out)


def test_rot_is_found_and_not_carried_into_a_grown_file(tmp_path):
    path = tmp_path / "f.h5"
    with made(path) as store:
        store.write(np.arange(6), np.ones((6, 4), np.float32))
    assert FeatureStore(path).verify() == []
    with path.open("r+b") as handle:
        handle.seek(store.offsets["features"] + 9)
        handle.write(b"\x77")
    assert FeatureStore(path).verify() == [(0, 6)]
    code, error = cli("info", path, "--verify")
    assert code == 2 and "has changed since it was written" in error and "i0 to i5" in error and "--verify" in error
    with pytest.raises(VbprError, match="i0 to i5"):  # what training asks for
        FeatureStore(path).digest()
    with made(path, ids=np.array([f"i{k}" for k in range(7)])) as store:
        assert len(store.pending) == 7


def test_a_provenance_that_was_changed_is_refused(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    data = out.read_bytes()
    assert data.count(b'"precision": "exact"') >= 2
    out.write_bytes(data.replace(b'"precision": "exact"', b'"precision": "exacT"'))
    code, error = cli("info", out)
    assert code == 2 and "is damaged (" in error and "checksum" in error


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "cut short", "emptied"])
def test_a_file_that_goes_during_the_run_is_told_of(tmp_path, how):
    path = tmp_path / "f.h5"
    told = pytest.raises(VbprError, match="cut short" if how in ("cut short", "emptied") else "taken away")
    with told, made(path, n=2000, dim=100) as store:
        store.write(np.arange(1000), np.ones((1000, 100), np.float32))
        if how == "deleted":
            path.unlink()
        elif how == "moved":
            path.rename(tmp_path / "elsewhere.h5")
        elif how == "replaced":
            (tmp_path / "other").write_bytes(path.read_bytes())
            (tmp_path / "other").rename(path)
        else:
            os.truncate(path, path.stat().st_size // 2 if how == "cut short" else 0)
        store.write(np.arange(1000, 2000), np.ones((1000, 100), np.float32))
    kept = {"moved": tmp_path / "elsewhere.h5", "replaced": path}.get(how)
    assert kept is None or len(FeatureStore(kept).done) == 1000


def test_rot_is_encoded_anew_when_asked(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    sound = out.read_bytes()
    with out.open("r+b") as handle:
        handle.seek(FeatureStore(out).offsets["features"] + 9)
        handle.write(b"\x77")
    assert out.read_bytes() != sound and run(folder, out).written == 0
    assert run(folder, out, verify=True).written == 10 and out.read_bytes() == sound
    assert run(folder, out, verify=True).written == 0


@pytest.mark.parametrize("verify", [False, True])
def test_a_flipped_state_does_not_cover_up_other_damage(folder, tmp_path, verify):
    """A block with a pending row had its digest made anew, whatever else had changed in it."""
    out = tmp_path / "f.h5"
    run(folder, out)
    sound, store = out.read_bytes(), FeatureStore(out)
    flip(out, store.offsets["state"] + 5, 1)
    assert FeatureStore(out).verify() == [] and run(folder, out, verify=verify).written == 1  # that alone: one image
    assert out.read_bytes() == sound
    flip(out, store.offsets["state"] + 5, 1)
    flip(out, store.offsets["features"] + 9, 0x77)
    assert FeatureStore(out).verify() == [(0, 10)]
    with pytest.raises(VbprError, match="has changed since it was written"):
        FeatureStore(out).check(FeatureStore(out).verify())
    assert run(folder, out, verify=verify).written == 10 and out.read_bytes() == sound


def flip(path, at, bits):
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


def test_what_fails_after_all_leaves_no_features(folder, tmp_path):
    """An image that was good, then junk of the same size and time, found when its block is encoded anew."""
    out, junk = tmp_path / "f.h5", folder / "images" / "i4.jpg"
    run(folder, out)
    status = junk.stat()
    junk.write_bytes(bytes(status.st_size))
    os.utime(junk, ns=(status.st_atime_ns, status.st_mtime_ns))
    flip(out, FeatureStore(out).offsets["features"] + 9, 0x77)
    assert run(folder, out, verify=True, max_bad=0.2).written == 9
    run(folder, tmp_path / "fresh.h5", max_bad=0.2)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


# ------------------------------------------------------------------------------------------ disks


@contextlib.contextmanager
def mounted(path, options):
    path.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True)
    if made.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {made.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@root
def test_a_full_disk_says_so_before_the_work_and_the_run_can_be_repeated(folder, tmp_path):
    with mounted(tmp_path / "small", "size=4m") as disk:
        (disk / "ballast").write_bytes(bytes(4 * 2**20 - 40_000))
        code, error = extract_cli(folder, disk / "f.h5")
        assert code == 2 and "No space left" in error and str(disk / "f.h5") in error and "again" in error
        assert sorted(p.name for p in disk.iterdir()) == ["ballast"]
        (disk / "ballast").unlink()
        assert extract_cli(folder, disk / "f.h5")[0] == 0
        assert FeatureStore(disk / "f.h5").verify() == []


@root
def test_a_full_disk_stops_growth_with_the_old_file_intact(tmp_path):
    with mounted(tmp_path / "small", "size=4m") as disk:
        path = disk / "f.h5"
        with made(path, n=300, dim=1000) as store:
            store.write(np.arange(300), np.ones((300, 1000), np.float32))
        (disk / "ballast").write_bytes(bytes(2 * 2**20))
        kept = path.read_bytes()
        with pytest.raises(VbprError, match="No space left"), made(path, n=1000, dim=1000):
            pass
        assert path.read_bytes() == kept
        assert sorted(p.name for p in disk.iterdir()) == ["ballast", "f.h5"]


@root
@pytest.mark.parametrize("options", ["ro,size=4m", "size=4m,nr_inodes=1"])
def test_a_target_that_cannot_be_written_is_refused_before_the_work(folder, tmp_path, options):
    with mounted(tmp_path / "disk", options) as disk:
        code, error = extract_cli(folder, disk / "f.h5")
        assert code == 2 and "is not writable" in error and "--out" in error


def test_a_file_size_limit_is_an_error_not_a_crash(folder, tmp_path):
    """SIGXFSZ is ignored in Python: the write itself fails, with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        code, error = extract_cli(folder, tmp_path / "f.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2 and "File too large" in error
    assert not (tmp_path / "f.h5").exists()
    assert extract_cli(folder, tmp_path / "f.h5")[0] == 0


@pytest.mark.parametrize("room", [0, 5])
def test_a_disk_without_room_for_the_lock_is_an_error_too(folder, tmp_path, room):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        code, error = extract_cli(folder, tmp_path / "f.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2 and "File too large" in error and not [p for p in tmp_path.iterdir() if p.name != "data"]


@pytest.mark.parametrize(("number", "said"), [(errno.ENOLCK, "cannot be locked"), (errno.EWOULDBLOCK, "in use by")])
def test_a_disk_without_locks_is_not_called_in_use(tmp_path, monkeypatch, number, said):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(VbprError, match=said), locked(tmp_path / "f.h5"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ([".f.h5.lock"] if said == "in use by" else [])


def test_a_lock_takes_away_its_own_leftovers_and_nobody_elses(tmp_path):
    others = [".f.h5.123.tmp", ".f.x.tmp", ".f.123.other"]
    for name in (".f.123.tmp", ".f.123.probe", *others):
        (tmp_path / name).touch()
    with locked(tmp_path / "f"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize("room", [8_000, 16_000, 30_000])
@pytest.mark.parametrize("what", ["model", "index"])
def test_a_model_or_an_index_without_room_is_an_error_not_a_crash(board_model, tmp_path, what, room):
    """HDF5 that runs out of room in the middle prints tracebacks, and takes the process with it when it closes."""
    code = f"""
import resource, sys
from vbpr import Factors, Nearest, VbprError
saved = Factors.load({str(board_model)!r}) if {what == "model"} else Nearest.of({str(board_model)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, -1))
try:
    saved.save({str(tmp_path / "x.h5")!r})
except VbprError as error:
    sys.exit(str(error))
"""
    done = run_python("-c", code)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "x.h5 could not be written (File too large)" in done.stderr and not list(tmp_path.iterdir())


@root
def test_training_where_no_inode_is_left_begins_no_work(board, board_features, tmp_path):
    with mounted(tmp_path / "small", "size=4m,nr_inodes=2") as disk:
        code, error = cli("train", "--features", board_features, "--data", board, "--out", disk / "m.h5")
        assert code == 2 and "is not writable" in error and "train visual" not in error


def test_a_name_that_leaves_no_room_for_the_checkpoints_begins_no_work(board, board_features, folder, tmp_path):
    name = "m" * 225
    code, error = cli("train", "--features", board_features, "--data", board, "--out", tmp_path / f"{name}.h5")
    assert code == 2 and "File name too long" in error and "--out" in error and "train visual" not in error
    code, error = cli("extract", "--backbone", "cae", "--data", folder, "--out", tmp_path / f"{name}.h5")
    assert code == 2 and "File name too long" in error and "train cae" not in error
    assert not list(tmp_path.glob("*m.h5"))


def test_a_disk_that_fails_while_a_file_is_closed_is_said(folder, tmp_path, monkeypatch):
    """File systems over a network tell of faults there."""
    out = tmp_path / "f.h5"
    run(folder, out)

    def close(self):
        raise RuntimeError("Can't decrement id ref count (unable to close file, errno = 5, error message = '')")

    monkeypatch.setattr("h5py.File.close", close)
    code, error = cli("info", out)
    assert code == 2 and "Input/output error" in error


def test_weights_that_link_to_themselves(folder, tmp_path):
    loop = tmp_path / "w.safetensors"
    loop.symlink_to(loop)
    code, error = cli(
        "extract", "--backbone", BACKBONE, "--weights", loop, "--data", folder, "--out", tmp_path / "f.h5"
    )
    assert code == 2 and "w.safetensors" in error
    code, error = cli("info", loop)
    assert code == 2 and "is a link to what is not there" in error


def test_a_limit_in_mid_run_keeps_what_is_done(tmp_path):
    path = tmp_path / "f.h5"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    too_large = pytest.raises(VbprError, match=r"f\.h5 could not be written \(File too large\): 5 of 2,000")
    with too_large, made(path, n=2000, dim=1000) as store:
        store.write(np.arange(5), np.ones((5, 1000), np.float32))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            store.write(np.arange(5, 2000), np.ones((1995, 1000), np.float32))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with made(path, n=2000, dim=1000) as store:
        assert len(store.done) == 5
        store.write(store.pending, np.ones((1995, 1000), np.float32))
    assert FeatureStore(path).finished().verify() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "after", "number"),
    [("pwrite", 8, errno.EIO), ("fdatasync", 1, errno.EIO), ("pwrite", 7, errno.ENOSPC), ("pwrite", 8, errno.EDQUOT)],
)
def test_a_disk_that_fails_in_mid_run_costs_one_batch(folder, tmp_path, call, after, number):
    """The whole command in a process of its own, whose system call fails from the second batch on."""
    code = f"""
import os, sys
real, left = os.{call}, [{after}]
def failing(*arguments):
    left[0] -= 1
    if left[0] < 0:
        raise OSError({number}, os.strerror({number}))
    return real(*arguments)
os.{call} = failing
from vbpr.cli import app
app(sys.argv[1:])
"""
    out = tmp_path / "f.h5"
    words = ["extract", "--backbone", BACKBONE, *WORDS, str(folder), "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert f"f.h5 could not be written ({os.strerror(number)}): 4 of 10 items are safe in it" in done.stderr
    assert "same command again" in done.stderr and "Traceback" not in done.stderr
    assert len(FeatureStore(out).done) == 4
    assert extract_cli(folder, out)[0] == extract_cli(folder, tmp_path / "whole.h5")[0] == 0
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    "fault", ["pwrite64:error=EIO:when=7+", "fdatasync:error=EIO:when=2+", "pwrite64:error=ENOSPC:when=9+"]
)
def test_a_failing_disk_ends_in_one_sentence_and_resumes(tmp_path, fault):
    code = f"""
import numpy as np
from vbpr.cli.faults import fail
from vbpr.base.errors import VbprError
from vbpr.stores.features.store import FeatureStore
ids, signatures = np.array([f"i{{k}}" for k in range(6)]), np.arange(6, dtype=np.uint64)
try:
    with FeatureStore.create({str(tmp_path / "f.h5")!r}, ids, signatures, 4, {PROVENANCE}) as store:
        for k in range(6):
            store.write(np.array([k]), np.full((1, 4), k, np.float32))
except VbprError as error:
    fail(str(error), 2)
"""
    call = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}", sys.executable, "-c", code]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 2, done.stderr
    assert "same command again" in done.stderr and "Traceback" not in done.stderr
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    store = FeatureStore(tmp_path / "f.h5").finished()
    assert store.features[:][:, 0].tolist() == [0, 1, 2, 3, 4, 5] and store.verify() == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_killed_between_temporary_and_rename_the_old_file_is_intact(tmp_path):
    path = tmp_path / "f.h5"
    with made(path) as store:
        store.write(np.arange(6), np.ones((6, 4), np.float32))
    kept = path.read_bytes()
    code = f"""
import numpy as np
from vbpr.stores.features.store import FeatureStore
ids, signatures = np.array([f"i{{k}}" for k in range(9)]), np.arange(9, dtype=np.uint64)
with FeatureStore.create({str(path)!r}, ids, signatures, 4, {PROVENANCE}):
    pass
"""
    call = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=rename:signal=KILL", sys.executable, "-c", code]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert path.read_bytes() == kept
    assert len(list(tmp_path.glob(".f.h5.*.tmp"))) == 1
    with made(path, n=9) as store:
        assert len(store.pending) == 3
    assert not list(tmp_path.glob(".f.h5.*.tmp"))  # the next run sweeps up


def test_replacing_leaves_the_old_file_when_the_write_fails(tmp_path):
    path = tmp_path / "model.h5"
    path.write_text("old")
    with pytest.raises(VbprError, match="could not be written"), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["model.h5"]


# ------------------------------------------------------------------------------------------ writers


def test_a_second_writer_is_told_pid_and_host(tmp_path):
    path = tmp_path / "f.h5"
    refused = pytest.raises(VbprError, match=rf"in use by pid {os.getpid()} on {os.uname().nodename}")
    with made(path), refused, made(path):
        pass
    with made(path):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    path = tmp_path / "f.h5"
    code = f"""
import time
from vbpr.base.locks import locked
with locked({str(path)!r}):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(VbprError, match=f"pid {holder.pid} "), locked(path):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / ".f.h5.lock").exists()
    with locked(path):
        assert f"pid {os.getpid()} " in (tmp_path / ".f.h5.lock").read_text()
    assert not (tmp_path / ".f.h5.lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_batch_and_says_how_to_resume(folder, tmp_path, number):
    for i in range(1500):
        (folder / "images" / f"j{i}.jpg").write_bytes(jpeg(i))
    words = ["extract", "--backbone", BACKBONE, *WORDS, str(folder), "--out", str(tmp_path / "f.h5")]
    call = [sys.executable, "-m", "vbpr", *words]
    process = subprocess.Popen(call, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (
        (tmp_path / "f.h5").exists() and len(FeatureStore(tmp_path / "f.h5").done)
    ):
        time.sleep(0.05)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "run the same command again to resume" in error and "Traceback" not in error
    assert 0 < len(FeatureStore(tmp_path / "f.h5").done) < 1510


# ------------------------------------------------------------------------------------------ foreign and damaged files


def copy_with(tmp_path, change):
    path = tmp_path / "f.h5"
    with made(path) as store:
        store.write(np.arange(6), np.ones((6, 4), np.float32))
    with h5py.File(path, "r+") as handle:
        change(handle)
    return path


def replace(name, **arguments):
    def change(handle):
        del handle[name]
        handle.create_dataset(name, **arguments)

    return change


def external(handle):
    del handle["features"]
    handle["features"] = h5py.ExternalLink("/etc/passwd", "/")


def soft(handle):
    del handle["features"]
    handle["features"] = h5py.SoftLink("/state")


def virtual(handle):
    layout = h5py.VirtualLayout((6, 4), "<f2")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (6, 4))
    del handle["features"]
    handle.create_virtual_dataset("features", layout)


def stored_outside(handle):
    del handle["features"]
    handle.create_dataset("features", (6, 4), "<f2", external=[("/etc/passwd", 0, 48)])


def bad_state(handle):
    handle["state"][2] = 9


def no_provenance(handle):
    del handle.attrs["provenance"]


def bad_provenance(handle):
    handle.attrs["provenance"] = '{"backbone": 3}'


def gone(name):
    def change(handle):
        del handle[name]

    return change


def as_group(name):
    def change(handle):
        del handle[name]
        handle.create_group(name)

    return change


def named_type(handle):
    handle["kind"] = np.dtype("f8")


def many_names(handle):
    """Groups that hold each other twice: 2^40 paths."""
    below = handle.create_group("g0")
    for k in range(1, 40):
        group = handle.create_group(f"g{k}")
        group["a"] = group["b"] = below
        below = group
    handle["state"][0] = 9


def array_attribute(handle):
    handle.attrs["vbpr"] = np.arange(3)


@pytest.mark.parametrize(
    "change",
    [
        gone("item_ids"),
        gone("features"),
        as_group("item_ids"),
        as_group("features"),
        named_type,
        many_names,
        array_attribute,
        replace("features", data=h5py.Empty("<f2")),
        replace("item_ids", data=h5py.Empty("S4")),
        replace("item_ids", data=np.array([b"\xff\xfe"] * 6, dtype=h5py.string_dtype("utf-8", 2))),
        external,
        soft,
        virtual,
        stored_outside,
        bad_state,
        no_provenance,
        bad_provenance,
        replace("features", data=np.zeros((6, 4), np.float32)),
        replace("features", data=np.zeros((5, 4), np.float16)),
        replace("features", data=np.zeros(24, np.float16)),
        replace("features", data=np.zeros((6, 4), np.float16), chunks=(2, 4), compression="gzip"),
        replace("features", shape=(6, 2**40), dtype="<f2"),
        replace("item_ids", shape=(2**40,), dtype=h5py.string_dtype("utf-8", 8)),
        replace("item_ids", shape=(2**40,), dtype=h5py.string_dtype("utf-8", 8), chunks=(1024,)),
        replace("item_ids", data=np.arange(6)),
        replace("state", data=np.zeros(6, np.int64)),
    ],
)
def test_foreign_files_are_refused(tmp_path, change):
    path = copy_with(tmp_path, change)
    for words in (("info", path), ("train", "--features", path)):
        code, error = cli(*words)
        assert code == 2, error
        assert str(path) in error


def test_every_cut_of_a_feature_file_is_refused_or_whole(tmp_path):
    path = copy_with(tmp_path, lambda handle: None)
    data = path.read_bytes()
    end = FeatureStore(path).offsets["features"] + 6 * 4 * 2
    for size in [*range(0, end, 97), end - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(VbprError):
            FeatureStore(path)


def test_a_kill_between_the_last_row_and_its_digest_is_made_good(folder, tmp_path):
    out = tmp_path / "f.h5"
    run(folder, out)
    whole = out.read_bytes()
    with out.open("r+b") as file:
        file.seek(FeatureStore(out).offsets["digest"])
        file.write(bytes(16))
    assert out.read_bytes() != whole
    assert run(folder, out).written == 0 and out.read_bytes() == whole
