import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from immunax.runtime import together
from immunax.runtime.mesh import MeshSpec, build


@pytest.mark.parametrize("rows", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (P("fsdp"), (8, 3)),
        (P(None, "fsdp", "tensor"), (5, 4, 6)),
        (P("tensor", "fsdp"), (4, 4)),
        (P(("data", "fsdp"), None), (16,)),
        (P(("tensor", "data")), (12, 2)),
    ],
)
def test_an_array_that_is_sent_block_by_block_is_the_array(spec, shape, rows, monkeypatch):
    monkeypatch.setattr(together, "_BLOCK_BYTES", rows * 2 * 8)
    spec = P(*spec[: len(shape)])
    values = jnp.arange(np.prod(shape), dtype=jnp.bfloat16).reshape(shape)
    array = jax.device_put(values, NamedSharding(build(MeshSpec(data=2, fsdp=2, tensor=2)), spec))
    np.testing.assert_array_equal(together._sent(array), values)
