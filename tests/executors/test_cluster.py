"""Real Ray clusters on this machine: the very results of one process, whatever dies, and nothing left running."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, TINY, board_items, environment
from vbpr import FeatureStore, VbprError
from vbpr.executors import hired

pytest.importorskip("ray")
sys.path.insert(0, str(ROOT / "tools"))

from nodes import Nodes, below, command_of
from toy import Squares


@pytest.fixture(scope="module")
def nodes():
    """Three nodes of one core, for tests that leave them as they are."""
    with several(3) as started:
        yield started


@contextlib.contextmanager
def several(count, *more, **options):
    """Nodes, none of whose processes is left at the end."""
    with Nodes(count, *more, **options, env=environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}) as started:
        yield started
        pids = below(started.process.pid)
    await_that(lambda: not [command_of(pid) for pid in pids if command_of(pid)])


def await_that(happens, patience=60):
    """Wait until something happens."""
    end = time.monotonic() + patience
    while not (happened := happens()):
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.02)
    return happened


def listening(pids):
    """Addresses that processes listen on, as the kernel writes them."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            inodes |= {str(f.readlink()) for f in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {words[1].split(":")[0] for words in lines if words[3] == "0A" and f"socket:[{words[9]}]" in inodes}


def squares(crew, count, **how):
    done = {}
    for _, part, result in crew.run(range(count), **how):
        assert part not in done
        done[part] = int(result[0])
    return done


EXPECTED = {n: n * n for n in range(12)}
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_a_cluster_of_ones_own_listens_on_loopback_alone_and_leaves_nothing(tmp_path):
    before = set(below(os.getpid()))
    with hired("local", Squares(str(tmp_path))) as crew:
        assert crew.about == {"kind": "squares"}
        pids = set(below(os.getpid())) - before
        assert squares(crew, 12) == EXPECTED
        heard = listening(pids)
        folders = list(Path("/tmp").glob(f"vbpr-ray-{crew.ray.pid}-*"))
    assert heard and heard <= LOOPBACK and len(folders) == 1
    assert [command_of(pid) for pid in pids if command_of(pid)] == [] and not folders[0].exists()


@pytest.mark.parametrize("address", ["", "10.0.0.1", "ray://10.0.0.1:10001", "auto", "10.0.0.1:x", "a b:1"])
def test_what_is_no_address_is_refused(refused, board, address):
    assert "give `local`, or HOST:PORT" in refused("extract", "--data", board, *WORDS, "--cluster", address)


WORDS = ("--backbone", TINY, "--random-weights", "--engine", "torch", "--out", "/tmp/never.h5")


def test_without_ray_one_sentence_says_how_to_install_it(refused, board, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "ray" else find(name, *a))
    assert "pip install 'vbpr[cluster]'" in refused("extract", "--data", board, *WORDS, "--cluster", "local")


def test_one_gpu_is_not_named_for_many_machines(refused, board):
    assert "names one GPU" in refused("extract", "--data", board, *WORDS, "--cluster", "local", "--device", "cuda:1")


def test_no_cluster_at_the_address(refused, board):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert f"no cluster answers at 127.0.0.1:{port}" in refused(
        "extract", "--data", board, *WORDS, "--cluster", f"127.0.0.1:{port}"
    )


@pytest.mark.slow
def test_a_worker_that_ends_takes_its_part_along_no_further(nodes, tmp_path):
    with hired(nodes.address, Squares(str(tmp_path), held=(5,))) as crew:
        done = {}
        for _, part, result in crew.run(range(12)):
            assert part not in done
            done[part] = int(result[0])
            if len(done) == 6:  # whoever has part 5 is killed, and so is who takes it up
                for _ in range(2):
                    (first,) = await_that(lambda: list(tmp_path.glob("part-5-*")))
                    first.unlink()
                    os.kill(int(first.name.split("-")[2]), signal.SIGKILL)
                (tmp_path / "go").touch()
        assert done == EXPECTED


@pytest.mark.slow
def test_a_part_that_ends_every_worker_ends_the_run_in_a_sentence(nodes, tmp_path):
    words = "one part of the work has ended 5 workers|ended 3 times without a result"
    with pytest.raises(VbprError, match=words), hired(nodes.address, Squares(str(tmp_path), fatal=(3,))) as crew:
        squares(crew, 12)


@pytest.mark.slow
def test_what_the_work_refuses_is_told_as_it_is(nodes, tmp_path):
    with (
        pytest.raises(VbprError, match=r"^7 has no square; give another$"),
        hired(nodes.address, Squares(str(tmp_path), wrong=(7,))) as crew,
    ):
        squares(crew, 12)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "why"), [("unfit", "it has no numbers"), ("later", "it has lost its numbers")])
def test_machines_that_cannot_are_named_and_the_last_one_ends_the_run(nodes, tmp_path, capsys, how, why):
    words = rf"no machine of the cluster can do this: .*\(127.0.0.1:\d+\).*{why}"
    with pytest.raises(VbprError, match=words), hired(nodes.address, Squares(str(tmp_path), **{how: True})) as crew:
        squares(crew, 12)
    assert capsys.readouterr().err.replace("\n", " ").count("is left out:") == 2


