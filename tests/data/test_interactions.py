"""Interactions, their readers and their splits."""

import gzip
import os
import re
import tracemalloc
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from vbpr import Dataset, Interactions, Split, SplitConfig, VbprError
from vbpr.answers.filters import allowed

ODD_IDS = ["007", "7", "NaN", "nan", "1.0", "1", "None", "true", "1e5", "ütf-8", "a b", "-"]


def pairs_of(x):
    return list(zip(x.user_ids[x.users].tolist(), x.item_ids[x.items].tolist(), strict=True))


def read_all(path):
    """Interactions of which every column is asked for: a split by what cannot be read says why."""
    found = Interactions.read(path)
    for column in found.unread:
        Split.make(found, SplitConfig({"timestamp": "global-time", "split": "file"}[column]))
    return found


def write(tmp_path, text, name="interactions.csv"):
    path = tmp_path / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def test_a_table_of_items_whose_header_is_no_utf_8(tmp_path):
    (tmp_path / "items.csv").write_bytes(b"item_id,caf\xe9\na,b\n")
    with pytest.raises(VbprError, match=r"items\.csv, line 1: not UTF-8 text"):
        Dataset.resolve(tmp_path).items()


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends(tmp_path, ends):
    path = tmp_path / "interactions.csv"
    path.write_bytes(ends.join(["user_id,item_id", "a,007", "b,1", ""]).encode("utf-8-sig"))
    assert sorted(Interactions.read(path).item_ids.tolist()) == ["007", "1"]


def test_repeated_pairs_count_once_with_their_first_event():
    x = Interactions.of(["b", "a", "b", "b"], ["y", "x", "y", "x"], [30, 5, 10, 7])
    assert pairs_of(x) == [("a", "x"), ("b", "x"), ("b", "y")] and x.times.tolist() == [5, 7, 10]
    x = Interactions.of(["a"] * 3, ["x"] * 3, [5, 3, 4], [0, 2, 0])  # what was learnt from is no test, however early
    assert x.splits.tolist() == [0] and x.times.tolist() == [4]


ids = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n", exclude_categories=["Cs"]), min_size=1)
texts = st.sampled_from(ODD_IDS) | ids.filter(lambda text: text.strip() == text and text.strip("\ufeff") == text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=20), st.sampled_from([".csv", ".csv.gz", ".parquet"]))
def test_ids_come_back_as_they_went_in(tmp_path_factory, pairs, suffix):
    path = tmp_path_factory.mktemp("ids") / f"interactions{suffix}"
    users, items = zip(*pairs, strict=True)
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({"user_id": users, "item_id": items}), path)
    else:
        quoted = ['"' + a.replace('"', '""') + '","' + b.replace('"', '""') + '"' for a, b in pairs]
        write(path.parent, "\n".join(["user_id,item_id", *quoted]) + "\n", path.name)
    composed = {tuple(unicodedata.normalize("NFC", text) for text in pair) for pair in pairs}
    assert sorted(pairs_of(Interactions.read(path))) == sorted(composed)


@pytest.mark.parametrize("quote", ["", '"'])
def test_numbers_and_missing_words_stay_strings(tmp_path, quote):
    rows = [f"{quote}{i}{quote},{quote}{i}{quote}" for i in ODD_IDS]
    x = Interactions.read(write(tmp_path, "user_id,item_id\n" + "\n".join(rows)))
    assert set(x.user_ids) == set(x.item_ids) == set(ODD_IDS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("i.csv", "reviewerID,asin,unixReviewTime\nu,i,5\n"),
        ("i.csv", "\ufeffcustomer_id,article_id,t_dat\r\nu,i,1970-01-01T00:00:05\r\n"),
        ("i.tsv", "item\tuser\ttimestamp\ni\tu\t5.0\n"),
        ("i.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t5\n"),
        ("i.tsv.gz", "UserId\tProductId\tTime\nu\ti\t5\n"),
        ("i.csv", "Customer ID,StockCode,Product,InvoiceDate\nu,i,x,5\n"),
        ("i.csv", "User-ID,ISBN,date\nu,i,5\n"),
        ("i.csv", "CustomerID,ArticleID,order.date\nu,i,5\n"),
    ],
)
def test_the_fields_own_column_names_are_read(tmp_path, name, text):
    x = Interactions.read(write(tmp_path, text, name))
    assert pairs_of(x) == [("u", "i")] and x.times.tolist() == [5]


def test_tables_are_read_from_memory_of_arrows_own(tmp_path, monkeypatch):
    """A file of Python's is let go of by a thread of Arrow's, at any time: at Python's end that aborts the process."""
    given, reads = [], (pyarrow.csv.read_csv, pyarrow.parquet.ParquetFile)
    for module, name, real in ((pyarrow.csv, "read_csv", reads[0]), (pyarrow.parquet, "ParquetFile", reads[1])):
        monkeypatch.setattr(module, name, lambda source, real=real, **how: given.append(source) or real(source, **how))
    for name in ("interactions.csv", "items.csv"):
        write(tmp_path, "user_id,item_id\na,x\n", name)
    pyarrow.parquet.write_table(pa.table({"user_id": ["a"], "item_id": ["x"]}), tmp_path / "i.parquet")
    assert Dataset(tmp_path).items() and Dataset(tmp_path).interactions() and Interactions.read(tmp_path / "i.parquet")
    assert len(given) == 3 and all(isinstance(source, pa.BufferReader | pa.OSFile) for source in given)


