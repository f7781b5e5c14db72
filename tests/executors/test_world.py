"""Several processes that share the images of one extraction: the same file, and an end that all of them hear of."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from torch.distributed import HashStore

from conftest import PROVENANCE, ROOT, TINY, board_items
from vbpr import Dataset, FeatureStore, VbprError, extract
from vbpr.base.locks import joined, lock_of, locked
from vbpr.executors.world import World
from vbpr.extraction.processes import own_gpu
from vbpr.stores.features.layout import BLOCK


def words(data, out):
    return ["extract", "--backbone", TINY, "--random-weights", "--engine", "torch", "--data", data, "--out", out]


def start(datas, out, how=()):
    """As many processes as there are data sets, as torchrun would start them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    where = os.environ | {"WORLD_SIZE": str(len(datas)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "vbpr", *words(data, out), *how],
            env=where | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, data in enumerate(datas)
    ]


def ended(processes):
    """(exit code, standard output, standard error) of each."""
    told = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *said) for process, said in zip(processes, told, strict=True)]


def resumed(data, out):
    """Rows that this process, alone, adds to what several have left."""
    done = extract(Dataset.resolve(data), TINY, out, random_weights=True, engine="torch", device="cpu")
    store = FeatureStore(out).finished()
    assert store.verify() == [] and store.sealed_rows() == len(store)
    return done.written


def at_work(catalogue, out):
    """(1,320 images, two processes that have each written some of their features to `out`)."""
    images = {f"{n}-{name}": image for n in range(60) for name, image in board_items().items()}
    data = catalogue(images, [("u", "0-red-00")])
    running = start([data] * 2, out, ("--batch", "4"))
    while not (out.exists() and FeatureStore(out).state.reshape(2, -1).any(1).all()):
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
    return data, running


@pytest.mark.slow
def test_processes_make_the_file_that_one_makes(catalogue, board_features, tmp_path):
    out, data = tmp_path / "f.h5", catalogue(name="board")  # the file says what its data set is called
    (first, *rest) = ended(start([data] * 3, out))
    assert first[0] == 0 and "22 of 22 items of board have features; 22 written now" in first[1]
    assert [end[:2] for end in rest] == [(0, "")] * 2
    whole = FeatureStore(board_features)
    shared = FeatureStore(out).finished()
    assert np.array_equal(shared.features, whole.features) and np.array_equal(shared.state, whole.state)
    assert shared.sealed_rows() == len(shared) and shared.verify() == []
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    (data / "images" / "bad.png").write_bytes(b"<html>")
    (data / "images" / "one.png").write_bytes(board_items()["red-01"])
    first, second = ended(start([data] * 2, out))  # one row for each
    assert first[0] == second[0] == 0 and second[1] == ""
    assert "23 of 24 items of board have features; 1 written now" in first[1] and "not an image (bad)" in first[1]
    first, second = ended(start([data] * 2, out))
    assert "0 written now" in first[1] and second[:2] == (0, "")


@pytest.mark.slow
def test_a_process_that_sees_other_images_stops_them_all(catalogue, tmp_path):
    data = catalogue()
    other = catalogue({"red-00": board_items()["red-00"]}, [("u", "red-00")], name="other")
    (first, *_), (second, _, error) = ended(start([data, other], tmp_path / "f.h5"))
    assert (first, second) == (2, 2)
    assert "other/images or the weights change while they are read" in " ".join(error.split())
    assert resumed(data, tmp_path / "f.h5") == 22


@pytest.mark.slow
def test_what_the_first_refuses_ends_the_others(catalogue, tmp_path):
    (tmp_path / "f.h5").write_bytes(b"mine")
    (first, _, error), (second, _, heard) = ended(start([catalogue()] * 2, tmp_path / "f.h5"))
    assert (first, second) == (2, 2) and "is no file of vbpr" in " ".join(error.split())
    assert (tmp_path / "f.h5").read_bytes() == b"mine" and heard.count("\n") < 5


