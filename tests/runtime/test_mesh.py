import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from described import described
from jax.sharding import PartitionSpec as P
from omegaconf import OmegaConf

from immunax.runtime.configuration import configuration_folder
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import (
    AXES,
    MeshSpec,
    build,
    for_one_model,
    partition_spec,
    shard,
    shard_batch,
    shardings,
    split_parameters,
    split_rows,
)


def test_the_axes_are_always_the_same_four():
    assert build(MeshSpec()).devices.shape == (1, 1, 1, 1)
    assert build(MeshSpec(attack=2, data=-1, tensor=2)).shape == dict(zip(AXES, (2, 2, 1, 2), strict=True))


def test_a_run_of_one_process_may_take_a_part_of_its_devices():
    assert build(MeshSpec(data=2, fsdp=2)).devices.size == 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MeshSpec(fsdp=16), "needs 16 devices, this run has 8"),
        (MeshSpec(data=2, topology="v5e:2x4"), "needs 2 devices, this run has 8"),
        (MeshSpec(data=3, fsdp=-1), "3 does not divide the 8 devices"),
        (MeshSpec(data=-1, fsdp=-1), "both -1"),
        (MeshSpec(tensor=0), "tensor=0: expected a positive"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_told(spec, message):
    with pytest.raises(UserError, match=message):
        build(spec)


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        (("embed_tokens", "embedding"), (32, 8), P("tensor", "fsdp")),
        (("layers", "self_attn", "q_proj", "kernel"), (3, 8, 8), P(None, "fsdp", "tensor")),
        (("layers", "self_attn", "q_proj", "bias"), (3, 8), P(None, "tensor")),
        (("layers", "self_attn", "o_proj", "kernel"), (3, 8, 8), P(None, "tensor", "fsdp")),
        (("layers", "mlp", "down_proj", "kernel"), (3, 8, 8), P(None, "tensor", "fsdp")),
        (("layers", "self_attn", "q_norm", "scale"), (3, 8), P()),
        (("norm", "scale"), (8,), P()),
        (("lm_head", "kernel"), (8, 32), P("fsdp", "tensor")),
        (("lora", "layers", "mlp", "up_proj", "a"), (3, 8, 4), P(None, "fsdp")),
        (("lora", "layers", "mlp", "down_proj", "b"), (3, 4, 8), P(None, None, "fsdp")),
        (("layers", "self_attn", "k_proj", "kernel"), (3, 8, 5), P(None, "fsdp")),
        ((), (), P()),
        (("count",), (), P()),
    ],
)
def test_the_table_places_each_parameter(path, shape, expected):
    mesh = build(MeshSpec(data=2, fsdp=2, tensor=2))
    assert partition_spec(path, shape, mesh) == expected


def test_a_population_lies_on_the_attack_axis():
    mesh = build(MeshSpec(attack=4, tensor=2))
    spec = partition_spec(("layers", "mlp", "up_proj", "b"), (8, 3, 4, 6), mesh, stacked=True)
    assert spec == P("attack", None, None, "tensor")
    assert partition_spec(("norm", "scale"), (6, 3), mesh, stacked=True) == P()


def test_optimizer_moments_lie_with_their_parameters():
    mesh = build(MeshSpec(fsdp=4, tensor=2))
    params = {"lm_head": {"kernel": jnp.ones((8, 8))}}
    state = shardings(optax.adam(1e-3).init(params), mesh)
    assert state[0].mu["lm_head"]["kernel"].spec == P("fsdp", "tensor")
    assert state[0].count.spec == P()


def test_a_sharded_block_computes_what_the_unsharded_one_does():
    mesh = build(MeshSpec(data=2, fsdp=2, tensor=2))
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "up_proj": {"kernel": jax.random.normal(keys[0], (1, 8, 16))},
        "down_proj": {"kernel": jax.random.normal(keys[1], (1, 16, 8))},
    }
    x = jax.random.normal(keys[2], (4, 8))

    def block(params, x):
        hidden = jnp.tanh(x @ params["up_proj"]["kernel"][0])
        return (hidden @ params["down_proj"]["kernel"][0]) ** 2

    loss = jax.jit(jax.value_and_grad(lambda params, x: block(params, x).sum()))
    expected = loss(params, x)
    placed = shard(params, mesh)
    assert placed["up_proj"]["kernel"].sharding.shard_shape((1, 8, 16)) == (1, 4, 8)
    found = loss(placed, shard_batch(np.asarray(x), mesh))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), found, expected)


def test_one_model_is_not_spread_over_the_axis_of_members():
    assert for_one_model(build(MeshSpec(data=8))).size == 8
    with pytest.raises(UserError, match="mesh=data"):
        for_one_model(build(MeshSpec(attack=2, data=4)))


def test_a_batch_that_does_not_divide_is_told():
    with pytest.raises(UserError, match="batch of 6 does not divide over data x fsdp = 8"):
        shard_batch({"tokens": np.zeros((6, 2))}, build(MeshSpec(fsdp=8)))


@pytest.mark.parametrize("name", ["single", "attack", "data", "fsdp"])
def test_the_meshes_of_the_configuration_fit_eight_devices(name):
    spec = described(OmegaConf.load(configuration_folder() / "mesh" / f"{name}.yaml"))
    assert build(spec).devices.size == (1 if name == "single" else 8)


@pytest.mark.parametrize("name", ["v5e_16", "v5e_64", "v5e_256", "v5p_64", "v5p_512", "v6e_64", "v6e_256"])
def test_the_meshes_of_slices_have_as_many_devices_as_their_topology_has_chips(name):
    spec = described(OmegaConf.load(configuration_folder() / "mesh" / f"{name}.yaml"))
    chips = math.prod(int(size) for size in spec.topology.partition(":")[2].split("x"))
    assert spec.topology.startswith(name.partition("_")[0])
    # A slice of v5p is named after its TensorCores, two a chip.
    assert chips * (2 if name.startswith("v5p") else 1) == int(name.partition("_")[2])
    assert math.prod(getattr(spec, axis) for axis in AXES) == chips


def test_under_a_mesh_activations_and_parameters_are_split_and_so_are_their_gradients():
    mesh, params, x = (
        build(MeshSpec(data=2, fsdp=2, tensor=2)),
        {"up_proj": {"kernel": jnp.ones((8, 6))}},
        jnp.ones((4, 8)),
    )

    def product(params, x):
        return split_rows(split_rows(x) @ split_parameters(params)["up_proj"]["kernel"])

    assert product(params, x).sharding.is_fully_replicated
    with jax.set_mesh(mesh):
        assert jax.jit(product)(params, x).sharding.spec == P(("data", "fsdp"))
        slopes = jax.jit(jax.grad(lambda *inputs: jnp.sum(product(*inputs) ** 2), (0, 1)))(params, x)
    assert slopes[0]["up_proj"]["kernel"].sharding.spec == P("fsdp", "tensor")
    assert slopes[1].sharding.spec == P(("data", "fsdp"))
