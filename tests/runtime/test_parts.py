import math

import pytest

from immunax.runtime.errors import UserError
from immunax.runtime.parts import Part, block_of, environment, grid_of, members


@pytest.mark.parametrize(
    ("text", "index", "count"), [("0/4", 0, 4), ("3/4", 3, 4), ("each/16", None, 16), ("each/1", None, 1)]
)
def test_a_part_is_read(text, index, count):
    assert Part.read(text) == Part(index, count)


@pytest.mark.parametrize("text", ["4/4", "4", "1/0", "each", "-1/4", "*/4", "1/4/2", ""])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UserError, match=r"mesh\.part=.*expected I/N"):
        Part.read(text)


@pytest.mark.parametrize(
    ("topology", "processes", "grid"),
    [
        (None, 6, (6,)),
        ("16x16", 64, (8, 8, 1)),
        ("4x4x8", 32, (2, 2, 8)),
        ("2x4", 1, (1,)),  # eight chips of one host
        ("16x16", 128, (128,)),  # of two slices
    ],
)
def test_hosts_lie_as_the_chips_of_the_slice_do(topology, processes, grid):
    assert grid_of(topology, processes) == grid


@pytest.mark.parametrize(
    ("grid", "count", "block"),
    [
        ((8, 8, 1), 16, (2, 2, 1)),
        ((8, 8, 1), 64, (1, 1, 1)),
        ((2, 2, 8), 4, (2, 2, 2)),
        ((6,), 3, (2,)),
        ((4, 2), 1, (4, 2)),
    ],
)
def test_a_part_is_the_most_compact_block(grid, count, block):
    assert block_of(grid, count) == block


def test_so_many_equal_parts_there_are_not():
    with pytest.raises(UserError, match="the 8 x 8 processes of this job do not make 3 equal parts"):
        block_of((8, 8), 3)


def test_the_hosts_of_a_part_are_neighbours_on_the_slice():
    # A 4x4 slice of hosts that are counted along x first, as libtpu counts them.
    assert members((4, 4), 4) == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize(("grid", "count"), [((8, 8, 1), 16), ((2, 2, 8), 8), ((12,), 4)])
def test_every_process_is_in_one_part(grid, count):
    parts = members(grid, count)
    assert len(parts) == count
    assert len({len(each) for each in parts}) == 1
    assert sorted(process for part in parts for process in part) == list(range(math.prod(grid)))


def test_libtpu_is_told_of_a_whole_slice_of_the_parts_size():
    assert environment((8, 8, 1), 16, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], 2) == {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_HOST_BOUNDS": "2,2,1",
        "TPU_CHIPS_PER_HOST_BOUNDS": "2,2,1",
        "TPU_TOPOLOGY": "4x4x1",
        "TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4",
        "TPU_WORKER_ID": "2",
    }