def test_dates_are_seconds(tmp_path):
    x = Interactions.read(write(tmp_path, "user,item,date\na,b,2020-07-31\na,c,2020-07-31 00:01:00\n"))
    assert x.times.tolist() == [1596153600, 1596153660]
    x = Interactions.read(write(tmp_path, "user,item,date\na,b,2020-07-31T00:00:00.25Z\na,c,2020-07-31T00:00:00Z\n"))
    assert x.times.tolist() == [1596153600.25, 1596153600]


def test_names_of_columns_and_of_parts_are_taken_generously(tmp_path):
    """Spaces and case do not count; of several columns of one kind the best known comes first."""
    text = " User_ID ,ITEM_ID,split\nu,NULL,val\nu,NA,VALID\nu,,validation\nu,b,train\nu,c,test\n"
    x = Interactions.read(write(tmp_path, text.replace(",,", ",null,")))
    assert x.item_ids.tolist() == ["NA", "NULL", "b", "c", "null"] and sorted(x.splits.tolist()) == [0, 1, 1, 1, 2]


def test_parquet_numbers_and_timestamps(tmp_path):
    table = {"user_id": [7, 8], "item_id": [1, 2], "timestamp": pa.array([1_000_000, 2_000_000], pa.timestamp("us"))}
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "i.parquet")
    x = Interactions.read(tmp_path / "i.parquet")
    assert pairs_of(x) == [("7", "1"), ("8", "2")] and x.times.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("i.csv", "user_id,thing\na,b\n", "no item_id column; it has user_id, thing"),
        ("i.csv", "", "is empty"),
        ("i.csv", "user_id,item_id,split\na,b,train\na,c,tset\n", "line 3: split is 'tset'"),
        ("i.csv.gz", None, "cut short or damaged"),
        ("i.parquet", b"PAR1 is not enough", "not a readable Parquet"),
        ("i.xlsx", b"x", "no reader for '.xlsx'"),
    ],
)
def test_malformed_files_are_refused_with_the_line(tmp_path, name, content, words):
    if content is None:
        whole = gzip.compress(b"user_id,item_id\n" + b"".join(b"u%d,i%d\n" % (n, n) for n in range(9000)))
        (tmp_path / name).write_bytes(whole[:9000])
    elif name.endswith(".gz"):
        write(tmp_path, content, name)
    else:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(VbprError) as caught:
        read_all(tmp_path / name)
    assert words in str(caught.value) and name in str(caught.value)


TIMES = [
    "",
    "NaT",
    "today",
    "now",
    "inf",
    "-inf",
    "1e400",
    "nan",
    "soon",
    " ",
    "2020-13-01",
    "+today",
    "300000-01-01",
    "99999999999-01-01",
]


@pytest.mark.parametrize("among", ["5", "2020-01-01"])  # Arrow reads numbers; dates are read one at a time
@pytest.mark.parametrize("time", TIMES)
def test_what_is_no_time_is_refused_with_its_line(tmp_path, time, among):
    path = write(tmp_path, f"user_id,item_id,timestamp\na,x,{among}\na,y,{time}\na,z,{among}\n")
    with pytest.raises(VbprError, match=rf"line 3: timestamp is {re.escape(repr(time) if time else 'empty')}; a time"):
        read_all(path)


@pytest.mark.parametrize(
    "before",
    [
        "\n\n",
        'a,x,5,"a\nb"\n',
        'a,x,5,"\n\n"\n\n',
        "\ra,x,5,\r",
        "\u2028,\x0b\x0c\x1c\x85,5,\n",
        f"a,x,5,{'n' * 200_000}\n",
    ],
)
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("u,i,soon", "timestamp is 'soon'"),
        (",i,5", "user_id is empty"),
        ("u,i", "3 fields where the header has 4"),
        ("u,\udcff,5", "not UTF-8"),
        ("u\0,i,5", r"user_id is 'u\x00'; an id is"),
        ("u,i\0,5", r"item_id is 'i\x00'; an id is"),
        (
            'u,"i\nv,i",5',
            r"item_id is 'i\nv,i'; an id is text or a whole number that its type keeps exactly, without a NUL or",
        ),
    ],
)
def test_lines_are_counted_as_an_editor_counts_them(tmp_path, before, row, words):
    text = f"user_id,item_id,timestamp,note\n{before}"
    line = len(re.findall("\r|\n", text)) + 1
    with pytest.raises(VbprError) as caught:
        read_all(write(tmp_path, f"{text}{row},\nv,j,7,\n".encode("utf-8", "surrogateescape")))
    assert f"line {line}: {words}" in str(caught.value)


