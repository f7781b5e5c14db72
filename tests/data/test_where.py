"""`--where` chooses the rows that a plain reading of the expression chooses, and says what is wrong with it."""

import operator
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vbpr import Dataset, Interactions, Split, VbprError
from vbpr.data.expression import Parser
from vbpr.data.readers import blocks
from vbpr.data.where import Rows

VALUES = {"n": [*range(-2, 4)], "word": ["a", "b", "it's"], "day": ["2020-01-01", "2020-06-01", "2021-01-01"]}
SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "==": operator.eq}
SIGNS |= {"!=": operator.ne, "<>": operator.ne}


def a_test(rng):
    """(text, row -> True, False or None), which is SQL's unknown."""
    name = rng.choice(sorted(VALUES))
    value, sign = rng.choice(VALUES[name]), rng.choice(sorted(SIGNS))
    shown = "'" + value.replace("'", "''") + "'" if name == "word" else str(value)
    how, negative = rng.choice(["sign", "turned", "in", "null"]), rng.random() < 0.5
    if how == "null":
        return f"{name} is {'not ' * negative}null", lambda row: (row[name] is None) != negative
    if how == "in":
        text = f"{name} {'NOT ' * negative}in ({shown}, {shown})"
        return text, lambda row: None if row[name] is None else (row[name] == value) != negative
    if how == "turned":
        return f"{shown} {sign} {name}", lambda row: None if row[name] is None else SIGNS[sign](value, row[name])
    return f"{name}{sign}{shown}", lambda row: None if row[name] is None else SIGNS[sign](row[name], value)


def an_expression(rng, depth):
    how = rng.choice(["test", "and", "or", "not"]) if depth else "test"
    if how == "test":
        return a_test(rng)
    a = an_expression(rng, depth - 1)
    if how == "not":
        return f"not ({a[0]})", lambda row: None if a[1](row) is None else not a[1](row)
    b, decides = an_expression(rng, depth - 1), how == "or"

    def value(row):
        values = (a[1](row), b[1](row))
        return decides if decides in values else None if None in values else not decides

    return f"({a[0]}) {how} ({b[0]})", value


@pytest.mark.parametrize("kind", ["csv", "text", "typed"])
def test_an_expression_chooses_what_it_says(tmp_path, monkeypatch, kind):
    """In tables of text and in Parquet of texts and of numbers and dates, in blocks of any size."""
    rng, path = random.Random(kind), tmp_path / ("i.csv" if kind == "csv" else "i.parquet")
    for _ in range(60):
        rows = [
            {name: rng.choice([None, *values]) for name, values in VALUES.items()} for _ in range(rng.randint(1, 9))
        ]
        text, chosen = an_expression(rng, 3)
        table = {"user_id": [f"u{at}" for at in range(len(rows))], "item_id": ["i"] * len(rows)}
        table |= {name: [row[name] for row in rows] for name in rows[0]}
        if kind == "csv":
            lines = zip(*table.values(), strict=True)
            shown = [",".join("" if value is None else str(value) for value in row) for row in lines]
            path.write_text("\n".join([",".join(table), *shown]) + "\n")
        else:
            kinds = {"n": pa.int32(), "day": pa.timestamp("ms")} if kind == "typed" else {}
            columns = {name: pa.array(of, pa.int64() if name == "n" else pa.string()) for name, of in table.items()}
            columns = {name: column.cast(kinds.get(name, pa.string())) for name, column in columns.items()}
            pq.write_table(pa.table(columns), path)
        wanted = [f"u{at}" for at, row in enumerate(rows) if chosen(row)]
        monkeypatch.setattr(blocks, "BLOCK", rng.randint(60, 400))
        if wanted:
            assert sorted(Interactions.read(path, Rows(text)).user_ids) == sorted(wanted), text
        else:
            with pytest.raises(VbprError, match=f"none of its {len(rows)} row"):
                Interactions.read(path, Rows(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quantity >", "a column or a value is expected at its end"),
        ("quantity > 0 and", "a column or a value is expected at its end"),
        ("country = France", r"a value \(a text stands in quotes\) is expected at character 11, where 'France' stands"),
        ("quantity 5", "a comparison, `in` or `is null` is expected at character 10"),
        ("(quantity > 5", r"`\)` is expected at its end"),
        ("quantity > 5)", r"`and`, `or` or the end is expected at character 13, where '\)' stands"),
        ("quantity in 5", r"`\(` is expected"),
        ("quantity in (5, 'a')", "a value of the same kind is expected at character 17"),
        ("5 < 6", "a column is expected"),
        ("__import__('os').system('x')", r"\.system.* cannot be read"),
        ("quantity > 5; drop", "'; drop' cannot be read"),
        ("day > 2020-13-45", "2020-13-45 is no date"),
        ("(" * 60 + "a > 1" + ")" * 60, "nested more than 50 deep"),
        ("not " * 5000 + "a > 1", "nested more than 50 deep"),
    ],
)
def test_what_is_no_expression_is_refused_where_it_ends_to_be_one(text, words):
    with pytest.raises(VbprError, match=words):
        Parser(text)


