"""The layouts of data sets, as they are published and as other programs keep them, in one table.

find(Path("ml-1m"))      # Found(root=ml-1m, name="movielens-1m", layout=..., file=ml-1m/ratings.dat)

A new layout is one entry; where its file of interactions is no table with a header, also a function that reads it.
"""

import dataclasses
import difflib
import fnmatch
import itertools
import os
from collections.abc import Callable
from pathlib import Path

from ..base.errors import VbprError, some
from .forms import Form, read_amazon_ratings, read_double_colons, read_lenskit, read_positions, read_user_lists
from .readers import read_columns
from .values import Columns
from .where import Rows

Reader = Callable[[Path, Rows], Columns]


@dataclasses.dataclass(frozen=True)
class Layout:
    """An entry of LAYOUTS. A pattern may have several forms, with `|` between them; the first that is there counts.

    Attributes:
        about: what it is, in a sentence.
        needs: patterns of files that are there, first that of the interactions.
        items: a pattern of the table of items. form: how that is written, where it has no header.
        images: folders of images, besides images/.
        read: reads the interactions; None where `vbpr convert` does.
        alone: whether the file of interactions may be given by itself, and is known by its name.
    """

    about: str
    needs: tuple[str, ...]
    items: str = ""
    form: Form | None = None
    images: tuple[str, ...] = ()
    read: Reader | None = read_columns
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class Found:
    """A layout that a folder has: where that is, its name, and the file of interactions."""

    root: Path
    name: str
    layout: Layout
    file: Path


GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
MOVIES_100K = Form("|", ("item_id", "title", "release_date", "video_release_date", "imdb_url", *GENRES), "latin-1")
MOVIES_1M = Form("::", ("item_id", "title", "genres"), "latin-1")
TRIPLES = "|".join(
    f"{name}.{end}"
    for name in ("dataset", "ratings", "data", "uir", "uirt", "triples")
    for end in ("tsv", "txt", "csv")
)

LAYOUTS: dict[str, Layout] = {
    "table": Layout(
        "interactions.csv, .tsv or .parquet (.gz, .zip; RecTools, RecPack, WarpRec), items.csv, images/",
        (
            "interactions.csv|interactions.tsv|interactions.parquet|interactions.csv.gz|interactions.tsv.gz|"
            "interactions.csv.zip|interactions.tsv.zip",
        ),
        items="items.parquet|items.csv|items.tsv|items.csv.gz|items.tsv.gz",
    ),
    "parts": Layout(
        "one table in many files, as Spark, DuckDB and Hive write it: part-0000, or folders such as year=2020/",
        ("interactions.parquet/|interactions.csv/|interactions/|part-*|*-of-*|data_*|*=*/",),
    ),
    "split": Layout(
        "train, validation and test as three files or three folders: RecBole, Elliot, Hugging Face",
        (
            "*train*.inter|*train*.tsv|*train*.csv|*train*.parquet|train/",
            "*test*.inter|*test*.tsv|*test*.csv|*test*.parquet|test/",
        ),
        items="*.item",
    ),
    "lightgcn": Layout("LightGCN's lists: train.txt and test.txt, a line a user", ("train.txt", "test.txt")),
    "mmrec": Layout(
        "MMRec: one .inter with x_label 0, 1, 2, and i_id_mapping.csv",
        ("*.inter", "i_id_mapping.csv"),
        items="i_id_mapping.csv",
    ),
    "recbole": Layout("RecBole's atomic files: NAME.inter, and NAME.item", ("*.inter",), items="*.item"),
    "hm": Layout(
        "H&M's Kaggle folder: transactions_train.csv, articles.csv, images/010/0108775015.jpg",
        (
            "transactions_train.csv|transactions_train.csv.zip|transactions_train.csv.gz|transactions_train.parquet",
            "articles.csv|articles.csv.zip|articles.csv.gz|articles.parquet",
        ),
        items="articles.csv|articles.csv.zip|articles.csv.gz|articles.parquet",
    ),
    "movielens-100k": Layout(
        "MovieLens 100k: u.data (tabs, no header) and u.item",
        ("u.data",),
        items="u.item",
        form=MOVIES_100K,
        read=read_positions,
        alone=True,
    ),
    "movielens-1m": Layout(
        "MovieLens 1m and 10m: ratings.dat and movies.dat, with :: between fields",
        ("ratings.dat",),
        items="movies.dat",
        form=MOVIES_1M,
        read=read_double_colons,
        alone=True,
    ),
    "movielens": Layout(
        "MovieLens latest, 20m, 25m and 32m: ratings.csv and movies.csv",
        ("ratings.csv", "movies.csv"),
        items="movies.csv",
    ),
    "lenskit": Layout(
        "LensKit's saved data set: schema.json, user.parquet, item.parquet and the table of interactions by numbers",
        ("schema.json", "user.parquet", "item.parquet"),
        items="item.parquet",
        read=read_lenskit,
    ),
    "pixelrec": Layout(
        "PixelRec: Pixel200K.csv (item_id,user_id,timestamp), the table of item information, cover/",
        ("Pixel*.csv|pixelrec_interaction/*.csv|interaction/*.csv",),
        items="pixelrec_iteminfo/*.csv|item_info/*.csv|*item*info*.csv|*iteminfo*.csv",
        images=("cover", "covers"),
    ),
    "microlens": Layout(
        "MicroLens: MicroLens-100k_pairs.csv (a pair a line) or _pairs.tsv (a user a line), _titles.csv, _covers/",
        ("MicroLens*_pairs.csv|MicroLens*_pairs.tsv",),
        items="MicroLens*_titles.csv",
        form=Form(",", ("item_id", "title")),
        images=("MicroLens*_covers", "MicroLens*_covers*"),
        read=read_user_lists,
        alone=True,
    ),
    "amazon-ratings": Layout(
        "Amazon's ratings alone, without a header: ratings_*.csv of 2014 and *.csv of 2018",
        ("ratings_*.csv|ratings_*.csv.gz",),
        read=read_amazon_ratings,
        alone=True,
    ),
    "triples": Layout(
        "triples of Elliot and Cornac: dataset.tsv, ratings.txt, ...: user, item, rating, time; a header or none",
        (TRIPLES,),
        read=read_positions,
        alone=True,
    ),
    "amazon": Layout(
        "Amazon reviews of 2014, 2018 and 2023: a file of .json or .jsonl (.gz), with meta_*.json beside it",
        ("reviews_*.json*|*_5.json*|*.jsonl*|[A-Z]*.json.gz|[A-Z]*.json",),
        read=None,
    ),
    "tradesy": Layout("Tradesy's own file: tradesy.json.gz", ("tradesy*.json*",), read=None),
    "polyvore": Layout(
        "Polyvore: outfits as users: nondisjoint/train.json, ... and polyvore_item_metadata.json; or train_no_dup.json",
        (
            "nondisjoint/train.json|disjoint/train.json|train_no_dup.json|train.json",
            "nondisjoint/test.json|disjoint/test.json|test_no_dup.json|test.json",
        ),
        read=None,
    ),
    "dvbpr": Layout("the original data sets of DVBPR: *ImgPartitioned.npy", ("*ImgPartitioned.npy",), read=None),
    "images in Parquet": Layout(
        "Parquet files with a column of images, as Hugging Face keeps them", ("*.parquet|data/*.parquet",), read=None
    ),
}
ELSEWHERE = ("table", "parts", "split", "lightgcn", "recbole", "images in Parquet")  # found by `Dataset`, by `convert`


