"""Every layout as it is published: the same five events, read as they are or converted."""

import gzip
import io
import json
import zipfile

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import ROOT, square
from vbpr import Dataset, Split, VbprError
from vbpr.data.converters import convert
from vbpr.data.layouts import LAYOUTS
from vbpr.data.where import Rows

# user, item, rating, seconds
EVENTS = [("1", "31", 5, 978300760), ("1", "32", 3, 978302109), ("2", "31", 4, 978301968)]
EVENTS += [("2", "33", 1, 978300275), ("3", "32", 5, 978824291)]
TITLES = {"31": "Toy Story (1995)", "32": "Jumanji, again (1995)", "33": "Café Flesh (1982)"}


def lines(sign, rows, head=None, encoding="utf-8"):
    return "".join(sign.join(map(str, row)) + "\n" for row in ([head] if head else []) + list(rows)).encode(encoding)


def quoted(rows):
    return [[f'"{field}"' if "," in str(field) else field for field in row] for row in rows]


def packed(name, data):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr(name, data)
    return memory.getvalue()


def parquet(**columns):
    memory = io.BytesIO()
    pq.write_table(pa.table(columns), memory)
    return memory.getvalue()


def photo():
    return square(0.5, np.random.default_rng(0))


USERS, ITEMS, RATINGS, TIMES = (list(column) for column in zip(*EVENTS, strict=True))
HM = [
    (f"2020-0{n + 1}-20", user * 64, f"01087750{item}", "0.05", n % 2 + 1) for n, (user, item, *_) in enumerate(EVENTS)
]
HM_HEAD = ("t_dat", "customer_id", "article_id", "price", "sales_channel_id")
ARTICLES = [(f"01087750{i}", "0108775", title, "T-shirt") for i, title in TITLES.items()]
ARTICLES = lines(",", quoted(ARTICLES), ("article_id", "product_code", "prod_name", "product_type_name"))
MOVIES = lines(",", quoted([(i, title, "Comedy|Drama") for i, title in TITLES.items()]), ("movieId", "title", "genres"))
U_ITEM = [(i, title, "01-Jan-1995", "", "http://x", *[0] * 18, 1) for i, title in TITLES.items()]
HEAD = ("user_id", "item_id", "rating", "timestamp")
INTER = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
X_LABEL = [(*event, n % 3) for n, event in enumerate(EVENTS)]
SCHEMA = {"version": "2025.3", "default_interaction": "rating", "entities": {"user": {}, "item": {}}}
SCHEMA |= {"relationships": {"rating": {"entities": {"user": None, "item": None}, "interaction": True}}}
LENSKIT = {
    "schema.json": json.dumps(SCHEMA).encode(),
    "user.parquet": parquet(user_id=[1, 2, 3]),
    "item.parquet": parquet(item_id=[31, 32, 33], title=list(TITLES.values())),
    "rating.parquet": parquet(
        user_num=pa.array([int(u) - 1 for u in USERS], pa.int32()),
        item_num=pa.array([int(i) - 31 for i in ITEMS], pa.int32()),
        rating=[float(r) for r in RATINGS],
        timestamp=TIMES,
    ),
}
MICROLENS = {
    "MicroLens-100k_titles.csv": lines(",", quoted(TITLES.items()), ("item", "title")),
    "MicroLens-100k_covers/31.jpg": photo(),
}
LISTS = {"1": ["31", "32"], "2": ["31", "33"], "3": ["32"]}
SPLIT = {"train": EVENTS[:3], "valid": EVENTS[3:4], "test": EVENTS[4:]}