def test_a_quote_that_is_never_closed_is_named(tmp_path):
    rows = "".join(f"u{n},i{n}\n" for n in range(300_000))
    with pytest.raises(VbprError, match=r"line 3: .*is a quote never closed"):
        Interactions.read(write(tmp_path, f'user_id,item_id\na,b\n"c,d\n{rows}'))


def test_other_columns_may_have_line_breaks_wherever_they_lie(tmp_path):
    rows = "".join(f'u{n},{n % 7},"a\nb"\n' for n in range(200_000))
    assert len(Interactions.read(write(tmp_path, f"user_id,item_id,note\n{rows}")).user_ids) == 200_000


def test_a_gzip_bomb_of_good_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vbpr.data.tables.BOMB", 2**20)
    path = write(tmp_path, b"user_id,item_id\n" + b"u,i\n" * 10**6, "i.csv.gz")
    with pytest.raises(VbprError, match=r"i\.csv\.gz inflates to more than 200 times its [\d,]+ bytes"):
        Interactions.read(path)
    rows = b"".join(b"u%d,i%d\n" % (n % 9973, n % 7919) for n in range(300_000))
    assert len(Interactions.read(write(tmp_path, b"user_id,item_id\n" + rows, "j.csv.gz"))) == 300_000


@pytest.mark.parametrize(("head", "line"), [(b"", 1), (b"user_id,item_id\na,b\n", 3)])
def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, head, line):
    path = write(tmp_path, head + b"x" * 2**26, "i.csv.gz")
    tracemalloc.start()
    try:
        with pytest.raises(VbprError, match=rf"i\.csv\.gz, line {line} is longer than"):
            Interactions.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_file_that_fills_the_memory_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise pa.ArrowMemoryError("malloc of size 1 failed")

    monkeypatch.setattr(pyarrow.csv, "read_csv", full)
    with pytest.raises(VbprError, match=r"interactions\.csv: out of memory"):
        Interactions.read(write(tmp_path, "user_id,item_id\na,b\n"))


ROW = {"user_id": ["a", "b"], "item_id": ["x", "y"]}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"timestamp": ["2020-01-01", None]}, "row 2: timestamp is empty"),
        ({"timestamp": pa.array([5, None], pa.timestamp("us"))}, "row 2: timestamp is empty"),
        ({"timestamp": pa.array([1, 2], pa.time64("us"))}, "column timestamp (time64[us]) cannot be read"),
        ({"timestamp": [{"s": 1}, {"s": 2}]}, "column timestamp (struct<s: int64>) cannot be read"),
        ({"timestamp": pa.array(["soon"] * 2).dictionary_encode()}, "row 1: timestamp is 'soon'"),
        ({"user_id": ["a", "b" * 1001]}, "row 2: user_id is 'bbb"),
        ({"user_id": [["a"], ["b"]]}, "column user_id (list<"),
        ({"item_id": [b"x", b"\xff"]}, "column item_id (binary) cannot be read"),
        ({"item_id": pa.array([b"x", b"\xff"]).view(pa.string())}, "column item_id (string) cannot be read"),
        ({"item_id": ["x", None]}, "row 2: item_id is empty"),
        ({"user_id": ["a", "a\0"]}, r"row 2: user_id is 'a\x00'"),
        ({"split": [["train"], ["test"]]}, "column split (list<"),
        ({"split": ["train", None]}, "row 2: split is empty"),
    ],
)
def test_parquet_columns_of_other_types_are_refused_by_name(tmp_path, changed, words):
    pyarrow.parquet.write_table(pa.table(ROW | changed), tmp_path / "i.parquet")
    with pytest.raises(VbprError) as caught:
        read_all(tmp_path / "i.parquet")
    assert words in str(caught.value) and "i.parquet" in str(caught.value)


def test_categories_of_dates_and_offsets_are_read(tmp_path, recwarn):
    dates = pa.array(["2020-01-02", "2020-07-31T10:00:00+02:00"])
    for column in (dates, dates.dictionary_encode()):
        pyarrow.parquet.write_table(pa.table(ROW | {"timestamp": column}), tmp_path / "i.parquet")
        assert sorted(Interactions.read(tmp_path / "i.parquet").times) == [1577923200, 1596182400]
    assert not recwarn.list


def test_parquet_times_finer_than_a_microsecond_are_read(tmp_path):
    times = pa.array([1_000_000_001, 2_000_000_000], pa.timestamp("ns"))
    pyarrow.parquet.write_table(pa.table(ROW | {"timestamp": times}), tmp_path / "i.parquet")
    assert Interactions.read(tmp_path / "i.parquet").times.tolist() == [1, 2]


