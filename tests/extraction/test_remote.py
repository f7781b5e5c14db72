"""Images on an S3-speaking server and on a web server, both started here, on loopback alone."""

import http.server
import io
import json
import re
import subprocess
import sys
import tarfile
import threading
from types import SimpleNamespace

import pytest

from conftest import TINY, board_items
from vbpr import Dataset, FeatureStore, VbprError, extract, open_images
from vbpr.data.images import remote
from vbpr.data.images.source import BadImage

OPTIONS = {"random_weights": True, "engine": "torch", "device": "cpu", "batch": 4}
MADE = board_items()


def start(port=0):
    """A moto server; (process, port)."""
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if found := re.search(r"Running on http://127\.0\.0\.1:(\d+)", line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, int(found[1])
    raise AssertionError("moto did not start")


@pytest.fixture(scope="module")
def s3():
    """A server with the bucket `shop`; `put` stores files in it, `stop` and `again` end and restart it, empty."""
    import s3fs

    server = SimpleNamespace()
    server.process, server.port = start()
    patch = pytest.MonkeyPatch()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        patch.setenv(name, value)
    patch.setattr(remote, "WAIT", 0)

    def put(folder, files):
        fs = s3fs.S3FileSystem(skip_instance_cache=True)
        if not fs.exists("shop"):
            fs.mkdir("shop")
        fs.pipe({f"shop/{folder}/{name}": content for name, content in files.items()})
        return f"s3://shop/{folder}"

    def stop():
        server.process.kill()
        server.process.wait()

    def again():
        stop()
        server.process, _ = start(server.port)

    server.put, server.stop, server.again = put, stop, again
    yield server
    stop()
    server.process.stdout.close()
    patch.undo()


class Handler(http.server.BaseHTTPRequestHandler):
    """Files of `server.files`, in parts where asked; `server.asked` are the paths, `server.broken` answers 500."""

    def do_GET(self):
        path = self.path.lstrip("/")
        self.server.asked.append(path)
        content = self.server.files.get(path)
        if self.server.broken or content is None or isinstance(content, str):
            self.send_response(500 if self.server.broken else 404 if content is None else 302)
            self.send_header("Location", content or "")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        part = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part:
            first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            content = content[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *words):
        pass


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setattr(remote, "WAIT", 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.broken = {}, [], False
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def tar_of(members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def content_of(source):
    return {str(item): source.read(n) for n, item in enumerate(source.item_ids)}


def test_a_bucket_is_read_as_a_folder_is(s3, tmp_path):
    files = {f"deep/{name}.png": content for name, content in MADE.items()}
    url = s3.put("plain", files | {"notes.txt": b"x", ".hidden.png": b"x"})
    source = open_images(url)
    assert content_of(source) == MADE and source.others == {".txt": 1}
    before = [source.signature(n) for n in range(len(source))]
    s3.put("plain", {"deep/red-00.png": MADE["blue-00"]})
    after = open_images(url)
    assert [n for n in range(len(after)) if after.signature(n) != before[n]] == [
        source.item_ids.tolist().index("red-00")
    ]
    assert after.content(0) != b"" and len({source.content(n) for n in range(len(source))}) == len(MADE)


def test_a_table_in_the_bucket_or_beside_says_whose_they_are(s3, tmp_path):
    url = s3.put("named", {"x/1.jpg": b"1", "x/2.jpg": b"2", "images.csv": b"item_id,file\na,x/2.jpg\na,x/1.jpg\n"})
    source = open_images(url)
    assert source.item_ids.tolist() == ["a"] and source.read(0) == b"2" and len(source.pictures.source) == 2
    (tmp_path / "images.csv").write_text(f"item_id,file\nb,{url}/x/1.jpg\n")
    assert content_of(open_images(url, beside=tmp_path)) == {"b": b"1"}


def test_tars_in_a_bucket_are_read_by_range_and_listed_once(s3, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = sorted(MADE)
    shards = {}
    for part in (0, 1):
        members = {}
        for n, item in list(enumerate(names))[part::2]:
            members |= {f"{n:09}.png": MADE[item], f"{n:09}.json": json.dumps({"sku": item}).encode()}
        shards[f"{part:05}.tar"] = tar_of(members)
    url = s3.put("shards", shards)
    assert content_of(open_images(url, field="sku")) == MADE
    monkeypatch.setattr(remote, "list_tar", lambda *_: pytest.fail("listed again"))
    assert content_of(open_images(f"{url}/00000.tar", field="sku")) == {name: MADE[name] for name in names[0::2]}


def test_a_server_that_fails_in_mid_run_is_gone_on_with(s3, tmp_path, monkeypatch):
    files = {f"{name}.png": content for name, content in MADE.items()}
    url, folder = s3.put("run", files), tmp_path / "images"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    whole = extract(folder, TINY, tmp_path / "whole.h5", **OPTIONS)
    wanted, read = [], remote.RemoteFiles.read

    def stops(self, i):
        wanted.append(i)
        if len(wanted) == 30:  # after the eight pictures that are looked at first
            s3.stop()
        return read(self, i)

    monkeypatch.setattr(remote.RemoteFiles, "read", stops)
    monkeypatch.setattr(remote, "TRIES", 1)
    monkeypatch.setattr(remote.RemoteFiles, "ahead", 1)
    monkeypatch.setattr("vbpr.extraction.steps.QUEUE", 4)
    with pytest.raises(VbprError, match="run the same command again to resume") as told:
        extract(url, TINY, tmp_path / "f.h5", **OPTIONS)
    assert "very-secret" not in str(told.value)
    done = len(FeatureStore(tmp_path / "f.h5").done)
    assert 0 < done < len(MADE)
    monkeypatch.setattr(remote.RemoteFiles, "read", read)
    s3.again()
    s3.put("run", files)
    done = extract(url, TINY, tmp_path / "f.h5", **OPTIONS)
    assert not done.failures
    assert (FeatureStore(done.path).features[:] == FeatureStore(whole.path).features[:]).all()
    assert extract(url, TINY, tmp_path / "f.h5", **OPTIONS).written == 0


def test_a_folder_s_images_may_lie_on_a_server(web, tmp_path):
    web.files = {f"shop/{name}.png": content for name, content in MADE.items()}
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n" + "".join(f"u,{name}\n" for name in MADE))
    lines = "".join(f"{name},{web.url}/shop/{name}.png\n" for name in MADE)
    (tmp_path / "items.csv").write_text("item_id,image\n" + lines)
    done = extract(tmp_path, TINY, tmp_path / "f.h5", images=f"{web.url}/shop", **OPTIONS)
    assert (done.written, done.failures) == (len(MADE), [])
    provenance = FeatureStore(done.path).provenance
    assert provenance["data"] == str(tmp_path) and provenance["images"] == f"{web.url}/shop"


def test_a_web_server_needs_a_table_and_its_own_is_found(web):
    web.files = {"p/a.jpg?width=300": b"1"}
    with pytest.raises(VbprError, match=r"lists no files: put images\.csv"):
        open_images(f"{web.url}/p")
    web.files["p/images.csv"] = b"item_id,file\nx,a.jpg?width=300\ny,gone.jpg\n"
    source = open_images(f"{web.url}/p/")
    assert source.item_ids.tolist() == ["x", "y"] and source.read(0) == b"1"
    with pytest.raises(BadImage, match="no such file"):
        source.read(1)


def test_a_tar_on_a_web_server(web):
    web.files = {"00000.tar": tar_of({f"{name}.png": content for name, content in MADE.items()})}
    assert content_of(open_images(f"{web.url}/00000.tar")) == MADE


def test_nothing_is_asked_for_but_what_was_named(web, tmp_path, capsys):
    other = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler)
    web.files = {
        "p/here.jpg": b"1",
        "p/sent.jpg": f"http://127.0.0.2:{other.server_port}/secret.jpg",
        "p/near.jpg": "/p/here.jpg",
        "secret.jpg": b"no",
    }
    other.server_close()
    rows = ["a,here.jpg", "b,../secret.jpg", f"c,{web.url}/secret.jpg", "d,http://127.0.0.2/secret.jpg", "e,near.jpg"]
    (tmp_path / "images.csv").write_text("item_id,file\n" + "\n".join(rows) + "\n")
    source = open_images(f"{web.url}/p", beside=tmp_path)
    assert content_of(source) == {"a": b"1", "e": b"1"}
    assert "3 files" in capsys.readouterr().err and "secret.jpg" not in " ".join(web.asked)
    (tmp_path / "images.csv").write_text("item_id,file\nf,sent.jpg\n")
    with pytest.raises(VbprError, match=r"sends to 127\.0\.0\.2; give that address if it is meant"):
        open_images(f"{web.url}/p", beside=tmp_path).read(0)


def test_a_broken_server_is_asked_again_and_then_told_of(web, tmp_path):
    web.files = {"p/a.jpg": b"1"}
    (tmp_path / "images.csv").write_text("item_id,file\na,a.jpg\n")
    source = open_images(f"{web.url}/p", beside=tmp_path)
    web.broken = True
    with pytest.raises(VbprError, match=r"cannot be read .*run the same command again to resume"):
        source.read(0)
    assert len(web.asked) == remote.TRIES
    web.broken = False
    assert source.read(0) == b"1"


@pytest.mark.parametrize("address", ["https://me:pass@shop.example/p", "https://shop.example/p?signature=pass"])
def test_credentials_have_no_place_in_an_address(address):
    with pytest.raises(VbprError, match="give the address alone") as told:
        open_images(address)
    assert "pass" not in str(told.value)


def test_interactions_lie_on_this_machine():
    with pytest.raises(VbprError, match=r"give --data one, and not s3://shop/x"):
        Dataset.resolve("s3://shop/x").interactions()


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(VbprError, match=r"not installed \(aiohttp\): pip install 'vbpr\[remote\]'"):
        open_images("http://127.0.0.1/p")