@pytest.mark.slow
def test_stopped_they_keep_what_is_done_and_resume(catalogue, tmp_path):
    data, running = at_work(catalogue, out := tmp_path / "f.h5")
    for process in running:
        process.send_signal(signal.SIGTERM)
    (first, _, error), (second, *_) = ended(running)
    assert (first, second) == (130, 130) and "of 1,320 items in" in error and "again to resume" in error
    kept = len(FeatureStore(out).done)
    assert 0 < kept < 1320
    assert resumed(data, out) == 1320 - kept


@pytest.mark.slow
def test_where_one_is_killed_the_other_ends_and_says_so(catalogue, tmp_path):
    data, running = at_work(catalogue, out := tmp_path / "f.h5")
    running[1].kill()
    code, _, error = ended(running)[0]
    assert code == 2 and "run the same command again to resume" in error and "frame #" not in error
    kept = len(FeatureStore(out).done)
    assert resumed(data, out) == 1320 - kept


@pytest.mark.slow
def test_torchrun_starts_them(board, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, f"{ROOT}/cli.py", *words(board, tmp_path / "f.h5")], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("items of board have features") == 1 and "22 written now" in done.stdout


def test_what_does_not_share_its_work_is_refused_under_torchrun(refused, monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2")
    assert "only vbpr extract shares its work" in refused("train", "--features", "f.h5")


def test_blocks_that_several_have_filled_get_their_digests(tmp_path):
    n, out = 2 * BLOCK + 100, tmp_path / "f.h5"
    ids, features = np.array([f"i{k}" for k in range(n)]), np.random.default_rng(0).random((n, 3), np.float32)

    def create(path):
        return FeatureStore.create(path, ids, np.ones(n, np.uint64), 3, PROVENANCE)

    with create(tmp_path / "alone.h5") as store:
        store.write(np.arange(n), features)
    with pytest.raises(VbprError, match="is not shared any more"), FeatureStore.join(out):
        pass
    with create(out) as store:
        with pytest.raises(VbprError, match="is not shared any more"), FeatureStore.join(out):
            pass
        store.admit()
        rows = np.array_split(np.arange(n), 2)  # the block in the middle is of both
        with FeatureStore.join(out) as other:
            other.write(rows[1], features[rows[1]])
            assert other.sealed_rows() == 100
            with pytest.raises(VbprError, match="in use by pid"), create(out):
                pass
        store.write(rows[0], features[rows[0]])
        assert store.sealed_rows() == BLOCK
        store.gather()
        assert store.sealed_rows() == n and not len(store.pending)
    assert out.read_bytes() == (tmp_path / "alone.h5").read_bytes()
    assert not (tmp_path / ".f.h5.lock").exists()


def test_who_is_left_of_them_keeps_others_out(tmp_path):
    out, ids = tmp_path / "f.h5", np.array(["a"])

    def create():
        return FeatureStore.create(out, ids, np.ones(1, np.uint64), 3, PROVENANCE)

    with pytest.raises(KeyError), create() as store:
        store.admit()
        left = FeatureStore.join(out)
        left.__enter__()
        raise KeyError("the first one fails")
    with pytest.raises(VbprError, match="in use by pid"), locked(out):
        pass
    left.__exit__(None, None, None)
    assert not (tmp_path / ".f.h5.lock").exists()
    with create():
        pass


def both(first, second, store=None):
    """What two functions give, each with its World, at the same time."""
    store = HashStore() if store is None else store
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(work, World(rank, 2, store)) for rank, work in enumerate((first, second))]
        return [future.result(30) for future in asked]


def test_they_talk():
    long = ["x" * 1000, 1.5, None] * 4000  # torch's stores take 8 MB in one

    def first(world):
        with world:
            world.meet("start")
            made = world.once("long", lambda: long)
            world.tell("path", os.fsdecode(b"/\xff"))
            while world.count(0) < 7:
                pass
            return made

    def second(world):
        with world:
            world.meet("start")
            world.count(3), world.count(4)
            return world.once("long", pytest.fail), world.hear("path")

    assert both(first, second) == [long, (long, os.fsdecode(b"/\xff"))]


def test_one_that_fails_ends_the_waiting_of_the_other():
    def first(world):
        with pytest.raises(VbprError, match="another process of this run failed"), world:
            world.hear("what is never told")

    def second(world):
        with pytest.raises(KeyError), world:
            raise KeyError

    both(first, second)


