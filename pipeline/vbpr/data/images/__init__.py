"""Where the images are: folders at any depth, tars and zips, read one item at a time, and whose picture each file is.

source = open_images("data/images"); data = source.read(0)
"""

from collections.abc import Callable
from pathlib import Path

from ...base.errors import VbprError
from .folder import read_folder
from .listed import SUFFIXES, PictureTable, by_table, picture_table
from .naming import Known, by_name, nobody, without_images
from .remote import is_remote, open_remote
from .samples import by_sample
from .source import EXTENSIONS, Files, Images, is_image_name
from .tars import read_tars, tars_in
from .zips import read_zip


def holdings(path: Path) -> list[str]:
    """What a canonical folder has its images in: images/, tars, images.zip; one of them, if all is well."""
    folder, archive = path / "images", path / "images.zip"
    tars = [tar.name for tar in tars_in(path)]
    archives = tars[:1] + ["images.zip"] * (archive.exists() or archive.is_symlink())
    return ["images/"] * (folder.is_dir() or folder.is_symlink()) + archives


def open_images(
    path: Path | str,
    option: str = "--data",
    known: Known = nobody,
    field: str | None = None,
    beside: Path | None = None,
) -> Images:
    """Open the images under `path`: a tar, a zip, a folder of images, or a folder with `images/`, `images.tar`,
    `images*.tar` or numbered shards or `images.zip`; or at an address (see `remote`). Whose they are is told by a table
    beside them (`images.csv` and others: see `listed`), by the fields of WebDataset's samples (see `samples`), else by
    their names.

    Args:
        option: by which the user gave it.
        known: the ids of items, asked for where names leave open whose a picture is.
        field: of samples, the one that is the item's id.
        beside: another folder, in which a table of these pictures may be.

    Raises:
        VbprError: nothing there, no image in it, or two images of one item that no table tells of.
    """
    if is_remote(path):
        remote, table = open_remote(str(path), beside)
        source = whose(remote, table, known, field)
        if not len(source):
            raise VbprError(f"no images found in {path}{without_images(remote)}")
        return source
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
    table = (None if beside is None else picture_table(beside)) or picture_table(path)
    empty = None
    for reader in IMAGE_READERS.values():
        files = reader(path)
        if files is not None:
            source = whose(files, table, known, field)
            if len(source):
                return source
            empty = files
    if not path.exists():
        raise VbprError(f"{path} does not exist; give {option} a folder of images, a tar or a zip")
    if path.is_file() and is_image_name(path.name):
        raise VbprError(f"{path} is one image; give {option} the folder that it is in")
    tables_of_pictures = {f"images{suffix}" for suffix in SUFFIXES}
    packed = [p.name for p in sorted(path.glob("images*")) if p.suffix in PACKED and p.name not in tables_of_pictures]
    tables = path.suffix == ".parquet" or {p.name for p in path.glob("*.parquet")} - {
        "interactions.parquet",
        "items.parquet",
        "images.parquet",
    }
    raise VbprError(
        f"no images found in {path}; looked for {', '.join(sorted(EXTENSIONS))} at any depth, images.tar, "
        "images*.tar and images.zip"
        + (f"; {packed[0]} is packed: unpack it" if packed else "")
        + ("; images in Parquet files: run vbpr convert first" if tables else "")
        + (without_images(empty) if empty is not None and not (packed or tables) else "")
    )


def whose(files: Files, table: PictureTable | None, known: Known, field: str | None) -> Images:
    """Files under the ids of their items: as a table or samples say, else by their names."""
    source = by_table(files, table) if table is not None and field is None else None
    source = by_sample(files, known, field) if source is None else source
    return by_name(files, known) if source is None else source


PACKED = {".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z", ".rar"}
IMAGE_READERS: dict[str, Callable[[Path], Files | None]] = {
    "tar": read_tars,
    "zip": read_zip,
    "folder": read_folder,
}

__all__ = ["IMAGE_READERS", "holdings", "open_images"]
