"""A job is cut alike whoever does it, and nothing of it is done twice or left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import Squares

from vbpr.executors import hired
from vbpr.executors.job import layout
from vbpr.executors.parts import Ranges


@given(st.integers(1, 400), st.integers(1, 50), st.data())
def test_every_row_that_is_left_is_in_the_one_range_that_the_cut_gives_it(total, size, data):
    rows = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    ranges = Ranges(total, size)
    parts = list(ranges.left(rows))
    assert np.array_equal(np.concatenate([np.empty(0, int), *parts]), rows)
    assert [{int(row) // size for row in part} for part in parts] == [
        {n} for n in sorted({int(r) // size for r in rows})
    ]
    spans = [ranges.span(n) for n in range(len(ranges))]
    assert [row for a, b in spans for row in range(a, b)] == list(range(total))


@pytest.mark.parametrize(
    ("device", "most", "cores", "gpus", "expected"),
    [
        ("auto", 0, 8, 4, (4, 2, True)),  # one a GPU
        ("auto", 0, 2, 4, (4, 0, True)),  # Ray has no cores left to give
        ("cpu", 0, 8, 4, (1, 8, False)),
        ("cuda", 0, 8, 0, (0, 0, False)),
        ("auto", 0, 64, 0, (4, 16, False)),
        ("auto", 0, 17, 0, (2, 8, False)),
        ("auto", 1, 3, 0, (3, 1, False)),
        ("auto", 0, 0, 0, (0, 0, False)),  # a head that takes no work
    ],
)
def test_a_machine_gets_a_worker_a_gpu_or_one_for_some_cores(device, most, cores, gpus, expected):
    assert layout(device, most, cores, gpus) == expected


def test_one_process_does_one_part_after_another_until_it_is_stopped(tmp_path):
    taken = iter(range(9))
    with hired(None, Squares(str(tmp_path))) as crew:
        assert crew.about == {"kind": "squares"}
        done = [(number, part, *result) for number, part, result in crew.run(taken, lambda: len(begun(tmp_path)) > 4)]
    assert done == [(n, n, n * n) for n in range(5)]


def begun(folder):
    return list(folder.glob("part-*"))
