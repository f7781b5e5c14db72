"""What is exported holds the very numbers and pairs, by readers of others, and read back it is the same."""

import csv
import json
import uuid

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from safetensors import safe_open

from conftest import PROVENANCE
from postgres import POSTGRES, Postgres
from vbpr import Dataset, Factors, Split
from vbpr.answers.exporters import SPLITS, VECTORS
from vbpr.answers.nearest import Nearest
from vbpr.data.split import SplitConfig
from vbpr.extraction.importers.importing import import_features
from vbpr.stores.features.store import FeatureStore

USERS, ITEMS, K = 23, 41, 5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random factors, whose ids need care: quotes, commas, zeros in front, letters that are not ASCII."""
    rng = np.random.default_rng(0)
    item_ids = np.sort([*(f"0{n:03d}" for n in range(ITEMS - 3)), 'say "x"', "a, b", "blåbær's"])
    user_ids = np.sort([f"u/{n}" for n in range(USERS)])
    part = rng.integers(0, 12, (USERS, ITEMS))
    parts = [sp.csr_matrix((part == n).astype(np.float32)) for n in range(3)]
    numbers = [rng.normal(size=shape).astype(np.float32) for shape in ((USERS, K), (ITEMS, K), (ITEMS,))]
    path = tmp_path_factory.mktemp("random") / "random.model.h5"
    Factors(*numbers, user_ids, item_ids, *parts, about={"model": "vbpr"}).save(path)
    return path


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A feature file whose numbers were scaled, with a row that failed."""
    folder = tmp_path_factory.mktemp("features")
    rows = np.random.default_rng(1).normal(size=(ITEMS, 7)) * 1e6
    rows[5] = np.nan
    np.save(folder / "x.npy", rows)
    (folder / "ids.txt").write_text("".join(f"0{n:03d}\n" for n in range(ITEMS)))
    import_features(folder / "x.npy", folder / "x.h5", ids=str(folder / "ids.txt"))
    return folder / "x.h5"


def lines(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def npy(folder):
    users = np.load(folder / "users.npy"), np.load(folder / "bias.npy"), lines(folder / "user_ids.txt")
    return lines(folder / "item_ids.txt"), np.load(folder / "items.npy"), *users


def parquet(folder):
    items, users = pq.read_table(folder / "items.parquet"), pq.read_table(folder / "users.parquet")
    assert items.schema.field("vector").type.list_size == K
    vectors = [np.array(table["vector"].to_pylist(), np.float32) for table in (items, users)]
    ids = items["item_id"].to_pylist(), users["user_id"].to_pylist()
    return ids[0], vectors[0], vectors[1], np.array(items["bias"].to_pylist(), np.float32), ids[1]


def safetensors(folder):
    with safe_open(folder / "vectors.safetensors", "np") as handle:
        items, users, bias = (handle.get_tensor(name) for name in ("items", "users", "bias"))
    return lines(folder / "item_ids.txt"), items, users, bias, lines(folder / "user_ids.txt")


def with_bias(ids, items, users, user_ids):
    """Vectors whose last number is the bias of an item, and 1 of a user."""
    assert (users[:, -1] == 1).all()
    return ids, items[:, :-1], users[:, :-1], items[:, -1], user_ids


def index(folder):
    found = faiss.read_index(str(folder / "items.faiss"))
    assert found.metric_type == faiss.METRIC_INNER_PRODUCT
    users = np.load(folder / "users.npy")
    return with_bias(lines(folder / "item_ids.txt"), found.reconstruct_n(), users, lines(folder / "user_ids.txt"))


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def pgvector(folder):
    items, users = read_csv(folder / "items.csv"), read_csv(folder / "users.csv")
    assert [int(row["n"]) for row in items] == list(range(len(items)))
    vectors = [np.array([json.loads(row["vector"]) for row in rows], np.float32) for rows in (items, users)]
    return with_bias([row["item_id"] for row in items], *vectors, [row["user_id"] for row in users])


def qdrant(folder):
    points, users = ([json.loads(line) for line in lines(folder / f"{name}.jsonl")] for name in ("points", "users"))
    assert len({uuid.UUID(point["id"]) for point in points}) == len(points)
    assert json.loads((folder / "collection.json").read_text()) == {"vectors": {"size": K + 1, "distance": "Dot"}}
    vectors = [np.array([row["vector"] for row in rows], np.float32) for rows in (points, users)]
    return with_bias([p["payload"]["item_id"] for p in points], *vectors, [user["user_id"] for user in users])


READERS = {"npy": npy, "parquet": parquet, "safetensors": safetensors}
READERS |= {"faiss": index, "pgvector": pgvector, "qdrant": qdrant}


def export(cli, *words):
    code, out, err = cli("export", *words)
    assert code == 0, err
    return out


def test_every_exporter_is_tested():
    assert set(READERS) == set(VECTORS) and set(PARSERS) == set(SPLITS)


@pytest.mark.parametrize("kind", READERS)
def test_vectors_of_a_model_are_its_very_numbers(model, tmp_path, cli, kind):
    export(cli, model, "--to", kind, "--out", tmp_path / "out")
    factors = Factors.load(model)
    item_ids, items, users, bias, user_ids = READERS[kind](tmp_path / "out")
    assert item_ids == factors.item_ids.tolist() and user_ids == factors.user_ids.tolist()
    for exported, own in ((items, factors.items), (users, factors.users), (bias, factors.bias)):
        assert exported.dtype == np.float32
        np.testing.assert_array_equal(exported, own)


def test_rows_of_a_feature_file_leave_as_their_maker_had_them_and_come_back_the_same(features, tmp_path, cli):
    store = FeatureStore(features)
    own = np.asarray(store.features[store.done], np.float32) / np.float32(store.provenance["scale"])
    for kind in ("npy", "parquet", "safetensors"):
        export(cli, features, "--to", kind, "--out", tmp_path / kind)
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "items.npy"), own)
    table = pq.read_table(tmp_path / "parquet" / "items.parquet")
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), own)
    ids = str(tmp_path / "npy" / "item_ids.txt")
    assert lines(tmp_path / "npy" / "item_ids.txt") == store.item_ids[store.done].tolist()
    for n, (name, given) in enumerate(
        (("npy/items.npy", ids), ("parquet", ""), ("safetensors/vectors.safetensors", ids))
    ):
        import_features(tmp_path / name, tmp_path / f"{n}.h5", ids=given)
        back = FeatureStore(tmp_path / f"{n}.h5")
        assert back.provenance["scale"] == store.provenance["scale"]
        np.testing.assert_array_equal(back.rows(store.item_ids[store.done]), store.features[store.done])


