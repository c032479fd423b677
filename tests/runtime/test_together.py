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


def test_what_programs_give_is_fetched_in_order_once_the_next_one_is_begun_and_no_sooner(monkeypatch):
    seen = []

    def begun():
        for number in range(4):
            seen.append(f"begin {number}")
            yield {"found": jnp.full(2, number)}

    def fetch(array):
        seen.append(f"fetch {int(array[0])}")
        return np.asarray(array)

    monkeypatch.setattr(together, "host", fetch)
    found = [each["found"][0] for each in together.behind(begun())]
    assert found == [0, 1, 2, 3]
    order = [
        ("begin", 0),
        ("begin", 1),
        ("fetch", 0),
        ("begin", 2),
        ("fetch", 1),
        ("begin", 3),
        ("fetch", 2),
        ("fetch", 3),
    ]
    assert seen == [f"{what} {number}" for what, number in order]
    seen.clear()
    # Two programs at once on the CPUs of several processes might meet in another order in each.
    monkeypatch.setattr(together, "processes", lambda: 2)
    assert len(list(together.behind(begun()))) == 4
    assert seen == [f"{what} {number}" for number in range(4) for what in ("begin", "fetch")]
    assert list(together.behind(())) == []