def write_columns(path, names, values):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table([[value] for value in values], names=names), path)
    else:
        path.write_text(",".join(f'"{name}"' for name in names) + "\n" + ",".join(values) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_items_are_read_under_names_in_any_case(tmp_path, suffix):
    names = ["Item_ID", " Title ", "Category", "code"]
    write_columns(tmp_path / f"items{suffix}", names, ["007", "A hat", "Hats", "01"])
    assert Dataset(tmp_path).items() == {"title": {"007": "A hat"}, "category": {"007": "Hats"}, "code": {"007": "01"}}
    write_columns(tmp_path / f"items{suffix}", ["product_id", "item_id", "title"], ["P1", "007", "A cap"])
    os.utime(tmp_path / f"items{suffix}", (1, 1))
    assert Dataset(tmp_path).items()["title"] == {"007": "A cap"}  # read again, by the id that interactions have


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("name", ["title", "Title", "item_id"])
def test_two_columns_of_one_name_are_refused(tmp_path, suffix, name):
    write_columns(tmp_path / f"items{suffix}", ["item_id", "title", name], ["a", "b", "c"])
    with pytest.raises(VbprError, match=rf"items{suffix} has two columns called '{name.lower()}'; rename"):
        Dataset(tmp_path).items()
    path = write_columns(tmp_path / f"i{suffix}", ["user_id", "item_id", "user_id"], ["a", "b", "c"])
    with pytest.raises(VbprError, match=rf"i{suffix} has two columns called 'user_id'; rename or remove one"):
        Interactions.read(path)


@pytest.mark.parametrize(
    "values", [{"item_id": [["a"]]}, {"item_id": pa.array([b"\xff"]).view(pa.string())}, {"item_id": [b"\xff"]}]
)
def test_a_table_of_items_with_other_ids_is_refused(tmp_path, values):
    pyarrow.parquet.write_table(pa.table({"title": ["a"]} | values), tmp_path / "items.parquet")
    with pytest.raises(VbprError, match=r"items\.parquet cannot be read"):
        Dataset(tmp_path).items()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("interactions.csv", "interactions.parquet"),
        ("interactions.csv", "interactions.tsv"),
        ("interactions.csv", "interactions.csv.gz"),
        ("a.inter", "b.inter"),
        ("items.parquet", "items.csv"),
        ("items.csv", "items.tsv"),
    ],
)
def test_two_tables_for_one_are_refused(tmp_path, first, second):
    for name in (first, second):
        (tmp_path / name).write_text("user_id,item_id\na,b\n")
    data = Dataset(tmp_path)
    with pytest.raises(VbprError, match=rf"has {first} and {second}; move one away"):
        data.items() if "items" in first else data.interactions()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(VbprError, match="does not exist"):
        Interactions.read(tmp_path / "none.csv")


events = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12), st.integers(0, 50)), min_size=1, max_size=120)


def made(rows):
    users, items, times = zip(*rows, strict=True)
    return Interactions.of([f"u{u}" for u in users], [f"i{i}" for i in items], times)


@settings(max_examples=80, deadline=None)
@given(events, st.sampled_from(["random", "time"]), st.integers(1, 6), st.integers(0, 3))
def test_leave_one_out_invariants(rows, how, least, seed):
    x = made(rows)
    degree = np.bincount(x.users)
    kept = degree >= max(3, least)
    if not kept.any():
        with pytest.raises(VbprError, match="--min-interactions"):
            Split.make(x, SplitConfig(how, least, seed=seed))
        return
    s = Split.make(x, SplitConfig(how, least, seed=seed), catalogue=np.array(["i0", "new"]))
    assert s.user_ids.tolist() == x.user_ids[kept].tolist() and s.dropped_users == (~kept).sum()
    assert (np.diff(s.test.indptr) == 1).all() and (np.diff(s.validation.indptr) == 1).all()
    assert (s.train + s.validation + s.test).max() == 1  # disjoint
    assert s.observed.nnz == degree[kept].sum()
    assert {"new", "i0"} <= set(s.item_ids) and s.item_counts.sum() == s.train.nnz
    users, items = s.observed.nonzero()
    told = set(zip(s.user_ids[users].tolist(), s.item_ids[items].tolist(), strict=True))
    assert told <= set(pairs_of(x))
    again = Split.make(x, SplitConfig(how, least, seed=seed), catalogue=np.array(["i0", "new"]))
    assert (s.test != again.test).nnz == 0
    if how == "time":
        when = dict(zip(pairs_of(x), x.times, strict=True))
        for u, user in enumerate(s.user_ids):
            last = [when[user, s.item_ids[part[u].indices[0]]] for part in (s.validation, s.test)]
            assert max(when[user, s.item_ids[i]] for i in s.train[u].indices) <= last[0] <= last[1]


def test_random_split_is_uniform_over_a_users_items():
    x = Interactions.of(["u"] * 5, list("abcde"))
    held = [Split.make(x, SplitConfig("random", seed=s)).test.indices[0] for s in range(400)]
    assert np.bincount(held, minlength=5).min() > 45


