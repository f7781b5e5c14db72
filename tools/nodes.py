"""Start a Ray cluster of several nodes on this machine, for tests and measurements; it ends when its input does.

python tools/nodes.py 3                            # prints one line of JSON: address, and the processes of each node
python tools/nodes.py 1 --join 127.0.0.1:43210     # a node more

They listen on 127.0.0.1 alone, or on `--ip`; no dashboard, no log monitor, no usage statistics.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def start(count: int, join: str, ip: str, cpus: int, store: int, folder: str) -> tuple[str, list[dict[str, Any]]]:
    """The address of the head, and the process ids of each node by what they are."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    nodes, address = [], join
    for _ in range(count):
        given = {"gcs_address": address} if address else {"temp_dir": folder, "include_dashboard": False}
        parameters = RayParams(
            node_ip_address=ip,
            num_cpus=cpus,
            num_gpus=0,
            object_store_memory=store * 2**20,
            include_log_monitor=False,
            min_worker_port=0,
            max_worker_port=0,
            node_manager_port=0,
            dashboard_agent_listen_port=None,
            **given,
        )
        node = Node(parameters, head=not address, shutdown_at_exit=True, spawn_reaper=True)
        address = address or node.gcs_address
        nodes.append({kind: started[0].process.pid for kind, started in node.all_processes.items()})
    return address, nodes


class Nodes:
    """The same for Python, in a process of its own."""

    def __init__(self, count: int, *more: str, before: tuple[str, ...] = (), env: dict[str, str] | None = None) -> None:
        """
        Args:
            before: words before the command, as `unshare -m` for a machine that sees other files.
        """
        self.process = subprocess.Popen(
            [*before, sys.executable, __file__, str(count), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | (env or {}),
            start_new_session=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "no cluster has started"
        self.address, self.nodes = json.loads(line).values()

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            self.process.communicate(timeout=60)
        for pid in processes():  # Ray's agents look for a head that was killed for a minute
            with contextlib.suppress(OSError):
                if os.getsid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)

    def kill(self, node: int, kind: str = "raylet") -> None:
        """SIGKILL a process of a node: raylet, or the head's gcs_server."""
        os.kill(self.nodes[node][kind], signal.SIGKILL)

    def workers(self) -> list[int]:
        """Process ids of the workers that have begun, on any node."""
        return [pid for pid in below(self.process.pid) if command_of(pid).startswith("ray::Hand")]


def below(root: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, look = [], [root]
    while look:
        more = children.get(look.pop(), [])
        found += more
        look += more
    return found


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def command_of(pid: int) -> str:
    """The command of a process; "" where it is no more."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--join", default="")
    parser.add_argument("--ip", default="127.0.0.1")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--store", type=int, default=80, help="MB of each object store")
    options = parser.parse_args()
    if options.ip == "127.0.0.1":
        os.environ |= LOOPBACK  # before Ray is imported
    folder = tempfile.mkdtemp(prefix="vbpr-nodes-", dir="/tmp")
    try:
        address, nodes = start(options.count, options.join, options.ip, options.cpus, options.store, folder)
        print(json.dumps({"address": address, "nodes": nodes}), flush=True)
        sys.stdin.read()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
