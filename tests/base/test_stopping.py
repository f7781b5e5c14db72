"""Ctrl-C and SIGTERM at any moment of a command: one word, exit code 130, no traceback."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import TINY, environment

START = "import sys, time, os, signal\nfrom vbpr.base.stopping import interruptible, stop_signals\n"
BODIES = {
    "while it works": "print('ready', flush=True); time.sleep(60)",
    "a library makes another exception of it": """
        try:
            print('ready', flush=True); time.sleep(60)
        except BaseException: raise ImportError('cut short')""",
    "a module that is being imported would abort": """
        import importlib.abc, importlib.machinery
        class Native(importlib.abc.Loader):
            def exec_module(self, module):
                try: print('ready', flush=True); time.sleep(60)
                except BaseException: os.abort()  # as C++ does that no exception may pass
        class Finder:
            def find_spec(name, path, target=None):
                return importlib.machinery.ModuleSpec(name, Native()) if name == 'native' else None
        sys.meta_path.insert(0, Finder)
        import native""",
    "a destructor would swallow it": """
        class Slow:
            def __del__(self): print('ready', flush=True); time.sleep(60)
        one = Slow(); del one; time.sleep(60)""",
    "a library swallows it, and it comes again": """
        try:
            print('ready', flush=True); time.sleep(60)
        except BaseException: pass
        os.kill(os.getpid(), signal.SIGINT); time.sleep(60)""",
    "a batch is in hand, and it comes again": """
        with stop_signals():
            print('ready', flush=True); time.sleep(.3)
            os.kill(os.getpid(), signal.SIGINT); time.sleep(60)""",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", BODIES)
def test_a_signal_ends_a_command_with_a_word(body, number):
    lines = BODIES[body].strip("\n").splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    code = START + "with interruptible():\n" + "\n".join(f"    {line[margin:]}" for line in lines)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout.readline() == "ready\n"
    begun = time.monotonic()
    process.send_signal(number)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and time.monotonic() - begun < 20
    assert "run the same command again" in error and "Traceback" not in error and "ignored" not in error


def test_what_a_shell_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from vbpr.base.stopping import interruptible, stop_signals

        with interruptible(), stop_signals() as stopping:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stopping()
    finally:
        signal.signal(signal.SIGINT, before)


def test_contexts_of_two_threads_may_overlap():
    from vbpr.base.stopping import stop_signals

    with ThreadPoolExecutor(1) as pool:
        with stop_signals():
            other = stop_signals()
            stopping = pool.submit(other.__enter__).result()
        assert not stopping()
        pool.submit(other.__exit__, None, None, None).result()


@pytest.mark.slow
def test_closed_descriptors_are_no_place_for_the_feature_file(board, tmp_path):
    out = tmp_path / "f.h5"
    words = f"-m vbpr extract --backbone test_resnet --random-weights --engine torch --data {board} --out {out}"
    call = (sys.executable, [sys.executable, *words.split()])
    code = f"import os; [os.close(n) for n in (0, 1, 2)]; os.execv(*{call!r})"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=120).returncode == 0
    assert out.read_bytes().startswith(b"\x89HDF")


def test_the_demo_stops_after_a_step_and_in_its_last_ones_at_once(monkeypatch, tmp_path):
    from vbpr.base.stopping import Stopped, interruptible
    from vbpr.pages import demo

    monkeypatch.setattr(demo, "extract", lambda *_: os.kill(os.getpid(), signal.SIGINT))  # in its last batch
    with pytest.raises(Stopped):
        demo.run(tmp_path)
    monkeypatch.setattr(demo, "extract", lambda *_: None)
    monkeypatch.setattr(demo, "train", lambda *_: types.SimpleNamespace(factors=None))
    monkeypatch.setattr(demo, "FeatureStore", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended, interruptible():
        demo.run(tmp_path)
    assert ended.value.code == 130


def test_a_loop_that_passes_over_faults_ends_when_it_is_stopped(board, tmp_path, monkeypatch):
    import vbpr
    from vbpr.stores.features.writer import Writer

    write, names = Writer.write, []

    def pressed(*args):
        monkeypatch.setattr(Writer, "write", write)
        os.kill(os.getpid(), signal.SIGINT)
        write(*args)

    monkeypatch.setattr(Writer, "write", pressed)
    with pytest.raises(vbpr.Stopped, match=r"stopped with \d+ of 22 items in .* again to resume"):
        for name in ("one", "two"):
            names.append(name)
            with contextlib.suppress(Exception):
                data = vbpr.Dataset.resolve(board)
                vbpr.extract(data, TINY, tmp_path / f"{name}.h5", random_weights=True, engine="torch", batch=4)
    assert names == ["one"]


def test_python_has_its_own_signals_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook
    from vbpr.base.stopping import interruptible, stop_signals

    with interruptible(), stop_signals() as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_libraries_are_imported(board, tmp_path, number):
    words = ("extract", "--backbone", "test_resnet", "--random-weights", "--data", board, "--out", tmp_path / "f.h5")
    for wait in (0.15, 0.4, 0.8, 1.4):
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "vbpr", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for line in process.stderr:
            if line.endswith("vbpr.base.stopping\n"):
                break
        time.sleep(wait)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
        assert process.returncode in (0, 130, -number)  # its own in Python's last moments
        assert process.returncode != 130 or "run the same command again" in error
        assert "Traceback" not in error and "internal failure" not in error


@pytest.mark.slow
def test_serving_ends_without_a_failure(board_model):
    process = subprocess.Popen(
        [sys.executable, "-m", "vbpr", "serve", str(board_model), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert ": loaded " in process.stdout.readline() and "Ctrl-C stops it" in process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and error == ""
