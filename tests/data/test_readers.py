"""Tables as people have them: nothing lost in silence, nothing invented, nothing refused that can be read."""

import decimal
import gzip
import uuid

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import square
from vbpr import Dataset, Interactions, Split, SplitConfig, VbprError
from vbpr.data.converters import convert


def written(tmp_path, text, name="interactions.tsv"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def pairs_of(x):
    return list(zip(x.user_ids[x.users].tolist(), x.item_ids[x.items].tolist(), strict=True))


def notes(capsys):
    return " ".join(capsys.readouterr().err.split())


# ------------------------------------------------------------------------------------------------------------ quotes


@pytest.mark.parametrize("name", ["interactions.tsv", "interactions.tsv.gz", "shop.inter", "interactions.csv"])
@pytest.mark.parametrize("text", ['"would buy again', '"good" he said', '5" screen', '"', '"Great"', 'a "b" c'])
def test_a_quote_sign_in_a_table_with_tabs_swallows_no_row(tmp_path, name, text):
    texts = {3: text, 7: text, 8: text}
    rows = "".join(f"u{n}\ti{n % 3}\t{texts.get(n, 'good')}\tx\n" for n in range(12))
    x = Interactions.read(written(tmp_path, "user_id\titem_id\theadline\tend\n" + rows, name))
    assert len(x) == 12


def test_quoted_tables_with_tabs_are_read_as_quoted(tmp_path, capsys):
    for text in (
        '"user_id"\t"item_id"\t"note"\n"u"\t"i"\t"a"\n',  # all is quoted
        'user_id\titem_id\tnote\n"u"\t"i"\ta\n',  # the ids are
        'user_id\titem_id\tnote\nu\ti\t"5"" screen"\n',  # as pandas writes it: what needs it is
        'user_id\titem_id\tnote\nu\ti\t"tab\there"\n',
    ):
        assert pairs_of(Interactions.read(written(tmp_path, text))) == [("u", "i")]
    text = 'user_id\titem_id\tnote\nu\ti\t"two\nlines"\nv\ti\tb\n'
    assert pairs_of(Interactions.read(written(tmp_path, text))) == [("u", "i"), ("v", "i")]
    assert "1 row runs over several lines, in quotes (first: line 2)" in notes(capsys)


@pytest.mark.parametrize("kind", ["interactions", "items"])
@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_a_quoted_field_that_holds_rows_is_named_by_the_line_of_its_quote(tmp_path, kind, sign):
    """The quote of line 4 is closed on line 8, and five lines would be one."""
    lines = [["user_id", "item_id", "note"], *([f"u{n}", f"i{n}", "good"] for n in range(9))]
    lines[3][2], lines[7][2] = '"great', '5"'
    if sign == "\t":
        lines[0][0] = '"user_id"'  # so that the table is a quoted one
    path = written(tmp_path, "".join(sign.join(line) + "\n" for line in lines), f"{kind}.csv")
    with pytest.raises(VbprError, match=rf"{path.name}, line 4: the quote that opens here is closed on line 8, and"):
        Dataset(tmp_path).interactions() if kind == "interactions" else Dataset(tmp_path).items()


def test_texts_of_several_lines_are_read_and_told(tmp_path, capsys):
    rows = "".join(f'u{n},i{n},5,"Nice, warm,\nand ""soft"".\n\nReally"\n' for n in range(3))
    assert len(Interactions.read(written(tmp_path, f"user_id,item_id,stars,text\n{rows}", "interactions.csv"))) == 3
    assert "3 rows run over several lines, in quotes (first: line 2)" in notes(capsys)


@pytest.mark.parametrize("sign", [",", "\t"])
def test_a_quote_that_is_open_at_the_end_is_no_row_the_less(tmp_path, sign):
    rows = "".join(sign.join([f"u{n}", f"i{n}", '"good' if n == 3 else "good"]) + "\n" for n in range(9))
    path = written(tmp_path, sign.join(["user_id", "item_id", "note"]) + "\n" + rows, "interactions.csv")
    if sign == "\t":
        assert len(Interactions.read(path)) == 9
    else:
        with pytest.raises(VbprError, match=r"line 5: the quote that opens here is never closed"):
            Interactions.read(path)


def test_a_line_that_is_short_is_named_whatever_quotes_there_are(tmp_path):
    text = 'user_id\titem_id\tnote\na\tx\t"great\nb\ty\nc\tz\t"so\n'
    with pytest.raises(VbprError, match="line 3: 2 fields where the header has 3"):
        Interactions.read(written(tmp_path, text))


def test_items_with_quote_signs_are_all_there(tmp_path):
    rows = "".join(f"i{n}\t{chr(34) * (n in (2, 5))}Shirt {n}\n" for n in range(8))
    written(tmp_path, f"item_id\ttitle\n{rows}", "items.tsv")
    titles = Dataset(tmp_path).items()["title"]
    assert len(titles) == 8 and titles["i2"] == '"Shirt 2' and titles["i3"] == "Shirt 3"


def test_a_header_in_mid_file_is_named(tmp_path):
    text = "user_id\titem_id\na\tx\nuser_id\titem_id\nb\ty\n"
    with pytest.raises(VbprError, match="line 3: the header is there again; remove the line"):
        Interactions.read(written(tmp_path, text))


# ------------------------------------------------------------------------------------------------------- typed ids

KEYS = [uuid.uuid5(uuid.NAMESPACE_DNS, name) for name in "abc"]
TYPED = [
    (pa.array([key.bytes for key in KEYS], pa.uuid()), [str(key) for key in KEYS]),
    (pa.array([decimal.Decimal(n) for n in (7, 10**25, 3)], pa.decimal128(30, 0)), ["7", "1" + "0" * 25, "3"]),
    (pa.array([decimal.Decimal(n) for n in (70, 100, 3)], pa.decimal128(9, 2)), ["70", "100", "3"]),
    (pa.array([decimal.Decimal(10) ** 50, 1, 2], pa.decimal256(60, 0)), ["1" + "0" * 50, "1", "2"]),
    (pa.array([2**64 - 1, 0, 5], pa.uint64()), [str(2**64 - 1), "0", "5"]),
    (pa.array([2**53 + 1, -1, 5], pa.int64()), [str(2**53 + 1), "-1", "5"]),
    (pa.array(["a", "bb", "é"], pa.string_view()), ["a", "bb", "é"]),
    (pa.array(["a", "bb", "é"], pa.large_string()), ["a", "bb", "é"]),
    (pa.array(["a", "bb", "a"]).dictionary_encode(), ["a", "bb", "a"]),
    (pa.array([7, 8, 7], pa.int16()).dictionary_encode(), ["7", "8", "7"]),
    (pa.array([b"a001", b"a002", b"b"], pa.large_binary()), ["a001", "a002", "b"]),
    (pa.array([b"a001", b"a002", b"bb\0\0"], pa.binary(4)), ["a001", "a002", "bb"]),
    (pa.array([b"a001", b"a002", b"b"], pa.binary_view()), ["a001", "a002", "b"]),
    (pa.array([7.0, 8.0, 9.0], pa.float32()), ["7", "8", "9"]),
]


@pytest.mark.parametrize(("column", "names"), TYPED, ids=[str(column.type)[:24] for column, _ in TYPED])
def test_ids_of_every_type_have_their_one_exact_text(tmp_path, column, names):
    """In interactions, in a table of items and in what convert makes."""
    users = ["u", "v", "w"]
    pq.write_table(pa.table({"user_id": users, "item_id": column}), tmp_path / "interactions.parquet")
    assert pairs_of(Dataset(tmp_path).interactions()) == list(zip(users, names, strict=True))
    pq.write_table(pa.table({"user_id": column, "item_id": users}), tmp_path / "i.parquet")
    assert set(Interactions.read(tmp_path / "i.parquet").user_ids) == set(names)
    pq.write_table(pa.table({"item_id": column, "title": users}), tmp_path / "items.parquet")
    assert Dataset(tmp_path).items()["title"] == dict(zip(names, users, strict=True))
    if len(set(names)) == 3:
        photo = square(0.5, np.random.default_rng(0))
        (tmp_path / "source").mkdir()
        pq.write_table(pa.table({"item_id": column, "image": [photo] * 3}), tmp_path / "source" / "a.parquet")
        convert(tmp_path / "source", tmp_path / "out")
        assert Dataset(tmp_path / "out").images().item_ids.tolist() == sorted(names)


def by_pyarrow(table, path):
    pq.write_table(table, path)


def by_pandas(table, path):
    table.to_pandas().to_parquet(path)


def by_polars(table, path):
    polars.from_arrow(table).write_parquet(path)


def by_duckdb(table, path):
    duckdb.from_arrow(table).write_parquet(str(path))


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 2**15 - 1), min_size=1, max_size=20),
    kind=st.sampled_from(
        [pa.int16(), pa.uint16(), pa.int64(), pa.float64(), pa.string(), pa.large_string(), pa.decimal128(20, 0)]
    ),
    coded=st.booleans(),
)
@pytest.mark.parametrize("write", [by_pyarrow, by_pandas, by_polars, by_duckdb])
def test_one_table_is_the_same_interactions_whoever_wrote_it(tmp_path_factory, write, numbers, kind, coded):
    names = pa.array([str(number) for number in numbers])
    column = names.cast(pa.int64()).cast(kind) if kind not in (pa.string(), pa.large_string()) else names.cast(kind)
    table = pa.table({"user_id": names, "item_id": column.dictionary_encode() if coded else column})
    path = tmp_path_factory.mktemp("written") / "interactions.parquet"
    write(table, path)
    assert set(pairs_of(Interactions.read(path))) == {(name, name) for name in names.to_pylist()}