def test_global_time_split_is_by_time():
    x = made([(n % 4, n % 13, n) for n in range(50)])
    s = Split.make(x, SplitConfig("global-time"))
    when = np.zeros((len(s.user_ids), len(s.item_ids)))
    when[x.users, x.items] = x.times
    latest = [when[part.nonzero()].max() for part in (s.train, s.validation, s.test)]
    earliest = [when[part.nonzero()].min() for part in (s.train, s.validation, s.test)]
    assert latest[0] < earliest[1] <= latest[1] < earliest[2]
    assert [part.nnz for part in (s.train, s.validation, s.test)] == [40, 5, 5]
    edge = made([(n, n, n) for n in range(11)])  # events at 8 and 9 are the tenths' very ends: they belong before
    s = Split.make(edge, SplitConfig("global-time"))
    assert [part.nnz for part in (s.train, s.validation, s.test)] == [9, 1, 1]


@pytest.mark.parametrize(
    ("moments", "parts"),
    [
        ([1] * 50 + [2] * 30 + [3] * 8 + [4] * 12, [80, 8, 12]),
        ([1] * 75 + [2] * 25, [75, 0, 25]),  # the last moment holds more than a tenth
        ([1] * 60 + [2] * 15 + [3] * 25, [60, 15, 25]),
        ([1] * 99 + [2], [99, 0, 1]),
        ([1] + [2] * 89 + [3] * 10, [90, 0, 10]),  # validation on 89 would be further off than none
    ],
)
def test_global_time_cuts_between_moments_as_near_to_tenths_as_they_allow(moments, parts):
    x = made([(n % 10, n // 10, when) for n, when in enumerate(moments)])
    s = Split.make(x, SplitConfig("global-time"))
    assert [part.nnz for part in (s.train, s.validation, s.test)] == parts
    with pytest.raises(VbprError, match="two moments"):
        Split.make(made([(0, n, 7) for n in range(6)]), SplitConfig("global-time"))


def test_none_trains_on_everything_and_leaves_nobody_out():
    x = Interactions.of(["a", "a", "b"], list("xyz"), splits=[0, 2, 1])
    s = Split.make(x, SplitConfig("none"))
    assert s.train.nnz == 3 and not s.validation.nnz and not s.test.nnz and not s.dropped_users


def test_events_of_one_moment_are_held_out_by_the_seed():
    x = made([(0, n, 7) for n in range(6)])
    held = {int(Split.make(x, SplitConfig("time", seed=seed)).test.indices[0]) for seed in range(40)}
    assert held == set(range(6))


@pytest.mark.parametrize("codes", [[0, 0, 0], [2, 2, 2]])
def test_a_split_without_training_or_without_test_is_refused(codes):
    with pytest.raises(VbprError, match="interactions to train on and"):
        Split.make(Interactions.of(list("abc"), list("xyz"), splits=codes))


def test_the_files_own_split_is_followed(tmp_path):
    text = "user_id,item_id,x_label\nu,a,train\nu,b,Valid\nu,c,test\nv,a,train\n"
    x = Interactions.read(write(tmp_path, text))
    s = Split.make(x)
    assert s.rule == "the file's own split column"
    assert [m.nnz for m in (s.train, s.validation, s.test)] == [2, 1, 1]
    assert Split.make(made([(0, i, i) for i in range(5)])).rule.startswith("leave one out at random")


@settings(max_examples=60, deadline=None)
@given(events, st.integers(1, 4))
def test_k_core_is_the_largest_part_with_k_each(rows, k):
    x = made(rows)
    alive = set(pairs_of(x))
    while True:  # the definition, one deletion round at a time
        users, items = zip(*alive, strict=True) if alive else ((), ())
        keep = {(u, i) for u, i in alive if users.count(u) >= k and items.count(i) >= k}
        if keep == alive:
            break
        alive = keep
    if alive:
        assert set(pairs_of(x.k_core(k))) == alive
    else:
        with pytest.raises(VbprError, match="--k-core"):
            x.k_core(k)


def test_a_split_may_begin_with_the_k_core():
    crowd = [(u, i, 0) for u in range(6) for i in range(6)]
    x = made([*crowd, (7, 0, 0), (7, 8, 0), (7, 9, 0)])  # a user of three items, two of them nobody else's
    s = Split.make(x, SplitConfig(min_interactions=3, k_core=3))
    assert s.rule.startswith("3-core; leave one out at random") and s.dropped_users == 1
    assert len(s.user_ids) == len(s.item_ids) == 6
    assert len(Split.make(x, SplitConfig(min_interactions=3)).item_ids) == 8
    with_features = Split.make(x, SplitConfig(min_interactions=3, k_core=3), catalogue=np.array(["i8", "i9", "new"]))
    assert with_features.item_ids.tolist() == [
        *(f"i{n}" for n in range(6)),
        "new",
    ]  # i8 and i9 were taken: nobody is to be offered them


@pytest.mark.parametrize(
    ("how", "words"), [("time", "timestamp column"), ("file", "split column"), ("chronological", "choose from")]
)
def test_splits_that_the_file_cannot_give_are_refused(how, words):
    x = Interactions.of(["u"] * 5, list("abcde"))
    with pytest.raises(VbprError, match=words):
        Split.make(x, SplitConfig(how))


@pytest.mark.parametrize("rule", ["global-time", "file", "none"])
def test_an_option_that_a_split_does_not_look_at_is_refused(rule):
    x = Interactions.of(["u"] * 20, range(20), times=range(20), splits=[0] * 18 + [1, 2])
    assert Split.make(x, SplitConfig(rule, k_core=1)).test.nnz or rule == "none"
    with pytest.raises(VbprError, match=f"--min-interactions does nothing for --split {rule}; .*--k-core"):
        Split.make(x, SplitConfig(rule, min_interactions=6))
    with pytest.raises(VbprError, match=f"--split-seed does nothing for --split {rule}"):
        Split.make(x, SplitConfig(rule, seed=3))
    assert Split.make(x, SplitConfig(min_interactions=6)).rule == "the file's own split column"  # chosen for the user


def test_no_interactions_are_refused():
    with pytest.raises(VbprError, match="no interactions"):
        Interactions.of([], [])


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_header_alone_is_no_table(tmp_path, end):
    with pytest.raises(VbprError, match=r"i\.csv has a header but no rows"):
        Interactions.read(write(tmp_path, f"user_id,item_id{end}".encode(), "i.csv"))


def test_a_split_of_any_matrices_is_the_split_of_ones():
    """Counts, stored zeros, columns in any order, other types: what is not 0 was taken."""
    rng = np.random.default_rng(0)
    dense = np.zeros((3, 8, 20), int)
    for user in range(8):
        order = rng.permutation(20)
        dense[0, user, order[:5]], dense[1, user, order[5]], dense[2, user, order[6]] = 1, 1, 1
    users, items = np.arange(8).astype(str), np.arange(20).astype(str)
    plain = Split(users, items, *(sp.csr_matrix(part.astype(np.float32)) for part in dense))
    turned = [sp.csr_matrix(part[:, ::-1])[:, np.arange(20)[::-1]] for part in dense]
    assert not turned[0].has_sorted_indices
    for others in (turned, list(dense), [sp.coo_matrix(p) for p in dense], [sp.csc_matrix(p * 7) for p in dense]):
        split = Split(users.tolist(), items.tolist(), *others)
        for name in ("train", "validation", "test"):
            found, wanted = getattr(split, name), getattr(plain, name)
            assert found.dtype == np.float32 and found.has_sorted_indices and (found.data == 1).all()
            np.testing.assert_array_equal(found.indptr, wanted.indptr)
            np.testing.assert_array_equal(found.indices, wanted.indices)
        assert split.user_ids.dtype.kind == split.item_ids.dtype.kind == "U"
    zeros = sp.csr_matrix((np.array([0.0, 2.0]), [3, 5], [0, 2, *[2] * 7]), shape=(8, 20))
    assert Split(users, items, zeros, *2 * [sp.csr_matrix((8, 20))]).train.indices.tolist() == [5]
    with pytest.raises(VbprError, match=r"test is a matrix of \(8, 19\) for 8 users and 20 items"):
        Split(users, items, dense[0], dense[1], dense[2][:, :19])
    with pytest.raises(VbprError, match=r"40 interactions are in train and in test \(first: user 0, item"):
        Split(users, items, dense[0], dense[1], dense[0])
    pivot = np.where(dense[0], 1.0, np.nan)  # as pandas leaves what nobody took
    with pytest.raises(VbprError, match="train holds numbers that are not finite; put 0"):
        Split(users, items, pivot, dense[1], dense[2])
    with pytest.raises(VbprError, match="item_ids has '3' twice"):
        Split(users, np.where(items == "7", "3", items), *dense)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"users": ["a", None]}, "event 1 has None for its user id"),
        ({"items": [1.0, np.nan]}, "event 1 has .*nan.* for its item id"),
        ({"users": ["", "b"]}, "event 0 has .* for its user id"),
        ({"users": np.array(["a\0", "b"], object)}, "event 0 has"),
        ({"users": ["a\0", "a"]}, "event 0 has"),
        ({"items": [b"x", b"\xff"]}, "no letter; decode them from UTF-8"),
        ({"items": ["x", "\ud800"]}, "no letter"),
        ({"items": [1.5, 2.0]}, "event 0 has .*1.5.* for its item id"),
        ({"items": [2.0, 1e17]}, "event 1 has"),
        ({"users": [["a", "b"]]}, "have 2 dimensions"),
        ({"items": ["x"]}, "2 users, 1 items"),
        ({"times": [1.0, np.nan]}, "event 1 has no time"),
        ({"times": ["yesterday", "now"]}, "times cannot be read"),
        ({"times": np.array(["2020-07-31", "NaT"], "datetime64[s]")}, "event 1 has no time"),
        ({"times": [1.0]}, "1 times"),
        ({"splits": [0, 3]}, "0 .train., 1 .validation. and 2 .test."),
        ({"splits": [0.0, 1.5]}, "0 .train."),
        ({"splits": ["train", "test"]}, "0 .train."),
    ],
)
def test_events_that_are_none_are_refused(columns, words):
    with pytest.raises(VbprError, match=words):
        Interactions.of(**{"users": ["a", "b"], "items": ["x", "y"]} | columns)