# name of the layout, files, whether times and titles are read
READ = {
    "hm": (
        "hm",
        {
            "transactions_train.csv": lines(",", HM, HM_HEAD),
            "articles.csv": ARTICLES,
            "customers.csv": b"customer_id,age\nx,5\n",
            "sample_submission.csv": b"customer_id,prediction\nx,5\n",
            "images/010/0108775031.jpg": photo(),
        },
    ),
    "hm zipped": (
        "hm",
        {
            "transactions_train.csv.zip": packed("transactions_train.csv", lines(",", HM, HM_HEAD)),
            "articles.csv.zip": packed("articles.csv", ARTICLES),
        },
    ),
    "ml-100k": (
        "movielens-100k",
        {
            "ml-100k/u.data": lines("\t", EVENTS),
            "ml-100k/u.item": lines("|", U_ITEM, encoding="latin-1"),
            "ml-100k/u1.base": lines("\t", EVENTS),
            "ml-100k/u1.test": lines("\t", EVENTS),
        },
    ),
    "ml-1m": (
        "movielens-1m",
        {
            "ml-1m/ratings.dat": lines("::", EVENTS),
            "ml-1m/movies.dat": lines("::", [(i, t, "Comedy") for i, t in TITLES.items()], encoding="latin-1"),
            "ml-1m/users.dat": b"1::F::1::10::48067\n",
        },
    ),
    "ml-latest": (
        "movielens",
        {
            "ratings.csv": lines(",", EVENTS, ("userId", "movieId", "rating", "timestamp")),
            "movies.csv": MOVIES,
            "tags.csv": lines(",", [("1", "31", "fun", 5)], ("userId", "movieId", "tag", "timestamp")),
            "links.csv": b"movieId,imdbId\n31,5\n",
        },
    ),
    "recbole": (
        "recbole",
        {
            "ml.inter": lines("\t", EVENTS, INTER),
            "ml.item": lines("\t", TITLES.items(), ("item_id:token", "movie_title:token_seq")),
        },
    ),
    "mmrec": (
        "mmrec",
        {
            "baby.inter": lines("\t", X_LABEL, ("userID", "itemID", "rating", "timestamp", "x_label")),
            "i_id_mapping.csv": lines("\t", [(f"B{i}", i) for i in TITLES], ("asin", "itemID")),
        },
    ),
    "elliot": ("triples", {"dataset.tsv": lines("\t", EVENTS)}),
    "elliot with header": ("triples", {"dataset.tsv": lines("\t", EVENTS, HEAD)}),
    "cornac": ("triples", {"ratings.txt": lines(" ", EVENTS)}),
    "cornac colons": ("triples", {"uirt.txt": lines("::", EVENTS)}),
    "cornac csv": ("triples", {"ratings.csv": lines(",", [event[:3] for event in EVENTS])}),
    "lightgcn": (
        "lightgcn",
        {"train.txt": lines(" ", [(u, *items) for u, items in LISTS.items()]), "test.txt": lines(" ", [("1", "33")])},
    ),
    "lenskit": ("lenskit", LENSKIT),
    "rectools": (
        "table",
        {
            "interactions.csv": lines(
                ",", [(u, i, r, "2021-01-01") for u, i, r, _ in EVENTS], ("user_id", "item_id", "weight", "datetime")
            )
        },
    ),
    "warprec": (
        "split",
        {f"{part.replace('valid', 'validation')}.tsv": lines("\t", rows, HEAD) for part, rows in SPLIT.items()},
    ),
    "three folders": (
        "split",
        {f"{part}/part-0.csv.gz": gzip.compress(lines(",", rows, HEAD)) for part, rows in SPLIT.items()},
    ),
    "pixelrec": (
        "pixelrec",
        {
            "pixelrec_interaction/Pixel200K.csv": lines(
                ",", [(i, u, t) for u, i, _, t in EVENTS], ("item_id", "user_id", "timestamp")
            ),
            "pixelrec_iteminfo/Pixel200K.csv": lines(
                ",", quoted([(i, 5, t) for i, t in TITLES.items()]), ("item_id", "view_number", "title")
            ),
            "cover/31.jpg": photo(),
        },
    ),
    "microlens": (
        "microlens",
        MICROLENS
        | {"MicroLens-100k_pairs.csv": lines(",", [(u, i, t) for u, i, _, t in EVENTS], ("user", "item", "timestamp"))},
    ),
    "microlens lists": (
        "microlens",
        MICROLENS | {"MicroLens-100k_pairs.tsv": "".join(f"{u}\t{' '.join(i)}\n" for u, i in LISTS.items()).encode()},
    ),
    "amazon 2014 ratings": (
        "amazon-ratings",
        {"ratings_Beauty.csv": lines(",", [(f"A{u * 13}", f"B0000000{i}", r, t) for u, i, r, t in EVENTS])},
    ),
    "amazon 2018 ratings": (
        "amazon-ratings",
        {"ratings_Beauty.csv": lines(",", [(f"B0000000{i}", f"A{u * 13}", r, t) for u, i, r, t in EVENTS])},
    ),
    "shards": (
        "parts",
        {f"part-0000{n}.csv.gz": gzip.compress(lines(",", [event], HEAD)) for n, event in enumerate(EVENTS)}
        | {"_SUCCESS": b""},
    ),
    "zip": ("table", {"interactions.csv.zip": packed("x/interactions.csv", lines(",", EVENTS, HEAD))}),
}
TIMELESS = {"cornac csv", "lightgcn", "microlens lists"}
UNTITLED = {
    "elliot",
    "elliot with header",
    "cornac",
    "cornac colons",
    "cornac csv",
    "lightgcn",
    "rectools",
    "warprec",
    "mmrec",
}
UNTITLED |= {"three folders", "amazon 2014 ratings", "amazon 2018 ratings", "shards", "zip"}


