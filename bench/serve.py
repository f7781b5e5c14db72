"""Load on the server over loopback: requests at a fixed rate, however long answers take; latencies by kind.

python bench/serve.py artifacts/inc.model.h5 --rate 200 --seconds 600
"""

import argparse
import asyncio
import os
import platform
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np


class Connections:
    """Keep-alive connections of HTTP/1.1, as many as are in use at once: far lighter than a client library, whose own
    work would be measured."""

    def __init__(self, address):
        self.host, port = address.removeprefix("http://").rsplit(":", 1)
        self.port, self.free = int(port), []

    async def get(self, path):
        """The status of a GET; the body is read and dropped."""
        while self.free:
            reader, writer = self.free.pop()
            if not reader.at_eof():
                break  # the server closes connections that were idle for long
        else:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await reader.readexactly(int(re.search(r"content-length: (\d+)", head).group(1)))
        self.free.append((reader, writer))
        return int(head.split(" ", 2)[1])

    def close(self):
        for _, writer in self.free:
            writer.close()


async def load(address, users, items, rate, seconds, mixed):
    """(kind, status, latency) of each request; a request is due when its time has come, not when one is free."""
    rng, done, tasks = random.Random(0), [], set()
    connections = Connections(address)

    async def one(due):
        kind, path = "recommendations", f"/users/{quote(rng.choice(users), safe='')}/recommendations?k=10"
        if mixed:
            kind = rng.choices(("recommendations", "similar", "hostile"), (8, 1, 1))[0]
            near = f"/items/{quote(rng.choice(items), safe='')}/similar"
            path = {"similar": near, "hostile": "/users/%00/../x?k=-1"}.get(kind, path)
        try:
            status = await connections.get(path)
        except (OSError, EOFError) as error:
            status = type(error).__name__
        done.append((kind, status, time.perf_counter() - due))

    for _ in range(20):  # connections and caches
        await one(time.perf_counter())
    done.clear()
    started = time.perf_counter()
    for n in range(int(rate * seconds)):
        due = started + n / rate
        await asyncio.sleep(max(0, due - time.perf_counter()))
        task = asyncio.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    connections.close()
    return done


def busy(process):
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--mixed", action="store_true", help="8 recommendations to 1 neighbours and 1 hostile request")
    asked = parser.parse_args()
    command = [sys.executable, "-m", "vbpr", "serve", asked.model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = next(filter(None, (re.search(r"http://\S+(?=/ )", line) for line in server.stdout)), None)
            if found is None:
                raise SystemExit("the server did not start")
            address = found.group()
            users = httpx.get(f"{address}/users?limit=100").json()["ids"]
            items = httpx.get(f"{address}/items?limit=100").json()["ids"]
            before = busy(server.pid)
            done = asyncio.run(load(address, users, items, asked.rate, asked.seconds, asked.mixed))
            work = busy(server.pid) - before
            memory = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
        finally:
            server.terminate()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, the load on them too; {asked.rate:g}/s for {asked.seconds:g} s"
    )
    print("| kind | requests | errors | p50 ms | p95 ms | p99 ms | max ms |\n|---|---|---|---|---|---|---|")
    for kind in sorted({kind for kind, _, _ in done}):
        fine = (404, 422) if kind == "hostile" else (200,)
        times = 1000 * np.array([t for k, _, t in done if k == kind])
        errors = sum(k == kind and status not in fine for k, status, _ in done)
        low, high, most = np.percentile(times, [50, 95, 99])
        print(f"| {kind} | {len(times):,} | {errors} | {low:.1f} | {high:.1f} | {most:.1f} | {times.max():.1f} |")
    print(
        f"\nserver's work: {1000 * work / len(done):.2f} ms of a core a request; load average {os.getloadavg()[0]:.1f}"
    )
    if memory:
        print(f"server's peak memory: {int(memory.group(1)) / 1024:.0f} MB")


if __name__ == "__main__":
    main()