def test_dates_are_seconds_and_texts_are_ids_whatever_they_say():
    dates = np.array(["2020-07-31", "1969-12-31T23:59:59.5"], "datetime64[ns]")
    found = Interactions.of(["nan", "None"], ["007", "1.0"], dates)
    assert found.user_ids.tolist() == ["None", "nan"] and found.item_ids.tolist() == ["007", "1.0"]
    assert found.times.tolist() == [-0.5, 1596153600.0]


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, object, "S"])
def test_ids_have_one_name_however_they_come(tmp_path, kind):
    """A column of whole numbers becomes one of floats where pandas meets a missing one."""
    names = np.array([10, 7, 12]).astype(kind)
    assert Interactions.of(names, names).item_ids.tolist() == ["10", "12", "7"]
    if kind != "S":
        pyarrow.parquet.write_table(
            pa.table({"user_id": list("abc"), "item_id": names.tolist()}), tmp_path / "i.parquet"
        )
        assert Interactions.read(tmp_path / "i.parquet").item_ids.tolist() == ["10", "12", "7"]


def test_floats_that_are_no_ids_are_refused_with_their_row(tmp_path):
    pyarrow.parquet.write_table(pa.table({"user_id": list("ab"), "item_id": [1.0, 2.5]}), tmp_path / "i.parquet")
    with pytest.raises(VbprError, match=r"row 2: item_id is '2.5'; an id is text or a whole number"):
        Interactions.read(tmp_path / "i.parquet")


