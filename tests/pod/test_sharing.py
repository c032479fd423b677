from dataclasses import replace

import pytest

from immunax.pod.sharing import Sharing, whole
from immunax.runtime.mesh import MeshSpec
from immunax.runtime.parts import Part

OURS = MeshSpec(fsdp=64, tensor=4, topology="v5e:16x16")
SHIPPED = (MeshSpec(fsdp=-1), MeshSpec(fsdp=16, topology="v5e:4x4"), OURS)


@pytest.mark.parametrize(
    ("spec", "count", "topology", "meshes"),
    [
        # Few rows are padded to 64 on ours, which is not left out for 256 ways of fsdp.
        (MeshSpec(fsdp=16, topology="v5e:4x4"), 16, "v5e:16x16", [(1, 1, 256, 1), (1, 1, 64, 4)]),
        (MeshSpec(fsdp=16, tensor=4, topology="v5e:8x8"), 4, "v5e:16x16", [(1, 1, 64, 4)]),
        (MeshSpec(fsdp=16, topology="v5e:4x4"), 2, "v5e:4x8", [(1, 1, 32, 1), (1, 1, 16, 2)]),
        (MeshSpec(data=4, fsdp=4, topology="v5e:4x4"), 4, "v5e:8x8", [(1, 16, 4, 1), (1, 4, 4, 4)]),
        (MeshSpec(attack=4, fsdp=-1, topology="v5p:2x2x4"), 4, "v5p:4x4x4", [(4, 1, -1, 1), (4, 1, -1, 4)]),
        (MeshSpec(fsdp=4, tensor=-1, topology="v5e:4x4"), 4, "v5e:8x8", [(1, 1, 16, -1), (1, 1, 4, -1)]),
        (MeshSpec(tensor=4, topology="v5e:2x2"), 4, "v5e:4x4", [(1, 1, 4, 4), (1, 1, 16, 1)]),
    ],
)
def test_all_parts_make_the_most_compact_slice_and_meshes_for_many_rows_and_for_few(spec, count, topology, meshes):
    found = whole(replace(spec, part="each/4"), Part(None, count), SHIPPED)
    assert {(each.topology, each.part) for each in found} == {(topology, None)}
    assert [(each.attack, each.data, each.fsdp, each.tensor) for each in found] == meshes


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