def test_categories_that_no_row_is_of_are_no_items(tmp_path):
    column = pa.DictionaryArray.from_arrays(pa.array([1, 1]), ["unused", "used"])
    pq.write_table(pa.table({"user_id": ["a", "b"], "item_id": column}), tmp_path / "interactions.parquet")
    assert Dataset(tmp_path).interactions().item_ids.tolist() == ["used"]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([b"\xff" * 16, b"\xfe" * 16], pa.binary(16)), r"item_id \(fixed_size_binary\[16\]\) cannot be read"),
        (pa.array([["a"], ["b"]]), r"item_id \(list<.*\) cannot be read .*; write it as text"),
        (pa.array([decimal.Decimal("1.50"), decimal.Decimal(2)], pa.decimal128(9, 2)), "row 1: item_id is '1.50'"),
    ],
)
def test_ids_without_an_exact_text_are_refused_by_type_with_the_cure(tmp_path, column, words):
    pq.write_table(pa.table({"user_id": ["u", "v"], "item_id": column}), tmp_path / "interactions.parquet")
    with pytest.raises(VbprError, match=words):
        Dataset(tmp_path).interactions()


def test_a_column_of_items_that_nobody_asks_for_is_no_fault(tmp_path, capsys):
    strange = {
        "seller": pa.array([key.bytes for key in KEYS], pa.uuid()),
        "code": pa.array([b"\xff\xfe"] * 3).view(pa.string()),
        "vector": [[1.0], [2.0], [3.0]],
        "raw": [b"\xff"] * 3,
    }
    pq.write_table(pa.table({"item_id": list("abc"), "title": list("xyz"), **strange}), tmp_path / "items.parquet")
    items = Dataset(tmp_path).items()
    assert items["title"] == {"a": "x", "b": "y", "c": "z"} and items["seller"]["a"] == str(KEYS[0])
    assert "code" not in items and "column code (string) is left out" in notes(capsys)