def test_a_year_among_dates_is_no_second(tmp_path):
    path = write(tmp_path, "user_id,item_id,timestamp\na,x,2019-07-31\na,y,2020\n")
    with pytest.raises(VbprError, match=r"line 3: timestamp is '2020'; a time is .* alike"):
        read_all(path)


@pytest.mark.parametrize("values", [{"seed": -1}, {"k_core": -1}, {"min_interactions": 0}])
def test_impossible_ways_to_split_are_refused(values):
    with pytest.raises(VbprError, match="must be at least"):
        SplitConfig(**values)


@pytest.mark.parametrize("keep", ["mask", "positions", "repeated"])
def test_selecting_is_building_anew_from_what_is_kept(keep):
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 12, 80).astype(str), rng.integers(0, 40, 80).astype(str)
    whole = Interactions.of(users, items, rng.random(80), rng.integers(0, 3, 80))
    mask = rng.random(len(whole)) < 0.3
    chosen = {"mask": mask, "positions": rng.permutation(np.flatnonzero(mask)), "repeated": [7, 3, 3, 7, 60]}[keep]
    some = whole.select(chosen)
    at = np.unique(np.arange(len(whole))[chosen])
    columns = (whole.user_ids[whole.users[at]], whole.item_ids[whole.items[at]], whole.times[at], whole.splits[at])
    twin = Interactions.of(*columns)
    assert len(some) == len(at) and len(some.item_ids) < len(whole.item_ids)
    for name in ("user_ids", "item_ids", "users", "items", "times", "splits"):
        np.testing.assert_array_equal(getattr(some, name), getattr(twin, name))
        assert getattr(some, name).dtype.kind == getattr(twin, name).dtype.kind
    with pytest.raises(VbprError, match="no interaction is selected"):
        whole.select([])


def test_whole_numbers_among_objects_are_one_id():
    x = Interactions.of(np.array([1, 1.0, "1", np.float32(2)], object), ["a", "b", "c", "d"])
    assert x.user_ids.tolist() == ["1", "2"]
    for bad in (1.5, np.float32("nan"), np.inf):
        with pytest.raises(VbprError, match="event 1 has "):
            Interactions.of(np.array([1, bad], object), ["a", "b"])


def test_whole_numbers_are_one_id_in_a_table_of_items_too(tmp_path):
    """As floats, where pandas met a missing one: they must be those of the interactions."""
    pyarrow.parquet.write_table(pa.table({"item_id": [1e10, 2.0], "title": ["a", "b"]}), tmp_path / "items.parquet")
    assert Dataset(tmp_path).items()["title"] == {"10000000000": "a", "2": "b"}


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.dictionary(pa.int32(), pa.float32())])
def test_ids_that_a_narrow_float_may_have_rounded_are_refused(tmp_path, kind):
    """2**24 + 1 is no float32, and reads as its neighbour: two items would be one."""
    dtype = np.float16 if kind == pa.float16() else np.float32
    largest = 2 ** (np.finfo(dtype).nmant + 1)
    values = pa.array(np.array([largest - 2, largest, 3], dtype))
    values = values.dictionary_encode() if pa.types.is_dictionary(kind) else values
    table = {"user_id": ["a", "b", "c"], "item_id": values}
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "i.parquet")
    with pytest.raises(VbprError, match=r"i\.parquet, row 2: item_id is"):
        Interactions.read(tmp_path / "i.parquet")


