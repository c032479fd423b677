import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build, shardings
from immunax.runtime.placement import fill

KERNEL = ("layers", "mlp", "up_proj", "kernel")
MESHES = [None, MeshSpec(), MeshSpec(fsdp=8), MeshSpec(data=2, fsdp=2, tensor=2), MeshSpec(data=8)]


@pytest.mark.parametrize("spec", MESHES, ids=str)
@pytest.mark.parametrize("step", [1, 2, 3])
def test_pieces_become_the_array_that_they_are_cut_from_where_the_table_says(spec, step):
    values = np.arange(3 * 16 * 8, dtype=np.float32).reshape(3, 16, 8)
    devices = None if spec is None else build(spec)
    pieces = ((first, values[first : first + step]) for first in range(0, 3, step))
    made = fill(KERNEL, values.shape, "float32", pieces, devices)
    np.testing.assert_array_equal(made, values)
    if devices is None:
        assert not made.committed
    else:
        tree = {"layers": {"mlp": {"up_proj": {"kernel": values}}}}
        assert made.sharding == shardings(tree, devices)["layers"]["mlp"]["up_proj"]["kernel"]


def test_pieces_may_begin_and_end_anywhere_on_an_axis_that_is_split():
    values = np.arange(16 * 4, dtype=np.int32).reshape(16, 4)
    pieces = [(0, values[:3]), (3, values[3:13]), (13, values[13:])]
    devices = build(MeshSpec(tensor=8))
    made = fill(("embed_tokens", "embedding"), values.shape, np.int32, pieces, devices)
    np.testing.assert_array_equal(made, values)
    assert made.addressable_shards[0].data.shape == (2, 4)


def test_values_are_rounded_to_the_nearest_of_the_dtype():
    values = np.array([[1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8]], np.float32)
    made = fill(("scale",), values.shape, "bfloat16", [(0, values)])
    assert made.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(made, np.float32), [[1.0, 1.0, 1.0 + 2**-6]])


def test_a_value_that_the_dtype_would_make_infinite_is_refused_and_named():
    values = np.full((4, 2), 3.4e38, np.float32)
    assert np.isfinite(fill(["lm_head", "kernel"], (4, 2), np.float32, [(0, values)])).all()
    with pytest.raises(UserError, match=r"'lm_head\.kernel' has a value beyond what bfloat16 holds"):
        fill(["lm_head", "kernel"], (4, 2), jnp.bfloat16, [(0, values)])
    with pytest.raises(UserError, match="beyond what float32 holds"):
        fill(["norm"], (2,), np.float32, [(0, np.array([1.0, 1e300]))])


def test_a_donated_array_leaves_its_copies_on_other_devices_alone():
    made = fill(("scale",), (64, 64), "float32", [(0, np.ones((64, 64), np.float32))], build(MeshSpec(data=8)))
    more = jax.jit(lambda x: x + 1, donate_argnums=0)(made)
    assert {float(shard.data.max()) for shard in more.addressable_shards} == {2.0}
    assert {float(shard.data.min()) for shard in more.addressable_shards} == {2.0}


@pytest.mark.parametrize("spec", [None, MeshSpec(fsdp=8)], ids=str)
def test_the_host_holds_the_array_once_and_a_piece(spec):
    layers, one = 16, np.ones((1, 256, 256), np.float32)
    devices = None if spec is None else build(spec)
    pieces = ((layer, one + layer) for layer in range(layers))
    tracemalloc.start()
    made = fill(KERNEL, (layers, 256, 256), "float32", pieces, devices)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= (layers + 1.5) * one.nbytes
    assert float(made[-1, 0, 0]) == layers