# ------------------------------------------------------------------------------------------- columns that are optional


def many(header, values):
    """Thirty users of eight items each, with these values at the end of every line."""
    rows = [f"u{u},i{(u + 7 * n) % 40},{values}" for u in range(30) for n in range(8)]
    return header + "\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("header", "values", "words"),
    [
        ("user_id,item_id,timestamp", "", "line 2: timestamp is empty"),
        ("user_id,item_id,timestamp", "soon", "line 2: timestamp is 'soon'"),
        ("user_id,item_id,split", "A", "split holds 'A', and no train, validation or test; left alone"),
    ],
)
def test_a_time_or_split_that_nothing_needs_is_a_note(tmp_path, capsys, header, values, words):
    x = Interactions.read(written(tmp_path, many(header, values), "interactions.csv"))
    assert Split.make(x).rule.startswith("leave one out at random") and words in notes(capsys)
    with pytest.raises(VbprError, match=r"timestamp|split column"):
        Split.make(x, SplitConfig("time" if "timestamp" in header else "file"))


def test_a_split_with_a_slip_of_the_pen_is_not_passed_over(tmp_path, capsys):
    text = many("user_id,item_id,split", "train") + "u0,i39,tset\nu1,i38,test\n"
    x = Interactions.read(written(tmp_path, text, "interactions.csv"))
    with pytest.raises(VbprError, match="line 242: split is 'tset'; it must be train"):
        Split.make(x)
    assert Split.make(x, SplitConfig("random")).test.nnz == 30
    assert "left alone: --split random needs no split" in notes(capsys)