@pytest.mark.parametrize("kind", ["faiss", "qdrant"])
def test_exported_features_have_the_neighbours_that_similar_finds(features, tmp_path, cli, kind):
    export(cli, features, "--to", kind, "--out", tmp_path / "out")
    if kind == "faiss":
        vectors = faiss.read_index(str(tmp_path / "out" / "items.faiss")).reconstruct_n()
        ids = lines(tmp_path / "out" / "item_ids.txt")
    else:
        points = [json.loads(line) for line in lines(tmp_path / "out" / "points.jsonl")]
        vectors, ids = np.array([p["vector"] for p in points]), [p["payload"]["item_id"] for p in points]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        assert json.loads((tmp_path / "out" / "collection.json").read_text())["vectors"]["distance"] == "Cosine"
    near = Nearest.of(features)
    order = np.argsort(-(vectors @ vectors.T), 1)[:, :6]
    for n, name in enumerate(ids):
        found = near.search(near.query_item(name), 5, leave_out=name)
        assert [ids[i] for i in order[n] if i != n][:5] == [item for item, _ in found]


def recommended(model, k=10):
    """By the equation, in float64: user id -> [(item id, score)]."""
    factors = Factors.load(model)
    scores = factors.users.astype(float) @ factors.items.T.astype(float) + factors.bias
    scores[factors.seen.toarray() > 0] = -np.inf
    best = np.argsort(-scores, 1)[:, :k]
    return {
        str(user): [(str(factors.item_ids[i]), scores[n, i]) for i in best[n]]
        for n, user in enumerate(factors.user_ids)
    }


def agree(found, wanted):
    assert [item for item, _ in found] == [item for item, _ in wanted]
    np.testing.assert_allclose([float(s) for _, s in found], [s for _, s in wanted], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["faiss", "qdrant"])
def test_largest_inner_products_without_what_is_seen_are_the_recommendations(model, tmp_path, cli, kind):
    export(cli, model, "--to", kind, "--out", tmp_path / "out")
    factors, wanted = Factors.load(model), recommended(model)
    own = {
        user: list(zip(factors.item_ids[at], scores, strict=True))
        for user in wanted
        for at, scores in [factors.recommend(user)]
    }
    if kind == "faiss":
        ids, queries = lines(tmp_path / "out" / "item_ids.txt"), np.load(tmp_path / "out" / "users.npy")
        scores, rows = faiss.read_index(str(tmp_path / "out" / "items.faiss")).search(queries, ITEMS)
        seen = {user: set(factors.item_ids[factors.seen_by(user_at)]) for user_at, user in enumerate(wanted)}
        listed = {
            user: [(ids[i], s) for i, s in zip(rows[n], scores[n], strict=True) if ids[i] not in seen[user]][:10]
            for n, user in enumerate(lines(tmp_path / "out" / "user_ids.txt"))
        }
    else:
        points, users = (
            [json.loads(line) for line in lines(tmp_path / "out" / f"{name}.jsonl")] for name in ("points", "users")
        )
        listed = {}
        for user in users:
            free = [p for p in points if p["id"] not in user["seen"]]
            scored = [(p["payload"]["item_id"], float(np.dot(p["vector"], user["vector"]))) for p in free]
            listed[user["user_id"]] = sorted(scored, key=lambda pair: -pair[1])[:10]
    for user, pairs in wanted.items():
        agree(listed[user], pairs)
        agree(own[user], pairs)