def build(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def short(name):
    """An id without what a layout puts around it."""
    return name[-2:] if len(name) < 64 and not name.startswith("A") else name[-1]


@pytest.mark.parametrize("case", READ)
def test_a_layout_is_read_as_it_is(tmp_path, case):
    name, files = READ[case]
    data = Dataset(build(tmp_path, files))
    x, wanted = data.interactions(), {event[:2] for event in EVENTS} | ({("1", "33")} if case == "lightgcn" else set())
    pairs = zip(x.user_ids[x.users].tolist(), x.item_ids[x.items].tolist(), strict=True)
    assert {(user[-1], short(item)) for user, item in pairs} == wanted and name in LAYOUTS
    assert (x.times is None) == (case in TIMELESS)
    assert {short(i): title for i, title in data.items().get("title", {}).items()} == (
        {} if case in UNTITLED else TITLES
    )
    if case not in ("hm", "hm zipped", "rectools") and x.times is not None:
        assert sorted(x.times) == sorted(TIMES)
    if any(file.endswith(".jpg") for file in files):
        assert [short(i) for i in data.images().item_ids] == ["31"] and data.holds_images()
    if name in ("split", "mmrec", "lightgcn"):
        parts = {part: getattr(Split.make(x), part).nnz for part in ("train", "validation", "test")}
        assert parts == (
            {"train": 2, "validation": 2, "test": 1}
            if name == "mmrec"
            else {"train": 5, "validation": 0, "test": 1}
            if name == "lightgcn"
            else {"train": 3, "validation": 1, "test": 1}
        )


@pytest.mark.parametrize("case", [case for case in READ if case not in TIMELESS | {"rectools"}])
def test_what_is_read_is_what_is_converted_and_rows_may_be_chosen(tmp_path, case):
    build(tmp_path / "in", READ[case][1])
    whole = Dataset(tmp_path / "in").interactions()
    done = convert(tmp_path / "in", tmp_path / "out")
    assert done.counts == {"users": len(whole.user_ids), "items": len(whole.item_ids), "interactions": 5}
    same = Dataset(tmp_path / "out").interactions()
    for column in ("user_ids", "item_ids", "users", "items", "times", "splits"):
        np.testing.assert_array_equal(getattr(same, column), getattr(whole, column))
    assert Dataset(tmp_path / "out").items().get("title") == Dataset(tmp_path / "in").items().get("title")
    if case not in ("hm", "hm zipped", "pixelrec", "microlens"):
        assert len(Dataset.resolve(tmp_path / "in", rows=Rows("", 4)).interactions()) == 3


def test_partitions_as_duckdb_writes_them(tmp_path):
    rows = ", ".join(f"('{u}', '{i}', {r}, {t})" for u, i, r, t in EVENTS)
    for kind in ("PARQUET", "CSV"):
        out = tmp_path / kind
        table = f"(SELECT * FROM (VALUES {rows}) t(user_id, item_id, rating, timestamp))"
        duckdb.sql(f"COPY {table} TO '{out}' (FORMAT {kind}, PARTITION_BY (rating))")
        assert len(Dataset(out).interactions()) == 5 and len(Dataset.resolve(out, rows=Rows("", 4)).interactions()) == 3


REVIEWS = {
    "2014": (
        "reviews_Hats_5.json.gz",
        "meta_Hats.json.gz",
        lambda u, i, r, t: {"reviewerID": u, "asin": i, "overall": float(r), "unixReviewTime": t},
        lambda i, t: {"asin": i, "title": t, "categories": [["Clothing", "Hats"]], "imUrl": "http://a/x.jpg"},
    ),
    "2018": (
        "Hats_5.json.gz",
        "meta_Hats.json.gz",
        lambda u, i, r, t: {"overall": float(r), "verified": True, "reviewerID": u, "asin": i, "unixReviewTime": t},
        lambda i, t: {
            "category": ["Clothing", "Hats"],
            "title": t,
            "asin": i,
            "imageURL": ["http://a/s.jpg"],
            "imageURLHighRes": ["http://a/x.jpg"],
        },
    ),
    "2023": (
        "Hats.jsonl.gz",
        "meta_Hats.jsonl.gz",
        lambda u, i, r, t: {
            "rating": float(r),
            "title": "x",
            "images": [],
            "asin": i + "-XL",
            "parent_asin": i,
            "user_id": u,
            "timestamp": t * 1000 + 5,
            "verified_purchase": True,
        },
        lambda i, t: {
            "main_category": "Clothing",
            "title": t,
            "images": [
                {"thumb": "http://a/s.jpg", "large": "http://a/l.jpg", "variant": "MAIN", "hi_res": "http://a/x.jpg"}
            ],
            "categories": ["Clothing", "Hats"],
            "parent_asin": i,
        },
    ),
    "2023 hub": (
        "Hats.jsonl",
        "meta_Hats.jsonl",
        lambda u, i, r, t: {"rating": float(r), "parent_asin": i, "asin": i, "user_id": u, "timestamp": t * 1000 + 5},
        lambda i, t: {
            "title": t,
            "images": {"hi_res": [None, "http://a/x.jpg"], "large": ["http://a/l.jpg", "http://a/m.jpg"], "thumb": []},
            "categories": ["Clothing", "Hats"],
            "parent_asin": i,
        },
    ),
}


@pytest.mark.parametrize("year", REVIEWS)
def test_amazon_reviews_of_each_year(tmp_path, year):
    name, meta, review, item = REVIEWS[year]
    pack = gzip.compress if name.endswith(".gz") else bytes
    texts = {name: [review(*event) for event in EVENTS], meta: [item(*title) for title in TITLES.items()]}
    build(tmp_path, {n: pack("".join(json.dumps(r) + "\n" for r in rs).encode()) for n, rs in texts.items()})
    with pytest.raises(VbprError, match=rf"run vbpr convert .*{name} FOLDER"):
        Dataset(tmp_path).interactions()
    assert convert(tmp_path / name, tmp_path / "out").counts == {"users": 3, "items": 3, "interactions": 5}
    data = Dataset(tmp_path / "out")
    assert [int(t) for t in sorted(data.interactions().times)] == sorted(TIMES)
    items = data.items()
    assert items["title"] == TITLES and set(items["category"].values()) == {"Hats"}
    assert set(items["image_url"].values()) == {"http://a/x.jpg"}
    done = convert(tmp_path / name, tmp_path / "best", Rows("", 4))
    assert done.counts["interactions"] == 3 and "rows where rating >= 4: 3 of 5 rows" in done.notes
    assert convert(tmp_path / name, tmp_path / "best", Rows("", 4)).counts == done.counts
    with pytest.raises(VbprError, match="another file or other rows"):
        convert(tmp_path / name, tmp_path / "best")


@pytest.mark.parametrize("kind", ["outfits", "maryland"])
def test_outfits_of_polyvore_are_users(tmp_path, kind):
    outfits = {
        part: [{"set_id": f"{part}7", "items": [{"item_id": "8", "index": 1}, {"item_id": "9", "index": 2}]}]
        for part in SPLIT
    }
    if kind == "outfits":
        files = {f"nondisjoint/{part}.json": json.dumps(rows).encode() for part, rows in outfits.items()}
        files["polyvore_item_metadata.json"] = json.dumps(
            {"8": {"title": "A skirt", "semantic_category": "bottoms"}}
        ).encode()
    else:
        for rows in outfits.values():
            rows[0]["items"] = [
                {"name": "A skirt", "index": 1, "categoryid": 27},
                {"name": "", "index": 2, "categoryid": 5},
            ]
        files = {f"{part}_no_dup.json": json.dumps(rows).encode() for part, rows in outfits.items()}
        files["category_id.txt"] = b"27 Skirts\n5 Day Dresses\n"
    done = convert(build(tmp_path / "in", files), tmp_path / "out")
    assert done.counts == {"users": 3, "items": 2 if kind == "outfits" else 6, "interactions": 6}
    data = Dataset(tmp_path / "out")
    item, category = ("8", "bottoms") if kind == "outfits" else ("train7_1", "Skirts")
    assert data.items()["title"][item] == "A skirt" and data.items()["category"][item] == category
    assert sorted(data.interactions().splits) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"transactions.csv": b"a,b\n", "articles.csv": b"a,b\n"},
            r"nearest layouts are hm \(.*which lacks transactions_train\.csv and",
        ),
        (
            {"user.parquet": parquet(user_id=[1]), "item.parquet": parquet(item_id=[1])},
            r"nearest layouts are lenskit \(.*which lacks schema\.json and",
        ),
        ({"movies.csv": MOVIES}, r"movielens \(.*which lacks ratings\.csv"),
        ({"dataset.tsv": b"u\ti\tgood\n"}, r"dataset\.tsv has no header, and 'good' in its first line is no rating"),
        ({"u.data": b"1\t2\t3\n4\n"}, r"u\.data, line 2: 1 fields where"),
        (
            {"ratings.dat": b"1::2::3::4\n5::6\n"},
            r"ratings\.dat cannot be read .*it needs 4 fields a line with '::' between",
        ),
        (LENSKIT | {"item.parquet": parquet(item_id=[31])}, r"rating\.parquet names items that item\.parquet lacks"),
        (LENSKIT | {"schema.json": b"{}"}, "is no data set of LensKit's that can be read"),
        (
            {"Pixel1M.csv": b"a", "Pixel200K.csv": b"a"},
            r"has Pixel1M\.csv and Pixel200K\.csv; give --data the one that is meant",
        ),
        ({"interactions.csv.zip": packed("a", b"x")[:60]}, r"interactions\.csv\.zip"),
    ],
)
def test_what_is_no_layout_gets_the_nearest_and_what_is_damaged_is_told(tmp_path, files, words):
    with pytest.raises(VbprError, match=words):
        Dataset(build(tmp_path, files)).interactions()


def test_a_file_of_a_layout_may_be_given_by_itself(tmp_path):
    build(
        tmp_path,
        {"u.data": lines("\t", EVENTS), "ratings.dat": lines("::", EVENTS), "dataset.tsv": lines("\t", EVENTS)},
    )
    assert [len(Dataset(tmp_path / name).interactions()) for name in ("u.data", "ratings.dat", "dataset.tsv")] == [
        5
    ] * 3


def test_the_list_names_every_layout_and_how_it_is_read(cli):
    code, out, _ = cli("convert", "--list")
    assert code == 0 and [line.split(":")[0] for line in out.splitlines()] == list(LAYOUTS)
    assert all(layout.about in out for layout in LAYOUTS.values())


def test_the_page_on_data_names_every_layout():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    patterns = {name: layout.needs[0].split("|")[0].split("/")[-1].strip("*") for name, layout in LAYOUTS.items()}
    for name in READ.keys() - {"parts"} & LAYOUTS.keys():
        assert patterns[name].partition("*")[0] in page, name
