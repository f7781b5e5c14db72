"""Two machines with addresses of their own: network namespaces, joined by a cable."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from conftest import ROOT, TINY, environment

pytest.importorskip("ray")
sys.path.insert(0, str(ROOT / "tools"))

from nodes import Nodes


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines():
    """The words that run a command on each of two machines, 10.77.0.1 and 10.77.0.2."""
    names = [f"vbpr-{os.getpid()}-{n}" for n in (1, 2)]
    cables = [f"v{os.getpid() % 10**6}-{n}" for n in (1, 2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for n, (name, cable) in enumerate(zip(names, cables, strict=True), 1):
            ip("link", "set", cable, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{n}/24", "dev", cable)
            ip("-n", name, "link", "set", cable, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True)
        pytest.skip(f"needs root, iproute2 and network namespaces ({error})")
    yield [("ip", "netns", "exec", name) for name in names]
    for name in names:
        ip("netns", "del", name)


@pytest.mark.slow
def test_machines_with_addresses_of_their_own_share_an_extraction(machines, tmp_path):
    env = environment() | {"no_proxy": "10.77.0.1,10.77.0.2"}
    words = ["extract", "--backbone", TINY, "--random-weights", "--engine", "torch", "--data", "sample", "--out"]
    vbpr = [sys.executable, "-m", "vbpr", *words]
    with (
        Nodes(1, "--ip", "10.77.0.1", before=machines[0], env=env) as one,
        Nodes(1, "--join", one.address, "--ip", "10.77.0.2", before=machines[1], env=env) as two,
    ):
        assert one.address.startswith("10.77.0.1:")
        command = [*machines[0], *vbpr, str(tmp_path / "f.h5"), "--cluster", one.address]
        running, seen = subprocess.Popen(command, stdout=subprocess.PIPE, env=env), [0, 0]
        while running.poll() is None:
            seen = [max(most, len(nodes.workers())) for most, nodes in zip(seen, (one, two), strict=True)]
            time.sleep(0.05)
        assert running.returncode == 0 and b"1,506 written now" in running.communicate()[0]
        assert seen == [1, 1]
    assert subprocess.run([*vbpr, str(tmp_path / "alone.h5")], env=env, capture_output=True).returncode == 0
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "alone.h5").read_bytes()
