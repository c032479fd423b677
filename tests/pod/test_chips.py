import importlib.util

import numpy as np
import pytest

from immunax.pod.chips import chip_of, compile_only_devices
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build


@pytest.mark.parametrize("topology", ["v9z:4x4", "v5e", "v5e:4x", "4x4"])
def test_an_unknown_topology_is_told(topology):
    with pytest.raises(UserError, match="expected one of v5e, v5p, v6e and a shape"):
        chip_of(topology)


def test_without_the_compiler_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="uv sync --extra tpu"):
        compile_only_devices("v5e:4x4")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed")
@pytest.mark.parametrize(
    ("topology", "sizes"),
    [
        ("v5p:4x8x8", {"attack": 16, "fsdp": 16}),
        ("v6e:16x16", {"attack": 64, "fsdp": 4}),
    ],
)
def test_a_mesh_may_share_out_an_axis_of_the_torus_and_its_parts_are_blocks_of_neighbours(topology, sizes):
    mesh = build(MeshSpec(topology=topology, **sizes), compile_only_devices(topology))
    part = np.array([device.coords for device in mesh.devices.reshape(-1, sizes["fsdp"])[0]])
    assert np.prod(np.ptp(part, axis=0) + 1) == sizes["fsdp"]