@pytest.mark.skipif(POSTGRES is None, reason="needs PostgreSQL with pgvector (apt, or pip install pgserver)")
def test_a_real_postgresql_recommends_as_vbpr_does(model, features, tmp_path, cli):
    for source, name in ((model, "model"), (features, "features")):
        export(cli, source, "--to", "pgvector", "--out", tmp_path / name)
    wanted, near = recommended(model), Nearest.of(features)
    asked = "SELECT u.user_id, r.* FROM vbpr_users u, vbpr_recommend(u.user_id, 10) r"
    with Postgres() as server:
        for _ in range(2):  # an export that is loaded again replaces the tables
            server.run("-f", "load.sql", cwd=tmp_path / "model")
        rows = server.run("-c", asked)
        for user, pairs in wanted.items():
            agree([(item, score) for who, item, score in rows if who == user], pairs)
        assert server.run("-c", "SELECT * FROM vbpr_recommend('nobody', 3)") == []
        server.run("-f", "index.sql", cwd=tmp_path / "model")
        plan = server.run("-c", "SET enable_seqscan = off", "-c", "EXPLAIN SELECT * FROM vbpr_recommend('u/0', 3)")
        assert any("vbpr_items_vector_idx" in line[0] for line in plan), plan
        server.run("-f", "load.sql", "-f", "index.sql", cwd=tmp_path / "features")
        server.run("-c", "DROP INDEX vbpr_items_vector_idx")
        for item in ("0000", "0017"):
            agree(
                server.run("-c", f"SELECT * FROM vbpr_similar('{item}', 5)"),
                near.search(near.query_item(item), 5, leave_out=item),
            )


# ---------------------------------------------------------------------------------------------------- splits


def table(path):
    return [line.split("\t") for line in lines(path)]


def recbole(folder):
    parts = [table(folder / f"{folder.name}.{word}.inter") for word in ("train", "valid", "test")]
    assert all(part[0][:2] == ["user_id:token", "item_id:token"] for part in parts)
    items = [name for (name,) in table(folder / f"{folder.name}.item")]
    assert items[0] == "item_id:token"
    return [part[1:] for part in parts], items[1:]


def mmrec(folder):
    head, *rows = table(folder / f"{folder.name}.inter")
    assert head == ["userID", "itemID", "rating", "timestamp", "x_label"]
    users, items = ({n: name for name, n in table(folder / f"{who}_id_mapping.csv")[1:]} for who in "ui")
    assert [int(n) for n in items] == list(range(len(items)))
    taken = {int(row[1]) for row in rows}
    assert taken == set(range(len(taken)))  # its catalogue ends at the highest number
    parts = [[[users[u], items[i], t] for u, i, _, t, label in rows if label == str(part)] for part in range(3)]
    return parts, list(items.values())


def triples(folder):
    parts = [table(folder / f"{word}.tsv") for word in ("train", "validation", "test")]
    assert all(row[2] == "1.0" for part in parts for row in part)
    return [[[*row[:2], *row[3:]] for row in part] for part in parts], lines(folder / "item_ids.txt")


PARSERS = {"recbole": recbole, "mmrec": mmrec, "elliot": triples, "cornac": triples}


def pairs_of(split):
    """Each part as a set of (user, item)."""
    return [
        {(str(split.user_ids[u]), str(split.item_ids[i])) for u, i in zip(*matrix.nonzero(), strict=True)}
        for matrix in (split.train, split.validation, split.test)
    ]