TABLE = "user_id,item_id,Quantity,Unit Price,stars,country\n" + "".join(
    f"u{n % 3},i{n},{n - 2},{n}.5,{n % 6},{'France' if n % 2 else ''}\n" for n in range(12)
)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("quantty > 0", r"has no column quantty \(did you mean Quantity\?\); it has user_id, item_id"),
        ("country > 5", "line 3: country is 'France', and it is compared with a number"),
        ("country > 2020-01-01", "line 3: country is 'France', and --where compares it with a date"),
        ("quantity > 99", "rows where quantity > 99 are none of its 12 rows"),
    ],
)
def test_what_no_row_can_be_chosen_by_is_told(tmp_path, where, words):
    (tmp_path / "interactions.csv").write_text(TABLE)
    with pytest.raises(VbprError, match=words):
        Interactions.read(tmp_path / "interactions.csv", Rows(where))


def test_names_are_taken_as_everywhere_and_backticks_hold_any(tmp_path):
    (tmp_path / "interactions.csv").write_text(TABLE)
    read = lambda *how: set(Dataset.resolve(tmp_path, rows=Rows(*how)).interactions().item_ids)  # noqa: E731
    assert read("QUANTITY>8") == {"i11"} and read("`unit price` >= 10.5") == {"i10", "i11"}
    assert read("", 5) == {"i5", "i11"} and read("quantity > 5", 5) == {"i11"}
    assert read("country is null and quantity >= 8") == {"i10"} and len(read("not country != 'France'")) == 6


def test_a_fault_after_rows_that_are_left_out_has_its_own_line(tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,item_id,n\na,i,0\n,i,0\nb,i,1\n,j,1\n")
    with pytest.raises(VbprError, match="line 5: user_id is empty"):
        Interactions.read(tmp_path / "interactions.csv", Rows("n = 1"))
    with pytest.raises(VbprError, match="line 3: user_id is empty"):
        Interactions.read(tmp_path / "interactions.csv")
    assert len(Interactions.read(tmp_path / "interactions.csv", Rows("n = 1 and item_id = 'i'"))) == 1


def test_the_rule_of_the_split_says_which_rows_are_read_and_returns_are_told(tmp_path, capsys):
    (tmp_path / "interactions.csv").write_text(TABLE + TABLE[TABLE.index("u0") :].replace(",i", ",j"))
    whole, some = (
        Split.make(Dataset.resolve(tmp_path, rows=Rows(*how)).interactions()) for how in ((), ("quantity > 0", 1))
    )
    assert some.rule == "rows where (rating >= 1) and (quantity > 0); " + whole.rule
    told = " ".join(capsys.readouterr().err.split())
    assert "6 rows with Quantity <= 0 are returns and no purchase; leave such out by --where 'Quantity > 0'" in told
    assert told.count("are returns") == 1 and "rows where (rating >= 1) and (quantity > 0): 16 of 24 rows" in told


def test_dates_with_the_day_first_are_so_in_every_block(tmp_path, monkeypatch):
    """The first row alone could be the second of January."""
    monkeypatch.setattr(blocks, "BLOCK", 40)
    rows = [f"u{n},i,{n + 1}/2/2020" for n in range(20)]
    (tmp_path / "i.csv").write_text("\n".join(["user_id,item_id,date", *rows]) + "\n")
    x = Interactions.read(tmp_path / "i.csv", Rows("date > 2020-02-10"))
    assert set(x.user_ids) == {f"u{n}" for n in range(10, 20)}
