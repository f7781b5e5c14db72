"""A table read block by block is the table read as a whole; of a pair's events the right one counts."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbpr import Interactions, VbprError
from vbpr.data.interactions import first_events
from vbpr.data.interning import Interner, strings
from vbpr.data.readers import blocks, delimited, text


def events_of(path):
    x = Interactions.read(path)
    columns = (x.user_ids[x.users], x.item_ids[x.items], x.times, x.splits)
    return [None if column is None else column.tolist() for column in columns]


FIELDS = st.sampled_from(["a", "bb", '"c"', '"d, e"', '"f\ng"', '5"', '"', '""', "é", " h ", '"i\tj"', "12", '"k""l"'])
TIMES = st.sampled_from(["5", "6.5", "2020-07-31", "1/2/2020", "", "soon"])


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS, TIMES, FIELDS), min_size=1, max_size=12),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    suffix=st.sampled_from([".csv", ".tsv", ".tsv.gz"]),
    size=st.integers(20, 90),
)
def test_blocks_of_any_size_are_read_as_the_whole_file_is(tmp_path_factory, rows, end, suffix, size):
    """Rows, notes of time and faults alike, wherever quotes stand and blocks end."""
    sign = "," if suffix == ".csv" else "\t"
    whole = end.join(sign.join(row) for row in [("user_id", "item_id", "timestamp", "note"), *rows]) + end
    path = tmp_path_factory.mktemp("blocks") / f"i{suffix}"
    path.write_bytes(gzip.compress(whole.encode()) if suffix.endswith("gz") else whole.encode())

    def outcome():
        try:
            return events_of(path)
        except VbprError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", size)
        streamed = outcome()
        patch.setattr(text, "text_blocks", lambda *_: (_ for _ in ()).throw(blocks.Unclear()))
        assert streamed == outcome()


def test_a_plain_table_is_read_in_blocks_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 64)
    monkeypatch.setattr(delimited, "load", None)
    rows = [(f"u{n % 7}", f'"i{n % 5}"', f"2020-01-{n % 28 + 1:02}") for n in range(300)]
    (tmp_path / "i.csv").write_text("".join(",".join(row) + "\n" for row in [("user", "item", "t_dat"), *rows]))
    users, items, times, _ = events_of(tmp_path / "i.csv")
    naive = {}
    for user, item, day in rows:
        pair, time = (user, item.strip('"')), int(np.datetime64(day, "s").astype(int))
        naive[pair] = min(time, naive.get(pair, time))
    assert dict(zip(zip(users, items, strict=True), times, strict=True)) == naive


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.none() | st.text("abé", max_size=2), max_size=6), max_size=6), st.booleans())
def test_an_interner_gives_back_what_it_was_given(given_blocks, coded):
    interner = Interner()
    for block in given_blocks:
        column = pa.array(block, pa.string())
        interner.add(pa.chunked_array([column.dictionary_encode() if coded else column]))
        interner.settle()
    places, names = interner.result()
    names = names.to_pylist()
    assert [None if place < 0 else names[place] for place in places] == [
        name for block in given_blocks for name in block
    ]
    assert len(set(names)) == len(names) and strings(pa.array(names, pa.string())).tolist() == names


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5), st.integers(0, 2)), min_size=1),
    st.sampled_from([1, 0.5, 86400, 2.0**40]),
    st.booleans(),
    st.booleans(),
)
def test_of_a_pair_the_first_event_of_the_first_part_counts(rows, unit, timed, parted):
    """Also where pair, part and time are too large for one number, or times are no whole seconds."""
    users, items, ticks, parts = np.array(rows).T
    times, splits = ticks * unit + 7, parts.astype(np.uint8)
    naive = {}
    for user, item, time, part in zip(users, items, times, splits, strict=True):
        event = (part if parted else 0, time if timed else 0)
        naive[user, item] = min(event, naive.get((user, item), event))
    for n_items in (5, 2**50):
        u, i, when, part = first_events(users, items, n_items, times if timed else None, splits if parted else None)
        assert list(zip(u, i, strict=True)) == sorted(naive)
        assert (when is None) == (not timed) and (part is None) == (not parted)
        for at, pair in enumerate(sorted(naive)):
            assert when is None or when[at] == naive[pair][1]
            assert part is None or part[at] == naive[pair][0]


def test_parquet_is_read_in_batches_whose_categories_may_differ(tmp_path, monkeypatch):
    monkeypatch.setattr("vbpr.data.readers.parquet.ROWS", 3)
    users = [f"u{n * 7 % 11}" for n in range(40)]
    table = pa.table({"user_id": pa.array(users).dictionary_encode(), "item_id": range(40), "time": range(40)})
    pq.write_table(table, tmp_path / "i.parquet", row_group_size=8)
    found = events_of(tmp_path / "i.parquet")
    assert sorted(zip(*found[:3], strict=True)) == sorted((user, str(n), n) for n, user in enumerate(users))
