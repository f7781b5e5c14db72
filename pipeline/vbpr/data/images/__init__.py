"""Where the images are: folders at any depth, tars and zips, read one item at a time.

source = open_images("data/images"); data = source.read(0)
"""

from collections.abc import Callable
from pathlib import Path

from ...base.errors import VbprError
from .folder import read_folder
from .source import EXTENSIONS, ImageSource, is_image_name
from .tars import read_tars
from .zips import read_zip


def holdings(path: Path) -> list[str]:
    """What a canonical folder has its images in: images/, tars, images.zip; one of them, if all is well."""
    folder, archive = path / "images", path / "images.zip"
    tars = [tar.name for tar in sorted(path.glob("images*.tar"))]
    archives = tars[:1] + ["images.zip"] * (archive.exists() or archive.is_symlink())
    return ["images/"] * (folder.is_dir() or folder.is_symlink()) + archives


def open_images(path: Path | str, option: str = "--data") -> ImageSource:
    """Open the images under `path`: a tar, a zip, a folder of images, or a folder with `images/`, `images.tar`,
    `images*.tar` shards or `images.zip`.

    Args:
        option: by which the user gave it.

    Raises:
        VbprError: nothing there, or no image in it.
    """
    path = Path(path)
    folder, held = path / "images", holdings(path)
    for there in (path, folder, *path.glob("images*.tar"), path / "images.zip"):
        if there.is_symlink() and not there.exists():
            raise VbprError(f"{there} is a link to what is not there; is a disk not mounted?")
        may_be_folder = there in (path, folder)
        if there.exists() and not (there.is_file() or (may_be_folder and there.is_dir())):  # a pipe would be waited for
            what = "a folder" if there.is_dir() else "not a regular file"
            raise VbprError(f"{there} is {what}; move it away, or give {option} what is meant")
    if len(held) > 1:
        raise VbprError(f"{path} has {held[0]} and {held[1]}; give {option} the one that is meant, or move one away")
    for reader in IMAGE_READERS.values():
        source = reader(path)
        if source is not None and len(source):
            return source
    if not path.exists():
        raise VbprError(f"{path} does not exist; give {option} a folder of images, a tar or a zip")
    if path.is_file() and is_image_name(path.name):
        raise VbprError(f"{path} is one image; give {option} the folder that it is in")
    packed = next((p.name for p in sorted(path.glob("images*")) if p.suffix in PACKED), None)
    tables = path.suffix == ".parquet" or {p.name for p in path.glob("*.parquet")} - {
        "interactions.parquet",
        "items.parquet",
    }
    raise VbprError(
        f"no images found in {path}; looked for {', '.join(sorted(EXTENSIONS))} at any depth, images.tar, "
        "images*.tar and images.zip"
        + (f"; {packed} is packed: unpack it" if packed else "")
        + ("; images in Parquet files: run vbpr convert first" if tables else "")
    )


PACKED = {".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z", ".rar"}
IMAGE_READERS: dict[str, Callable[[Path], ImageSource | None]] = {
    "tar": read_tars,
    "zip": read_zip,
    "folder": read_folder,
}

__all__ = ["IMAGE_READERS", "holdings", "open_images"]