@pytest.mark.parametrize("kind", PARSERS)
def test_the_split_of_a_model_is_the_same_to_the_row_and_so_it_is_read_back(board_model, tmp_path, cli, kind):
    folder = tmp_path / "board"
    export(cli, board_model, "--to", kind, "--out", folder)
    factors = Factors.load(board_model)
    parts, items = PARSERS[kind](folder)
    own = pairs_of(factors)
    for part, wanted in zip(parts, own, strict=True):
        assert len(part) == len(wanted) and {(row[0], row[1]) for row in part} == wanted
    assert sorted(items) == factors.item_ids.tolist()
    if kind == "mmrec":  # of the numbers, by its maps
        return
    back = Split.make(Dataset.resolve(folder).interactions(), SplitConfig("file"), catalogue=factors.item_ids)
    assert pairs_of(back) == own
    assert back.item_ids.tolist() == factors.item_ids.tolist() and back.user_ids.tolist() == factors.user_ids.tolist()


@pytest.fixture
def data(tmp_path):
    """Interactions with times, of users and items in no order."""
    rng = np.random.default_rng(2)
    pairs = {(int(u), int(i)): 1_600_000_000 + n for n, (u, i) in enumerate(rng.integers(0, 30, (500, 2)))}
    (tmp_path / "data").mkdir()
    rows = [f"u{u},0{i},{t}.5" for (u, i), t in pairs.items()]
    (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    return tmp_path / "data"


@pytest.mark.parametrize("kind", PARSERS)
def test_the_split_of_a_data_set_has_its_times_and_features(data, tmp_path, cli, kind):
    folder, rows = tmp_path / "peer", np.random.default_rng(3).normal(size=(33, 4)).astype(np.float16)
    ids = [f"0{n}" for n in range(33)]  # three items that nobody took
    with FeatureStore.create(tmp_path / "x.h5", ids, np.ones(33, np.uint64), 4, PROVENANCE) as store:
        store.write(np.arange(33), rows)
    words = ["--split", "time", "--k-core", "3", "--features", tmp_path / "x.h5"]
    export(cli, data, "--to", kind, "--out", folder, *words)
    interactions = Dataset.resolve(data).interactions()
    split = Split.make(interactions, SplitConfig("time", k_core=3), catalogue=np.array(ids))
    parts, items = PARSERS[kind](folder)
    assert [{(row[0], row[1]) for row in part} for part in parts] == pairs_of(split)
    assert sorted(items) == split.item_ids.tolist()
    when = {
        (str(interactions.user_ids[u]), str(interactions.item_ids[i])): t
        for u, i, t in zip(interactions.users, interactions.items, interactions.times, strict=True)
    }
    assert all(float(t) == when[user, item] for part in parts for user, item, t in part)
    exported = np.load(folder / ("image_feat.npy" if kind == "mmrec" else "features.npy"))
    np.testing.assert_array_equal(exported, rows[[ids.index(name) for name in items]])


def test_a_model_without_vectors_leaves_as_its_bias(tmp_path, cli, model):
    old = Factors.load(model)
    nothing = np.empty((USERS, 0), np.float32), np.empty((ITEMS, 0), np.float32)
    Factors(*nothing, old.bias, old.user_ids, old.item_ids, old.train, old.validation, old.test).save(tmp_path / "m.h5")
    for kind in VECTORS:
        export(cli, tmp_path / "m.h5", "--to", kind, "--out", tmp_path / kind)
    found = faiss.read_index(str(tmp_path / "faiss" / "items.faiss"))
    np.testing.assert_array_equal(found.reconstruct_n()[:, 0], old.bias)


def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else(model, tmp_path, cli, refused, monkeypatch):
    export(cli, model, "--to", "npy", "--out", tmp_path / "out")
    export(cli, model, "--to", "faiss", "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "items.npy").exists()
    monkeypatch.setattr(
        "vbpr.answers.exporters.vectors.write_ids", lambda *of: (_ for _ in ()).throw(OSError(28, "full"))
    )
    assert "could not be written" in refused("export", model, "--to", "npy", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "items.faiss").exists() and [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    assert "holds other files" in refused("export", model, "--to", "npy", "--out", tmp_path / "mine")
    assert "no folder" in refused("export", model, "--to", "npy", "--out", tmp_path / "mine" / "x")


def test_what_has_no_vectors_or_no_split_says_so(model, features, data, tmp_path, refused):
    out = ["--out", tmp_path / "out"]
    assert "did you mean pgvector" in refused("export", model, "--to", "pgvectors", *out)
    assert "no vectors" in refused("export", data, "--to", "npy", *out)
    assert "has no split" in refused("export", features, "--to", "recbole", *out)
    assert "its own split" in refused("export", model, "--to", "recbole", "--split", "time", *out)
    assert "--features" in refused("export", model, "--to", "npy", "--features", features, *out)
    (data / "interactions.csv").write_text("user_id,item_id\n" + "".join(f'u,"""{n}"\n' for n in range(9)))
    assert "quote sign" in refused("export", data, "--to", "elliot", *out)
    assert not (tmp_path / "out").exists()