@pytest.mark.parametrize(
    ("header", "values", "seconds", "note"),
    [
        ("user_id,item_id,date,time", "2020-07-31,10:30:00", 1596153600, "date is taken for the timestamp, and time"),
        ("CustomerID,StockCode,InvoiceDate", "12/1/2010 8:26", 1291191960, "are read as month, day, year"),
        ("user_id,item_id,date", "31/12/2010", 1293753600, "are read as day, month, year"),
        ("user_id,item_id,date", "31.12.2010 08:26", 1293783960, "are read as day, month, year"),
        ("user_id,item_id,date", "01-12-2010 08:26", 1291191960, "are read as day, month, year"),
        ("user_id,item_id,date", "2010/12/01 08:26", 1291191960, ""),
        ("user_id,item_id,date", "12/31/2010 8:26 PM", 1293827160, "are read as month, day, year"),
    ],
)
def test_days_as_spreadsheets_write_them(tmp_path, capsys, header, values, seconds, note):
    x = Interactions.read(written(tmp_path, many(header, values), "interactions.csv"))
    assert set(x.times) == {seconds} and note in notes(capsys)


# ------------------------------------------------------------------------------------------------- MMRec's split


@pytest.mark.parametrize("label", [str, float, int])
@pytest.mark.parametrize("suffix", [".inter", ".parquet"])
def test_the_labels_of_mmrec_are_train_validation_and_test(tmp_path, suffix, label):
    rows = [(f"u{u}", f"i{u + n}", label(max(0, n - 5))) for u in range(4) for n in range(8)]
    if suffix == ".parquet":
        table = dict(zip(("userID", "itemID", "x_label"), map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(table), tmp_path / "interactions.parquet")
    else:
        lines = "".join("\t".join(map(str, row)) + "\n" for row in rows)
        written(tmp_path, "userID:token\titemID:token\tx_label:float\n" + lines, "baby.inter")
    split = Split.make(Dataset(tmp_path).interactions())
    assert (split.train.nnz, split.validation.nnz, split.test.nnz) == (24, 4, 4)


def test_numbers_in_another_column_of_splits_are_no_labels(tmp_path, capsys):
    x = Interactions.read(written(tmp_path, many("user_id,item_id,split", "1"), "interactions.csv"))
    assert x.splits is None and "split holds '1', and no train" in notes(capsys)


# ------------------------------------------------------------------------------------------- what a file looks like


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("interactions.tsv", "u00\ti034\t1600000000\n", "seems to have no header: its first line is u00, i034, 160"),
        ("interactions.csv", "17,42\n17,43\n", "no header.*put a line with the names of its columns in front"),
        ("ml.inter", "user_id:token item_id:token\nu i\n", r"have blanks between .*sed -E 's/ \+/\\t/g' FILE"),
        ("interactions.csv", "user_id::item_id::time\nu::i::5\n", r"have '::' between .*sed -E 's/::/\\t/g' FILE"),
        ("interactions.csv", "user_id,thing\na,b\n", "has no item_id column; it has user_id, thing; rename one"),
    ],
)
def test_what_a_file_looks_like_is_said_with_the_cure(tmp_path, name, text, words):
    written(tmp_path, text, name)
    with pytest.raises(VbprError, match=words):
        Dataset(tmp_path).interactions()


def test_blanks_around_ids_are_taken_off_as_in_headers(tmp_path):
    written(tmp_path, "user_id, item_id, timestamp\nu1, i5 , 7\nu2,i5, 8\n", "interactions.csv")
    written(tmp_path, "item_id, title\ni5 ,A hat\n", "items.csv")
    x = Dataset(tmp_path).interactions()
    assert pairs_of(x) == [("u1", "i5"), ("u2", "i5")] and x.times.tolist() == [7, 8]
    assert Dataset(tmp_path).items()["title"] == {"i5": "A hat"}


@pytest.mark.parametrize("word", ["NULL", r"\N", "NaN", "None", "<NA>"])
def test_a_user_who_is_nobody_is_told(tmp_path, capsys, word):
    rows = "".join(f"{word if n < 6 else f'u{n}'},i{n}\n" for n in range(9))
    x = Interactions.read(written(tmp_path, f"user_id,item_id\n{rows}", "interactions.csv"))
    assert word in x.user_ids
    said = notes(capsys)
    assert f"{word} is the user of 6 rows, as if it were one user; leave them out if it means none" in said
    assert "the item of" not in said