def matches(folder: Path, pattern: str) -> list[Path]:
    """What is there of the first form of a pattern that is."""
    for form in filter(None, pattern.split("|")):
        parent, _, name = form.rstrip("/").rpartition("/")
        found = [
            path
            for path, is_folder in entries(folder / parent)
            if is_folder == form.endswith("/") and fnmatch.fnmatchcase(path.name, name)
        ]
        if found:
            return found
    return []


def entries(folder: Path) -> list[tuple[Path, bool]]:
    """What a folder holds, in order, and whether each is a folder; nothing of one with pictures by the thousand."""
    try:
        with os.scandir(folder) as listing:
            found = list(itertools.islice(listing, MOST + 1))
    except OSError:
        return []
    shown = [entry for entry in found if not entry.name.startswith((".", "__"))]
    return sorted((folder / entry.name, entry.is_dir()) for entry in shown) if len(found) <= MOST else []


MOST = 2000  # entries


def only_match(folder: Path, pattern: str) -> Path | None:
    """
    Raises:
        VbprError: there are several.
    """
    found = matches(folder, pattern)
    if len(found) > 1:
        raise VbprError(
            f"{folder} has {found[0].name} and {found[1].name}; give --data the one that is meant, or move one away"
        )
    return found[0] if found else None


def find(path: Path) -> Found | None:
    """The layout of a file or a folder, or of the one folder in it, as archives have when they are unpacked."""
    if path.is_file():
        for name, layout in LAYOUTS.items():
            if layout.alone and any(path.match(form) for form in layout.needs[0].split("|")):
                return Found(path.parent, name, layout, path)
        return None
    for root in (path, *inner(path)):
        for name, layout in LAYOUTS.items():
            if name not in ELSEWHERE and all(matches(root, pattern) for pattern in layout.needs):
                if layout.read is None:
                    return Found(root, name, layout, matches(root, layout.needs[0])[0])
                file = only_match(root, layout.needs[0])
                return None if file is None else Found(root, name, layout, file)
    return None


def inner(path: Path) -> list[Path]:
    """The one folder that a folder holds, beside files that are no tables."""
    folders = [entry for entry, is_folder in entries(path) if is_folder and entry.name != "images"]
    return folders if len(folders) == 1 else []


def nearest(folder: Path) -> str:
    """The two layouts that a folder is nearest to, and what each lacks, in words."""
    names = [path.name for path, _ in entries(folder)]

    def lacking(layout: Layout) -> list[str]:
        return [pattern.split("|")[0] for pattern in layout.needs if not matches(folder, pattern)]

    def distance(name: str) -> float:
        layout, lacks = LAYOUTS[name], lacking(LAYOUTS[name])
        alike = [max([difflib.SequenceMatcher(None, lack, n).ratio() for n in names], default=0.0) for lack in lacks]
        extra = 0.5 * bool(layout.items and matches(folder, layout.items))
        return (len(lacks) - 0.9 * sum(alike)) / len(layout.needs) - extra

    first = sorted(LAYOUTS, key=distance)[:2]
    told = [
        f"{name} ({LAYOUTS[name].about}), which lacks {some(lacking(LAYOUTS[name])) or 'nothing'}" for name in first
    ]
    return f"the nearest layouts are {' and '.join(told)}; vbpr convert --list names all"


__all__ = ["LAYOUTS", "Found", "Layout", "find", "inner", "matches", "nearest", "only_match"]