@pytest.mark.slow
def test_results_wait_where_they_were_made(nodes, tmp_path):
    """Each of 32 MB, object stores of 80: whatever the consumer does, few are ahead of it, and nothing is lost."""
    with hired(nodes.address, Squares(str(tmp_path), width=2**22)) as crew:
        taken, begun = 0, 0
        for _, part, result in crew.run(range(40)):
            taken += 1
            assert (result == part * part).all() and len(result) == 2**22
            begun = len(list(tmp_path.glob("part-*")))
            # in hand or done at each of three workers, and one on its way through each process
            assert begun <= taken + 3 * 2 + 2
        assert taken == begun == 40


@pytest.mark.slow
def test_who_stops_gets_what_is_in_hand(nodes, tmp_path):
    asked = []
    with hired(nodes.address, Squares(str(tmp_path), held=tuple(range(1, 12)))) as crew:
        done = {}
        for _, part, result in crew.run(range(12), lambda: bool(asked)):
            done[part] = int(result[0])
            asked.append(True)
    assert 1 <= len(done) <= 7 and all(EXPECTED[part] == square for part, square in done.items())


def words(data, out, *more):
    given = ["extract", "--backbone", TINY, "--random-weights", "--engine", "torch", "--device", "cpu"]
    return [*given, "--data", str(data), "--out", str(out), *more]


def command(*given, patience=30, **options):
    """A command in a process of its own."""
    code = f"import vbpr.executors.cluster as c; c.PATIENCE = {patience}; from vbpr.__main__ import main; main()"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, given)], env=environment(), **streams, **options)


@pytest.fixture
def many(catalogue):
    """1,320 images, so that there is time to disturb a run."""
    return catalogue(
        {f"{n}-{name}": image for n in range(60) for name, image in board_items().items()}, [("u", "0-red-00")]
    )


def alone(data, out):
    """The bytes of the file that one process makes."""
    done = command(*words(data, out))
    assert done.communicate()[1] is not None and done.returncode == 0
    return out.read_bytes()


def some_rows(out, running, before=0):
    """Wait until a run has written more rows than there were before."""
    await_that(lambda: running.poll() is not None or (out.exists() and len(FeatureStore(out).done) > before), 120)
    assert running.poll() is None, running.communicate()


@pytest.mark.slow
def test_a_cluster_makes_the_file_of_one_process_whatever_it_loses(many, tmp_path):
    """A worker and a raylet are killed, and a machine joins that sees no pictures, all in one run."""
    out = tmp_path / "f.h5"
    blind = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs none {many} && exec "$0" "$@"')
    mounts = os.getuid() == 0 and subprocess.run([*blind, "true"], capture_output=True).returncode == 0
    with several(3) as three:
        running = command(*words(many, out, "--batch", "4", "--cluster", three.address))
        some_rows(out, running)
        os.kill(three.workers()[0], signal.SIGKILL)
        three.kill(2)
        with several(1, "--join", three.address, before=blind) if mounts else contextlib.nullcontext():
            error = running.communicate(timeout=200)[1]
        assert running.returncode == 0, error
        said = " ".join(error.split())
        if mounts and "is left out" in said:
            assert "does not exist" in said or "no images found" in said
    assert out.read_bytes() == alone(many, tmp_path / "alone.h5")


@pytest.mark.slow
def test_killed_or_stopped_the_command_leaves_nothing_running_and_resumes(nodes, many, tmp_path):
    out, before = tmp_path / "f.h5", 0
    for number, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -9)):
        running = command(*words(many, out, "--batch", "4", "--cluster", nodes.address))
        some_rows(out, running, before)
        pids = below(running.pid)
        assert any("vbpr.executors.ray" in command_of(pid) for pid in pids)
        running.send_signal(number)
        error = running.communicate(timeout=100)[1]
        assert running.returncode == code, error
        await_that(lambda pids=pids: not [pid for pid in pids if command_of(pid)] and not nodes.workers())
        kept = len(FeatureStore(out).done)
        assert before < kept < 1320
        before = kept
    last = command(*words(many, out, "--cluster", nodes.address))
    assert "1,320 of 1,320" in last.communicate()[0]
    assert out.read_bytes() == alone(many, tmp_path / "alone.h5")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["gcs_server", "raylet"])
def test_a_head_that_dies_ends_the_command_in_a_sentence(many, tmp_path, what):
    out = tmp_path / "f.h5"
    with several(1) as one:
        running = command(*words(many, out, "--batch", "1", "--cluster", one.address), patience=1)
        some_rows(out, running)
        one.kill(0, what)
        error = running.communicate(timeout=100)[1]
    if running.returncode == 0:  # it was through before its workers noticed
        assert len(FeatureStore(out).done) == 1320 and FeatureStore(out).verify() == []
        return
    assert "run the same command again to resume" in " ".join(error.split()) and "Traceback" not in error
    assert running.returncode == 2 and FeatureStore(out).verify() == []


@pytest.mark.slow
def test_versions_that_differ_are_refused_by_name(board, tmp_path):
    """Ray's of a head, and vbpr's of a machine, which here only say that they are others."""
    fake = tmp_path / "fake" / "vbpr-9.9.9.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: vbpr\nVersion: 9.9.9\n")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "sitecustomize.py").write_text("import ray; ray.__version__ = '2.9.3'\n")
    for folder, pattern in (("fake", "it has vbpr 9.9.9, and this run is of"), ("old", "runs Ray 2.9.3 with Python")):
        paths = os.pathsep.join([str(tmp_path / folder), *sys.path])
        with Nodes(1, env=environment() | {"PYTHONPATH": paths}) as one:
            done = command(*words(board, tmp_path / "f.h5", "--cluster", one.address))
            error = done.communicate(timeout=100)[1]
        assert done.returncode == 2 and pattern in " ".join(error.split()), error
