"""Images on object storage and web servers, read by range through fsspec: `s3://`, `gs://`, `http://`, `https://`, each
a folder or a tar. Credentials come from the environment alone, and nothing is asked for that does not begin with the
address which the user gave.
"""

import functools
import hashlib
import json
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ...base.errors import VbprError, counted, first_line, some
from ...base.files import replace_text
from ...base.progress import console
from .listed import SUFFIXES, PictureTable, picture_table, plain
from .source import HEAD, MAX_BYTES, BadImage, Files, is_hidden, is_image_name, signature_of
from .tars import FORGED, list_tar

T = TypeVar("T")
REMOTE = re.compile(r"(s3|gs|https?)://")
AHEAD = 32  # images that are asked for at once
TRIES, WAIT = 4, 0.5  # of a request; seconds before the second, twice as many before each further one
BLOCK = 2**23  # bytes at a time of a tar whose members are being listed
S3 = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}  # `asked` tries again itself
NO_FILE, NO_PERMISSION = "no such file, or a dangling link", "no permission to read it"


def is_remote(place: Path | str) -> bool:
    return bool(REMOTE.match(str(place)))


class RemoteFiles(Files):
    """Files of a server, each whole or a range of a tar.

    Attributes:
        hows: of each (its address, bytes (0: unknown), what tells its version, where it begins in a tar or -1).
    """

    ahead = AHEAD

    def __init__(self, url: str, fs: Any, members: list[tuple[str, Any]]) -> None:
        super().__init__(url, members)
        self.fs = fs

    def read(self, i: int) -> bytes:
        _, size, _, start = self.hows[i]
        if size > MAX_BYTES:
            raise BadImage("over the cap on bytes")
        data = self.part(i, max(0, start), size or MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise BadImage("over the cap on bytes")
        if size and len(data) < size:
            raise BadImage("truncated")
        return data

    def head(self, i: int) -> bytes:
        try:
            return self.part(i, max(0, self.hows[i][3]), min(HEAD, self.hows[i][1] or HEAD))[:HEAD]
        except BadImage:
            return b""

    def part(self, i: int, start: int, size: int) -> bytes:
        address, whole, _, in_tar = self.hows[i]
        if size == whole and in_tar < 0:
            data = asked(self.name, lambda: self.fs.cat_file(address))
        else:
            data = asked(self.name, lambda: self.fs.cat_file(address, start=start, end=start + size))
        return bytes(data)

    def signature(self, i: int) -> int:
        address, size, version, start = self.hows[i]
        return signature_of(size or 1, version or address) if size or start < 0 else 0

    def size(self, i: int) -> int:
        return int(self.hows[i][1])

    def content(self, i: int) -> bytes:
        _, _, version, start = self.hows[i]
        return version.encode() if start < 0 and ETAG.fullmatch(version) else super().content(i)


ETAG = re.compile(r'"[0-9a-f]{32}"')  # S3's, of what was put in one piece: a digest of the content


def asked(name: str, request: Callable[[], T]) -> T:
    """What a server answers, after some tries.

    Raises:
        BadImage: it has no such file, or does not show it.
        VbprError: it does not answer, or not to us.
    """
    for attempt in range(TRIES):
        try:
            return request()
        except (BadImage, VbprError):
            raise
        except FileNotFoundError as error:
            raise BadImage(NO_FILE) from error
        except Exception as error:  # fsspec's file systems raise what their libraries do
            status = getattr(error, "status", None)
            if status in (401, 403):
                raise BadImage(NO_PERMISSION) from error
            if status == 410:
                raise BadImage(NO_FILE) from error
            fault = error
            refused = isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError"
            if refused or isinstance(error, NotImplementedError | ValueError | TypeError):
                break
            time.sleep(WAIT * 2**attempt * (attempt + 1 < TRIES))
    why = f"{type(fault).__name__}: {first_line(fault)[:200]}"
    cure = "check the credentials in the environment" if refused else "see whether it can be reached"
    raise VbprError(f"{name} cannot be read ({why}); {cure}, then run the same command again to resume") from fault


def connect(url: str) -> Any:
    """The file system that an address is of.

    Raises:
        VbprError: its library is not installed, or there are credentials or a question in the address.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        raise VbprError(f"{shown}: give the address alone; credentials come from the environment")
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    try:
        import fsspec

        if parts.scheme == "s3":
            import botocore.session

            known = botocore.session.get_session().get_credentials() is not None
            options |= {"anon": not known, "config_kwargs": S3}
        elif parts.scheme.startswith("http"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=600, sock_connect=10, sock_read=60)
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True, "trace_configs": [guard(aiohttp)]}}
            options["skip_instance_cache"] = True
        return fsspec.filesystem(parts.scheme, **options)
    except ImportError as error:
        raise VbprError(
            f"{url} is read by libraries that are not installed ({error.name}): pip install 'vbpr[remote]'"
        ) from error


def guard(aiohttp: Any) -> Any:
    """Refuses to be sent to another machine, and files over the cap."""

    async def redirected(session: Any, context: Any, params: Any) -> None:
        there = urlsplit(str(params.response.headers.get("Location", "")))
        if there.hostname and there.hostname != params.url.host:
            raise VbprError(f"{params.url.origin()} sends to {there.hostname}; give that address if it is meant")

    async def ended(session: Any, context: Any, params: Any) -> None:
        if (params.response.content_length or 0) > MAX_BYTES and params.method == "GET":
            raise BadImage("over the cap on bytes")

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(redirected)
    config.on_request_end.append(ended)
    return config


def open_remote(url: str, beside: Path | None) -> tuple[RemoteFiles, PictureTable | None]:
    """The files at an address, and the table that says whose they are, from the folder `beside` or from there.

    Raises:
        VbprError: the server cannot be reached, or has no such place; a web server without a table of pictures, for it
            does not list what it has.
    """
    fs, base = connect(url), url.rstrip("/")
    table = None if beside is None else picture_table(beside)
    if base.endswith(".tar"):
        try:
            info = asked(base, lambda: fs.info(base))
        except BadImage as error:
            raise VbprError(f"{base}: {error}") from error
        return RemoteFiles(base, fs, in_tar(fs, base, info)), table
    if base.startswith("http"):
        table = table or fetched_table(fs, base, [f"images{suffix}" for suffix in SUFFIXES])
        if table is None:
            raise VbprError(
                f"{base} is on a web server, which lists no files: put images.csv (item_id,file) into --data or there; "
                "files are told from that address on"
            )
        return RemoteFiles(base, fs, named_by(table, base)), table
    try:
        found = asked(base, lambda: fs.find(base, detail=True, withdirs=False))
    except BadImage as error:
        raise VbprError(f"{base}: {error}") from error
    root = fs._strip_protocol(base)
    files = {path.removeprefix(root).lstrip("/"): info for path, info in found.items()}
    files = {name: info for name, info in files.items() if name and not is_hidden(name)}
    if not files:
        raise VbprError(f"{base} holds no files; is the address right?")
    if table is None:
        names = [f"{stem}{suffix}" for stem in ("images", "metadata", "items") for suffix in SUFFIXES]
        table = fetched_table(fs, base, [name for name in names if name in files])
    members: list[tuple[str, Any]] = []
    tars = sorted(name for name in files if name.endswith(".tar"))
    if tars and not any(map(is_image_name, files)):
        for tar in tars:
            members += in_tar(fs, f"{base}/{tar}", files[tar])
    else:
        members = [(name, (f"{base}/{name}", int(info["size"]), version_of(info), -1)) for name, info in files.items()]
    return RemoteFiles(base, fs, members), table


def version_of(info: dict[str, Any]) -> str:
    """What changes with a file, as far as its server tells."""
    return str(
        next(
            (info[key] for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated") if info.get(key)), ""
        )
    )


def fetched_table(fs: Any, base: str, names: list[str]) -> PictureTable | None:
    """The first of these tables that is there and says whose the pictures are."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            try:
                content = asked(base, functools.partial(fs.cat_file, f"{base}/{name}"))
            except BadImage:
                continue
            (Path(folder) / name).write_bytes(content)
            table = picture_table(Path(folder))
            if table is not None:
                return table._replace(path=Path(f"{base.rsplit('/', 1)[-1]}/{name}"))
            (Path(folder) / name).unlink()
    return None


def named_by(table: PictureTable, base: str) -> list[tuple[str, Any]]:
    """The files of a web server, as a table names them; what leads elsewhere is left out, and told."""
    names: dict[str, None] = {}
    elsewhere = []
    for _, file, _ in table.rows:
        name = file.removeprefix(f"{base}/") if file.startswith(f"{base}/") else file
        if "://" in name or ".." in name.split("/"):
            elsewhere.append(file)
        else:
            names[plain(name)] = None
    if elsewhere:
        console.print(
            f"note: {counted(len(elsewhere), 'file')} of {table.path} are elsewhere than at {base} "
            f"({some(elsewhere, 1)}); passed over"
        )
    return [(name, (f"{base}/{name}", 0, "", -1)) for name in names]


def in_tar(fs: Any, address: str, info: dict[str, Any]) -> list[tuple[str, Any]]:
    """The files in a tar, which is read through for that once; where they are is kept in the user's cache folder."""
    size, version = int(info.get("size") or 0), version_of(info)
    key = hashlib.blake2b(f"{address} {size} {version}".encode(), digest_size=16).hexdigest()
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vbpr" / "tars" / f"{key}.json"
    try:
        listed = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):

        def read() -> list[tuple[str, int, int, float]]:
            try:
                with fs.open(address, "rb", block_size=BLOCK, cache_type="readahead") as handle:
                    return list_tar(address, handle, set())
            except (tarfile.TarError, EOFError, *FORGED) as error:
                raise VbprError(
                    f"{address} is not a readable uncompressed tar, or its server gives no parts of files ({error})"
                ) from error

        listed = asked(address, read)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            replace_text(kept, json.dumps(listed))
        except (OSError, VbprError):  # a home that cannot be written
            pass
    return [(name, (address, length, f"{version} {at} {when}", at)) for name, at, length, when in listed]


__all__ = ["RemoteFiles", "is_remote", "open_remote"]
