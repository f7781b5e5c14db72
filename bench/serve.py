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

import httpx
import numpy as np


async def load(address, users, items, rate, seconds, mixed):
    """(kind, status, latency) of each request; a request is due when its time has come, not when one is free."""
    rng, done, tasks = random.Random(0), [], set()
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=30) as client:

        async def one(due):
            kind = "recommendations"
            path = f"/users/{rng.choice(users)}/recommendations?k=10"
            if mixed:
                kind = rng.choices(("recommendations", "similar", "hostile"), (8, 1, 1))[0]
                path = {"similar": f"/items/{rng.choice(items)}/similar", "hostile": "/users/%00/../x?k=-1"}.get(
                    kind, path
                )
            try:
                status = (await client.get(path)).status_code
            except httpx.HTTPError as error:
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
    return done


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
            found = re.search(r"http://\S+(?=/ )", server.stdout.readline())
            if found is None:
                raise SystemExit("the server did not start")
            address = found.group()
            users = httpx.get(f"{address}/users?limit=100").json()["ids"]
            items = httpx.get(f"{address}/items?limit=100").json()["ids"]
            done = asyncio.run(load(address, users, items, asked.rate, asked.seconds, asked.mixed))
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
    if memory:
        print(f"server's peak memory: {int(memory.group(1)) / 1024:.0f} MB")


if __name__ == "__main__":
    main()
