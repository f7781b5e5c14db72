"""The lists of everyone by workers are the table of one process, and parts that are done are not made again."""

import dataclasses
import json

import pytest

from vbpr import Factors
from vbpr.answers import everyone
from vbpr.answers import lists as chunks
from vbpr.answers.recommend import recommend_to_many
from vbpr.base.stopping import Stopped
from vbpr.executors.local import Local


@pytest.fixture
def workers(monkeypatch):
    """In the place of a cluster a crew in this process; it counts what it is given."""
    given = []

    class Here(Local):
        def run(self, parts, stopping=lambda: False):
            for number, part, result in super().run(parts, stopping):
                given.append(part.tolist())
                yield number, part, result

    monkeypatch.setattr(everyone, "hired", lambda cluster, job: Here(cluster, job))
    monkeypatch.setattr(everyone, "CHUNK", 5)
    monkeypatch.setattr(chunks, "CHUNK", 5)
    return given


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("how", [{}, {"held_out": "test"}, {"seen": True, "k": 3}, {"new": 1, "wide": True}, "some"])
def test_the_table_is_that_of_one_process(board_model, tmp_path, workers, suffix, how):
    alone, shared = tmp_path / f"alone.{suffix}", tmp_path / f"shared.{suffix}"
    if how == "some":
        (tmp_path / "users.txt").write_text("\n".join(["nobody", *Factors.load(board_model).user_ids[3:17], "none"]))
        how = {"users": tmp_path / "users.txt", "fallback": True}
    told = recommend_to_many(board_model, alone, **how)
    found = recommend_to_many(board_model, shared, cluster="local", **how)
    assert shared.read_bytes() == alone.read_bytes()
    assert dataclasses.replace(found, seconds=0) == dataclasses.replace(told, seconds=0)
    assert sum(map(len, workers)) == told.queries and not list(tmp_path.glob("*.parts"))


def test_a_killed_command_goes_on_with_the_parts_that_are_sound(board_model, tmp_path, workers, monkeypatch):
    out, alone = tmp_path / "all.parquet", tmp_path / "alone.parquet"
    recommend_to_many(board_model, alone)
    write, killed = everyone.Parts.write, []

    def fatal(self, number, lists):
        if number == 3 and not killed:
            killed.append(number)
            raise KeyboardInterrupt
        write(self, number, lists)

    monkeypatch.setattr(everyone.Parts, "write", fatal)
    with pytest.raises(KeyboardInterrupt):
        recommend_to_many(board_model, out, cluster="local")
    folder = tmp_path / "all.parquet.parts"
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["part"] for line in lines[1:]] == [0, 1, 2] and not out.exists()
    (folder / "000001.parquet").write_bytes(b"PAR1 rotten")
    (folder / "manifest.jsonl").write_text("\n".join(lines) + '\n{"part": 3, "dig')  # as a full disk leaves it
    workers.clear()
    recommend_to_many(board_model, out, cluster="local")
    assert out.read_bytes() == alone.read_bytes() and not folder.exists()
    ids = Factors.load(board_model).user_ids.tolist()
    assert workers == [ids[5:10], *(ids[a : a + 5] for a in range(15, len(ids), 5))]


def test_parts_of_another_request_are_made_anew(board_model, tmp_path, workers, monkeypatch):
    out = tmp_path / "all.parquet"
    monkeypatch.setattr(everyone.Parts, "read", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    for k, count in ((10, None), (10, 0), (4, None)):  # anew, nothing left to do, anew
        workers.clear()
        with pytest.raises(KeyboardInterrupt):
            recommend_to_many(board_model, out, k=k, cluster="local")
        assert (sum(map(len, workers)) == 0) is (count == 0)


def test_a_stop_keeps_the_parts_that_are_done(board_model, tmp_path, workers, monkeypatch):
    class Once:
        def __enter__(self):
            return lambda: len(workers) > 1

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(everyone, "stop_signals", Once)
    with pytest.raises(Stopped, match="run the same command again"):
        recommend_to_many(board_model, tmp_path / "all.csv", cluster="local")
    assert len(list((tmp_path / "all.csv.parts").glob("*.parquet"))) == 2


def test_what_lies_in_the_folder_of_parts_is_not_taken_away(board_model, tmp_path, refused):
    (tmp_path / "all.csv.parts").mkdir()
    (tmp_path / "all.csv.parts" / "diary.txt").write_text("mine")
    out = tmp_path / "all.csv"
    assert "holds something else" in refused("recommend", board_model, "--all", "--out", out, "--cluster", "local")
    assert "--cluster is for --users and --all" in refused(
        "recommend", board_model, "--user", "u", "--cluster", "local"
    )


def test_a_worker_that_sees_another_model_is_no_help(board_model, tmp_path):
    job = everyone.ListsJob(str(board_model), "other", None, everyone.Wishes())
    with pytest.raises(everyone.VbprError, match="it sees another model"):
        job.begin(everyone.Place())
