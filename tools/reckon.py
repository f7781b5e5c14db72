"""From measured rates to machines, hours, memory and network: plain arithmetic, every line with its formula.

python tools/reckon.py                                          # the page docs/scale.md has this output
python tools/reckon.py --items 10_000_000 --images-a-second 25 --machines 8
"""

import argparse
import dataclasses
import itertools


@dataclasses.dataclass(frozen=True)
class Rates:
    """What was measured, and what is asked.

    Attributes:
        items, users, dim, k: pictures; people; numbers a row of features; length of a list.
        factors: numbers of a user's and of an item's vector.
        machines, threads: of the cluster, and of each machine; a worker has 16.
        images_a_second, scores_a_second: pictures, and products of a user with an item, of one thread.
        listed_a_second, name_bytes: pictures whose names and sizes one process lists, and its memory for each.
        picture_bytes: of an encoded picture. disk_bytes, network_bytes: a second, of the driver.
    """

    items: int = 100_000_000
    users: int = 100_000_000
    dim: int = 2048
    k: int = 10
    factors: int = 50
    machines: int = 64
    threads: int = 16
    images_a_second: float = 63
    scores_a_second: float = 1.57e8
    listed_a_second: float = 78_000
    name_bytes: float = 281
    picture_bytes: float = 30_000
    disk_bytes: float = 1e9
    network_bytes: float = 1.25e9


def reckon(r: Rates) -> list[tuple[str, str, str]]:
    """(what, how much, how it was got) of every line."""
    threads, row = r.machines * r.threads, 2 * r.dim + 10
    rate, bound = threads * r.images_a_second, min(r.disk_bytes, r.network_bytes) / row
    users = threads * r.scores_a_second / r.items
    model = 4 * (r.factors + 1) * (r.users + r.items) + 20 * 8 * r.users
    return [
        ("extract: rate", f"{rate:,.0f} images/s", f"{r.machines} machines x {r.threads} x {r.images_a_second:g}"),
        ("extract: time", hours(r.items / min(rate, bound)), "items / the lower of rate and driver's bound"),
        ("extract: driver's bound", f"{bound:,.0f} images/s", f"its disk or network / {row:,} bytes a row"),
        ("extract: feature file", size(r.items * row), f"items x (2 x {r.dim} + 10 bytes)"),
        ("extract: pictures over the network", f"{size(rate * r.picture_bytes)}/s", f"rate x {size(r.picture_bytes)}"),
        ("extract: rows to the driver", f"{size(rate * row)}/s", f"rate x {row:,} bytes"),
        ("extract: names and sizes, at each start", hours(r.items / r.listed_a_second), "items / listed a second"),
        ("extract: memory for names, each process", size(r.items * r.name_bytes), f"items x {r.name_bytes:g} bytes"),
        ("recommend --all: rate", f"{users:,.0f} users/s", "threads x scores a second / items"),
        ("recommend --all: time", hours(r.users / users), "users / rate"),
        ("recommend --all: rows to the driver", f"{size(users * r.k * 12)}/s", f"rate x {r.k} x 12 bytes"),
        ("recommend --all: model in each worker", size(model), "4 (K + 1) (users + items), 20 purchases a user"),
    ]


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"


def size(number: float) -> str:
    """Bytes in words, by thousands."""
    power = next(p for p in itertools.count() if number < 1000 ** (p + 1))
    return f"{number / 1000**power:,.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def page(r: Rates) -> str:
    lines = ["| what | how much | how it was got |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in reckon(r))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in dataclasses.fields(Rates):
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    print(page(Rates(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
