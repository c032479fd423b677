import jax
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.inner.losses import answer_loss
from immunax.inner.optimizers import AdamW
from immunax.inner.state import begin
from immunax.inner.step import slope_of, train_step
from immunax.inner.trainable import WHOLE, Adapters, Projections
from immunax.models import lora
from immunax.models.lora import LoraSpec
from immunax.runtime.errors import UserError
from tests import small

KEY, SPEC = jax.random.key(0), LoraSpec(2, targets=("down_proj",))


@pytest.mark.parametrize(
    "trainable",
    [WHOLE, Adapters(SPEC), Projections((0, 2), ("down_proj",)), *map(Projections, [(1,), (0, 1), (2, 0, 1)])],
)
def test_split_weights_are_joined_to_weights_that_compute_the_same(trainable):
    params = small.params()
    joined = trainable.join(*trainable.split(params, KEY))
    jax.tree.map(np.testing.assert_array_equal, lora.plain(joined), params)


def test_of_adapted_weights_the_adapters_train():
    adapted = lora.init(KEY, small.params(), SPEC)
    trained, held = WHOLE.split(adapted)
    assert trained is adapted.lora
    assert WHOLE.join(trained, held) == adapted


def test_only_the_chosen_rows_of_the_chosen_projections_move_and_have_moments():
    params, trainable = small.params(), Projections((0, 2), ("down_proj",))
    optimizer = AdamW(0.1, weight_decay=0.5).build(1)
    start = begin(optimizer, *trainable.split(params))
    assert {leaf.shape for leaf in jax.tree.leaves(start.optimizer.rule) if leaf.ndim} == {(2, 40, 24)}
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(leaf.size for leaf in jax.tree.leaves((start.trained, start.held))) == weights
    slope_at = slope_of(lambda weights, batch: answer_loss(small.MODEL, weights, batch), trainable)
    state, _ = jax.jit(lambda state: train_step(slope_at, optimizer, state, small.batch(0, 4)))(start)
    after = trainable.join(state.trained, state.held)
    moved = jax.tree.map(lambda a, b: jnp.any(a != b, axis=tuple(range(1, a.ndim))), after["layers"], params["layers"])
    np.testing.assert_array_equal(moved["mlp"]["down_proj"].pop("kernel"), [True, False, True])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(moved))
    for name in set(params) - {"layers"}:
        jax.tree.map(np.testing.assert_array_equal, after[name], params[name])


def test_unknown_layers_and_projections_are_refused():
    with pytest.raises(UserError, match="Did you mean 'down_proj'"):
        Projections((0,), ("dwn_proj",)).split(small.params())
    with pytest.raises(UserError, match="from 0 to 2"):
        Projections((3,)).split(small.params())
