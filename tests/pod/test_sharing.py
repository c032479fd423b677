import pytest

from immunax.pod.sharing import Sharing, whole
from immunax.runtime.mesh import MeshSpec
from immunax.runtime.parts import Part


@pytest.mark.parametrize(
    ("spec", "count", "topology", "sizes"),
    [
        (MeshSpec(fsdp=16, topology="v5e:4x4"), 16, "v5e:16x16", (1, 1, 256, 1)),
        (MeshSpec(fsdp=16, topology="v5e:4x4"), 2, "v5e:4x8", (1, 1, 32, 1)),
        (MeshSpec(data=4, fsdp=4, topology="v5e:4x4"), 4, "v5e:8x8", (1, 16, 4, 1)),
        (MeshSpec(attack=4, fsdp=-1, topology="v5p:2x2x4"), 4, "v5p:4x4x4", (4, 1, -1, 1)),
        (MeshSpec(tensor=4, topology="v5e:2x2"), 4, "v5e:4x4", (1, 1, 4, 4)),
    ],
)
def test_all_parts_make_the_most_compact_slice_and_the_mesh_grows_with_it(spec, count, topology, sizes):
    found = whole(spec, Part(None, count))
    assert found.topology == topology
    assert (found.attack, found.data, found.fsdp, found.tensor) == sizes


@pytest.mark.parametrize(
    ("at_once", "in_turn", "told"),
    [
        (10.0, 40.0, "The parts end a sweep 4.00 times as soon"),
        (10.0, 5.0, "The whole slice ends a sweep 2.00 times as soon"),
        (10.0, None, "one after another on the whole slice they do not fit"),
    ],
)
def test_what_ends_a_sweep_sooner_is_told(at_once, in_turn, told):
    assert told in Sharing(4, at_once, in_turn).told()