# ---------------------------------------------------------------------------------------------- folders that are tables


def spread(folder, table, types, suffix=".parquet"):
    """A table as files of a few rows each, one a type of its second column."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, kind in enumerate(types):
        part = table.slice(n * 4, 4)
        part = part.set_column(1, part.column_names[1], part[1].cast(kind))
        pq.write_table(part.select(part.column_names[:: -1 if n % 2 else 1]), folder / f"part-{n:05}.snappy{suffix}")


def events(count=12):
    return pa.table(
        {"user_id": [f"u{n % 5}" for n in range(count)], "item_id": list(range(count)), "note": ["x"] * count}
    )


@pytest.mark.parametrize("types", [["int32", "int64", "uint8"], ["int64", "float64", "string"], ["string"] * 3])
def test_a_folder_of_parts_is_one_table_whatever_their_types(tmp_path, types):
    spread(tmp_path / "interactions.parquet", events(), types)
    (tmp_path / "interactions.parquet" / "_SUCCESS").write_text("")
    (tmp_path / "interactions.parquet" / ".part-0.crc").write_text("x")
    (tmp_path / "interactions.parquet" / "_temporary").mkdir()
    (tmp_path / "interactions.parquet" / "_temporary" / "part-9.parquet").write_text("x")
    pq.write_table(events(0), tmp_path / "interactions.parquet" / "part-00009.parquet")
    wanted = sorted((f"u{n % 5}", str(n)) for n in range(12))
    assert sorted(pairs_of(Dataset(tmp_path).interactions())) == wanted
    assert sorted(pairs_of(Dataset(tmp_path / "interactions.parquet").interactions())) == wanted


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_names_of_folders_are_columns_of_text(tmp_path, suffix):
    for n, split in enumerate(("train", "test")):
        for day in ("2020-01-01", "2020-01-02", "__HIVE_DEFAULT_PARTITION__")[: 2 + n]:
            folder = tmp_path / f"interactions{suffix}" / f"split={split}" / f"dt={day}" / f"user_id=0{n}%2F7"
            folder.mkdir(parents=True)
            table = pa.table({"item_id": [f"{split}{day}"], "price": [1.5]})
            if suffix == ".csv":
                (folder / "part-0.csv").write_text(f"item_id,price\n{split}{day},1.5\n")
            else:
                pq.write_table(table, folder / "data_0.parquet")
    x = Dataset(tmp_path).interactions()
    assert x.user_ids.tolist() == ["00/7", "01/7"] and len(x) == 5 and sorted(x.splits) == [0, 0, 2, 2, 2]


def test_a_folder_needs_no_ending(tmp_path):
    for n, day in enumerate(("2020-01-01", "2020-01-02")):
        folder = tmp_path / "interactions" / f"dt={day}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"user_id": ["u"], "item_id": [n]}), folder / "000000_0.parquet")
    assert pairs_of(Dataset(tmp_path).interactions()) == [("u", "0"), ("u", "1")]
    (tmp_path / "interactions" / "notes.md").write_text("x")
    with pytest.raises(VbprError, match=r"notes\.md is no table of interactions; move it away"):
        Dataset(tmp_path).interactions()


def test_an_items_folder_is_read_and_its_parts_may_differ(tmp_path):
    items = tmp_path / "items.parquet"
    items.mkdir()
    pq.write_table(pa.table({"item_id": pa.array([1, 2], pa.int32()), "title": pa.nulls(2)}), items / "a.parquet")
    (items / "kind=Hat").mkdir()
    pq.write_table(pa.table({"title": ["x", "y"], "item_id": ["3", "4"]}), items / "kind=Hat" / "b.parquet")
    found = Dataset(tmp_path).items()
    assert found["title"] == {"1": "", "2": "", "3": "x", "4": "y"} and found["kind"]["3"] == "Hat"


def test_a_table_of_items_may_be_gzipped(tmp_path):
    written(tmp_path, 'item_id\ttitle\na\t"A hat\n', "items.tsv.gz")
    assert Dataset(tmp_path).items()["title"] == {"a": '"A hat'}


def test_a_time_that_some_parts_lack_is_told_where_it_is_needed(tmp_path):
    folder = tmp_path / "interactions.parquet"
    folder.mkdir()
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"], "time": [1]}), folder / "a.parquet")
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["b"]}), folder / "b.parquet")
    x = Dataset(tmp_path).interactions()
    with pytest.raises(VbprError, match="1 of 2 files have no timestamp that can be read"):
        Split.make(x, SplitConfig("global-time"))


def test_shards_of_images_may_differ_in_types_and_in_order(tmp_path):
    photos = [square(n / 4, np.random.default_rng(n)) for n in range(4)]
    (tmp_path / "source" / "shop=7").mkdir(parents=True)
    first = {"item_id": pa.array([1, 2], pa.int32()), "image": photos[:2], "note": pa.nulls(2)}
    other = {"note": ["sale", None], "image": pa.array(photos[2:], pa.large_binary()), "item_id": ["3", "4"]}
    pq.write_table(pa.table(first), tmp_path / "source" / "a.parquet")
    pq.write_table(pa.table(other), tmp_path / "source" / "shop=7" / "b.parquet")
    convert(tmp_path / "source", tmp_path / "out")
    data = Dataset(tmp_path / "out")
    assert [data.images().read(n) for n in range(4)] == photos
    assert data.items()["note"] == {"1": "", "2": "", "3": "sale", "4": ""} and data.items()["shop"]["3"] == "7"


# ------------------------------------------------------------------------------- train, validation and test as files

PARTS = {"train": [("u", "1"), ("u", "2"), ("v", "3")], "valid": [("u", "3")], "test": [("u", "4"), ("v", "5")]}


def write_parts(folder, how):
    folder.mkdir()
    for part, rows in PARTS.items():
        if how == "recbole":
            text = "user_id:token\titem_id:token\n" + "".join(f"{u}\t{i}\n" for u, i in rows)
            (folder / f"ml.{part}.inter").write_text(text)
        elif how == "elliot":
            (folder / f"{part.replace('valid', 'val')}.tsv").write_text("".join(f"{u}\t{i}\t5\t17\n" for u, i in rows))
        elif how == "hub":
            name = part.replace("valid", "validation")
            pq.write_table(
                pa.table(dict(zip(("user", "item"), map(list, zip(*rows, strict=True)), strict=True))),
                folder / f"{name}-00000-of-00001.parquet",
            )
        elif how == "csv":
            (folder / f"shop_{part}.csv.gz").write_bytes(
                gzip.compress(("user_id,item_id,split\n" + "".join(f"{u},{i},A\n" for u, i in rows)).encode())
            )
        else:
            users = dict.fromkeys(u for u, _ in rows) | {"w": None}  # who has no items in any part
            lines = [" ".join([user, *(i for u, i in rows if u == user)]) for user in users]
            (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("how", ["recbole", "elliot", "hub", "csv", "lightgcn"])
def test_three_files_are_the_split_that_they_give(tmp_path, how):
    x = Dataset(write_parts(tmp_path / "data", how)).interactions()
    split = Split.make(x)
    for part, name in (("train", "train"), ("valid", "validation"), ("test", "test")):
        matrix = getattr(split, name).tocoo()
        found = zip(split.user_ids[matrix.row].tolist(), split.item_ids[matrix.col].tolist(), strict=True)
        assert sorted(found) == sorted(PARTS[part]), name
    assert (x.times is not None) == (how == "elliot")


def test_train_and_test_alone_are_a_split_and_one_of_them_is_none(tmp_path):
    folder = write_parts(tmp_path / "data", "recbole")
    (folder / "ml.valid.inter").unlink()
    split = Split.make(Dataset(folder).interactions())
    assert (split.train.nnz, split.validation.nnz, split.test.nnz) == (3, 0, 2)
    (folder / "ml.test.inter").unlink()
    assert Dataset(folder).interactions().splits is None  # one table, whatever its name


def test_two_splits_in_one_folder_are_refused(tmp_path):
    folder = write_parts(tmp_path / "data", "recbole")
    for part in ("train", "test"):
        (folder / f"{part}.tsv").write_text("u\ti\n")
    with pytest.raises(VbprError, match=r"has ml\.test\.inter and test\.tsv, two splits; move one away"):
        Dataset(folder).interactions()
    (folder / "train.tsv").unlink()
    (folder / "interactions.csv").write_text("user_id,item_id\nu,i\n")
    with pytest.raises(VbprError, match=r"has interactions\.csv and ml\.test\.inter; move one away"):
        Dataset(folder).interactions()
