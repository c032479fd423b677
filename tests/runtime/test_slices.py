from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.experimental import mesh_utils

from immunax.runtime.errors import UserError
from immunax.runtime.mesh import AXES, MeshSpec, build
from immunax.runtime.slices import by_slice, layout, slice_sizes, spanned


@dataclass(frozen=True)
class Chip:
    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"


CHIPS = [Chip(number, number % 4) for number in range(16)]


def numbers(mesh):
    return np.vectorize(lambda device: device.id)(mesh.devices)


def test_the_axis_attack_takes_the_slices_first_and_the_others_stay_within_one():
    mesh = build(MeshSpec(attack=2, fsdp=2, tensor=2, slices=2))
    halves = numbers(mesh).reshape(2, 4)
    assert [set(half) for half in halves] == [set(range(4)), set(range(4, 8))]
    one = build(MeshSpec(attack=2, fsdp=2, tensor=2))
    assert mesh.axis_names == one.axis_names == AXES
    assert mesh.shape == one.shape


def test_what_attack_leaves_goes_to_data_and_then_to_fsdp_and_never_to_tensor():
    sizes = {"attack": 2, "data": 6, "fsdp": 4, "tensor": 8}
    assert spanned(sizes, 4) == {"attack": 2, "data": 2, "fsdp": 1, "tensor": 1}
    assert spanned(sizes, 8) == {"attack": 2, "data": 2, "fsdp": 2, "tensor": 1}
    with pytest.raises(UserError, match="make one of them a multiple of 4"):
        spanned({"attack": 1, "data": 1, "fsdp": 2, "tensor": 8}, 8)
    with pytest.raises(UserError, match="tensor stays within a slice"):
        build(MeshSpec(tensor=8, slices=2))


def test_chips_that_say_their_slice_lie_as_jax_lays_a_hybrid_mesh():
    sizes = {"attack": 2, "data": 2, "fsdp": 2, "tensor": 2}
    ours = layout(by_slice(CHIPS, None), sizes)
    theirs = mesh_utils.create_hybrid_device_mesh((1, 1, 2, 2), (2, 2, 1, 1), CHIPS)
    assert ours.tolist() == theirs.tolist()
    mesh = type("Mesh", (), {"devices": ours, "axis_names": AXES})
    assert slice_sizes(mesh) == {"attack": 2, "data": 2, "fsdp": 1, "tensor": 1}


def test_a_number_of_slices_is_checked_against_what_is_there():
    assert [len(group) for group in by_slice(CHIPS, 4)] == [4] * 4
    with pytest.raises(UserError, match=r"mesh.slices=2: this run has 4; set mesh.slices=4"):
        by_slice(CHIPS, 2)
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(UserError, match="expected a positive whole number"):
            by_slice(CHIPS, wrong)
    with pytest.raises(UserError, match="8 devices of 1 process do not"):
        by_slice(jax.devices(), 3)
    with pytest.raises(UserError, match="equally many"):
        layout(by_slice(CHIPS[:-1], None), {"attack": 15})


def test_processes_of_cpus_stand_for_slices():
    @dataclass(frozen=True)
    class Cpu:
        id: int
        process_index: int
        platform: str = "cpu"
        device_kind: str = "cpu"

    cpus = [Cpu(number, number // 2) for number in range(8)]
    assert [[each.process_index for each in group] for group in by_slice(cpus, 2)] == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert by_slice(cpus, None) == [cpus]
    with pytest.raises(UserError, match="8 devices of 4 processes do not"):
        by_slice(cpus, 8)