def test_what_arrow_finds_at_no_index_is_a_damaged_file(tmp_path, monkeypatch):
    pyarrow.parquet.write_table(pa.table({"user_id": ["a"], "item_id": ["x"]}), tmp_path / "i.parquet")
    (tmp_path / "items.parquet").write_bytes((tmp_path / "i.parquet").read_bytes())

    def broken(*_, **__):
        raise pa.lib.ArrowIndexError("Index 15 out of bounds")

    monkeypatch.setattr("pyarrow.parquet.ParquetFile.iter_batches", broken)
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.read", broken)
    with pytest.raises(VbprError, match=r"i\.parquet is not a readable Parquet file .Index 15"):
        Interactions.read(tmp_path / "i.parquet")
    with pytest.raises(VbprError, match=r"items\.parquet cannot be read .Index 15.*; or take it away"):
        Dataset(tmp_path).items()


@pytest.mark.parametrize(("text", "said"), [
    (b"item_id,title\na,b\nc,d,e\n", "line 3: 3 fields where the header has 2; mend or remove the line; or take"),
    (b"item_id,title\na,caf\xe9\n", "line 2: not UTF-8 text"),
    (b"", "items.csv is empty; give it a header"),
    (b"item_id,title\na," + b"x" * 3 * 2**20 + b"\n", "line 2 is longer than 1,048,576 characters"),
])  # fmt: skip
def test_a_fault_in_a_table_of_items_is_told_with_its_line(tmp_path, text, said):
    (tmp_path / "items.csv").write_bytes(text)
    with pytest.raises(VbprError, match=re.escape(said)):
        Dataset(tmp_path).items()


def test_items_that_are_there_twice_are_told_and_texts_are_as_ids_are(tmp_path, capsys):
    lines = ["item_id,category", "a,E\u0301te\u0301", "b, Dress ", "a,Coat"]
    (tmp_path / "items.csv").write_text("\n".join(lines), encoding="utf-8")
    assert Dataset(tmp_path).items()["category"] == {"a": "Coat", "b": "Dress"}
    assert "has 1 item more than once; the last line of each counts" in " ".join(capsys.readouterr().err.split())
    lines.pop()
    (tmp_path / "items.csv").write_text("\n".join(lines), encoding="utf-8")
    items, ids = Dataset(tmp_path).items(), np.array(["a", "b"])
    for asked in ("\u00c9t\u00e9", "e\u0301te\u0301 "):
        assert allowed(ids, items, asked).tolist() == [True, False]


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_tables_of_other_delimiters_than_their_names_say_are_read(tmp_path, sign):
    """Where decimals have a comma, programs write such a `.csv`."""
    rows = [["Kunde", "user_id", "sku", "price"], ["x", "a", "007", "19,99"], ["y", "b", "8", "1"]]
    (tmp_path / "interactions.csv").write_text("\n".join(sign.join(row) for row in rows))
    found = Dataset(tmp_path).interactions()
    assert found.user_ids.tolist() == ["a", "b"] and found.item_ids.tolist() == ["007", "8"]
    (tmp_path / "items.csv").write_text(
        sign.join(["sku", "prod_name", "Product type"]) + "\n" + sign.join(["8", "A, b", "Hat"])
    )
    items = Dataset(tmp_path).items()
    assert items["title"] == items["prod_name"] == {"8": "A, b"} and items["category"] == items["product type"] == {
        "8": "Hat"
    }
    (tmp_path / "interactions.csv").write_text(sign.join(["user_id", "item_id", "price"]) + "\n" + sign.join("ab"))
    with pytest.raises(VbprError, match="line 2: 2 fields where the header has 3"):
        Dataset(tmp_path).interactions()


def test_which_of_several_columns_is_taken_is_told(tmp_path, capsys):
    (tmp_path / "interactions.csv").write_text("customer_id,sku,product_id\na,1,2\n")
    assert Dataset(tmp_path).interactions().item_ids.tolist() == ["2"]
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "product_id is taken for the item_id, and sku left alone" in said
        and "customer" not in said.split("note:")[1].split(":")[1]
    )


def test_what_might_be_the_interactions_is_named(tmp_path):
    (tmp_path / "orders_export.csv").write_text("user_id,item_id\na,b\n")
    (tmp_path / "items.csv").write_text("item_id\nb\n")
    with pytest.raises(VbprError, match=r"there is orders_export\.csv: rename it"):
        Dataset(tmp_path).interactions()


@pytest.mark.parametrize(
    "text", ["2020-07-31 10:00:00 UTC", "2020-07-31T10:00:00Z", "2020-07-31 10:00:00", "1596189600"]
)
def test_times_as_data_bases_write_them(tmp_path, text):
    (tmp_path / "interactions.csv").write_text(f"user_id,item_id,time\na,b,{text}\n")
    assert Dataset(tmp_path).interactions().times.tolist() == [1596189600]