def test_one_that_is_dead_ends_the_waiting_of_the_other():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        world = World(0, 2, HashStore())
        world.watch(1, other.pid)
        world.check()
        other.kill()
        while True:  # it stays a zombie here until it is waited for
            try:
                world.check()
            except VbprError as error:
                assert "process 1 of this run ended without a word" in str(error)
                break
        world.tell("end of 1")
        world.check()
    late = World(0, 2, HashStore())
    late.watch(1, other.pid)  # that has been waited for now
    with pytest.raises(VbprError, match="process 1 of this run ended without a word"):
        late.hear("what it never told")


def test_a_lock_that_is_another_runs_is_not_shared(tmp_path, monkeypatch):
    out, flock = tmp_path / "f.h5", fcntl.flock
    lock = lock_of(out)
    lock.write_text("old")

    def raced(handle, how):
        lock.unlink()  # its holder ends, and another run begins, just now
        lock.write_text("new")
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", raced)
    with pytest.raises(VbprError, match="is not shared any more"), joined(out):
        pass
    assert lock.read_text() == "new"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_every_row_is_somebodys(size):
    rows = np.arange(5, 30)
    parts = [World(rank, size).share(rows) for rank in range(size)]
    assert np.array_equal(np.concatenate(parts), rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("device", "there", "expected"),
    [("auto", 4, "cuda:1"), ("cuda", 4, "cuda:1"), ("auto", 2, "cuda:1"), ("cuda:3", 4, "cuda:3")]
    + [("cpu", 4, "cpu"), ("auto", 0, "auto"), ("cuda", 0, "cuda")],
)
def test_each_takes_a_gpu_of_its_own(monkeypatch, device, there, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    monkeypatch.setattr("torch.cuda.is_available", lambda: there > 0)
    monkeypatch.setattr("vbpr.compute.device.fault", lambda _: "")
    assert own_gpu(device, 5 if there == 4 else 1) == expected


def test_a_gpu_that_cannot_be_used_is_passed_over_where_that_may_be(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("vbpr.compute.device.fault", lambda index: "too old" if index == 1 else "")
    assert [own_gpu("auto", rank) for rank in range(4)] == ["cuda:0", "cpu", "cuda:0", "cpu"]
    assert own_gpu("cuda", 1) == "cuda:1"  # which is then refused


def test_one_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    world = World.here()
    assert (world.rank, world.size, world.first) == (0, 1, True)
    with world:
        assert world.once("x", lambda: 5) == 5 and world.count(3) == 3 and world.count(4) == 7
        world.tell("y", 1), world.meet("z"), world.check()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"RANK": "first"}, "RANK is 'first', no number"),
        ({"RANK": "2"}, "RANK is 2, of a WORLD_SIZE of 2"),
        ({"RANK": "-1"}, "RANK is -1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE of 0"),
        ({"LOCAL_WORLD_SIZE": "1"}, "over several machines"),
        ({"MASTER_PORT": "100000"}, "did not meet"),
        ({"RANK": "1"}, "did not meet.*timed out"),
        ({"WORLD_SIZE": "99999999999"}, "did not meet"),
    ],
)
def test_what_cannot_be_is_told(monkeypatch, told, message):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, told.get(name, value))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if "LOCAL_WORLD_SIZE" in told:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", told["LOCAL_WORLD_SIZE"])
    monkeypatch.setattr("vbpr.executors.world.PATIENCE", 1)
    with pytest.raises(VbprError, match=message):
        World.here()


@pytest.mark.slow
def test_who_waits_for_the_others_can_be_stopped(catalogue, tmp_path):
    waiting = start([catalogue()] * 2, tmp_path / "f.h5")
    waiting[1].kill()
    time.sleep(8)  # by then it has begun to wait
    waiting[0].send_signal(signal.SIGINT)
    before = time.monotonic()
    ((code, _, error), _) = ended(waiting)
    assert code == 130 and "run the same command again" in error and "Traceback" not in error
    assert time.monotonic() - before < 20
