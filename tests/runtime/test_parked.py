import jax
import numpy as np
import pytest

from immunax.runtime import parked
from immunax.runtime.mesh import MeshSpec, build, shard
from immunax.runtime.parked import Parked


@pytest.mark.parametrize("may", [False, True])
def test_weights_come_back_to_the_devices_that_they_were_parked_from(monkeypatch, may):
    monkeypatch.setattr(parked, "_may_park", lambda: may)
    weights = shard({"q_proj": {"kernel": np.arange(32.0).reshape(8, 4)}}, build(MeshSpec(fsdp=4)))
    kernel = weights["q_proj"]["kernel"]
    start = Parked(weights)
    start.park()
    start.park()
    assert isinstance(start.there()["q_proj"]["kernel"], np.ndarray if may else jax.Array)
    back = start.here()["q_proj"]["kernel"]
    assert back.sharding == kernel.sharding
    np.testing.assert_array_equal(back, kernel)
    assert start.here()["q_proj"]["kernel"] is back


def test_on_a_cpu_nothing_is_moved():
    weights = {"scale": jax.numpy.ones(3)}
    start = Parked(weights)
    start.park()
    assert start.there() is weights
