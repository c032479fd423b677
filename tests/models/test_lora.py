"""Adapters' dropout and layers; their plain form is compared with PEFT's in ``test_parity.py``."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from immunax.inner.losses import answer_loss, answer_tokens
from immunax.inner.optimizers import AdamW
from immunax.inner.state import begin
from immunax.inner.step import accumulated, slope_of, train_step
from immunax.inner.trainable import WHOLE, Adapters, at_step
from immunax.models import lora
from immunax.models.decoder import Linear
from immunax.models.lora import LoraSpec
from immunax.runtime.errors import UserError

KEY = jax.random.key(0)


pytestmark = pytest.mark.usefixtures("compile_fast")


def test_dropout_is_pefts_formula():
    """PEFT: ``x W + scaling · dropout(x) A B``, where torch's dropout divides what it keeps by ``1 - p``."""
    rng, layer, rate = np.random.default_rng(0), Linear(6), 0.3
    x, kernel, a, b = (jnp.asarray(rng.normal(size=shape), "f4") for shape in ((500, 8), (8, 6), (8, 3), (3, 6)))

    def output(kernel, a, b):
        adapter = {"a": a, "b": b, "rate": jnp.float32(rate)}
        return layer.apply({"params": {"kernel": kernel}, "lora": adapter}, x, rngs={"dropout": KEY})

    seen = Linear(8).apply(
        {
            "params": {"kernel": jnp.zeros((8, 8))},
            "lora": {"a": jnp.eye(8), "b": jnp.eye(8), "rate": jnp.float32(rate)},
        },
        x,
        rngs={"dropout": KEY},
    )
    kept = np.asarray(seen) != 0
    np.testing.assert_allclose(seen, np.where(kept, x / (1 - rate), 0), rtol=1e-6)
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / kept.size)
    np.testing.assert_allclose(output(kernel, a, b), x @ kernel + (kept * x / (1 - rate)) @ a @ b, rtol=1e-4, atol=1e-5)


def _dropping(rate=0.4, **spec):
    """Adapters that are no longer fresh."""
    trainable = Adapters(LoraSpec(2, 8.0, ("q_proj", "down_proj"), rate, **spec))
    trained, held = trainable.split(small.params(), KEY)
    return trainable, jax.tree.map(lambda leaf: leaf + 0.1, trained), held


@jax.jit
def _loss(params, batch):
    return answer_loss(small.MODEL, params, batch)


def test_nothing_is_left_out_but_in_a_step_whose_masks_are_its_own_and_those_of_its_tokens():
    trainable, trained, held = _dropping()
    batches = [small.batch(seed, 4) for seed in (0, 1)]
    plain = _loss(lora.merge(trainable.join(trained, held)), batches[0])
    np.testing.assert_allclose(_loss(trainable.join(trained, held), batches[0]), plain, rtol=1e-5)
    seen = [
        [float(_loss(trainable.join(trained, at_step(held, step)), batch)) for batch in batches] for step in (0, 1, 0)
    ]
    assert seen[0] == seen[2]
    assert len({plain.item(), *seen[0], *seen[1]}) == 5
    wanted = jax.random.fold_in(jax.random.fold_in(held.dropout.key, 5), batches[0].tokens.sum())
    assert at_step(held, 5).dropout.masks(batches[0].tokens) == wanted
    masks = [at_step(held, 0).dropout.masks(batches[0].tokens + added) for added in (0, 1)]
    assert masks[0] != masks[1]


def test_layers_and_projections_draw_masks_of_their_own():
    # Every layer and both projections leave out other entries: where all inputs are alike, so are their outputs otherwise.
    trainable, _, held = _dropping()
    keys = set()
    real = lora.dropped

    def seen(x, rate, key):
        jax.debug.callback(lambda data: keys.add(tuple(np.ravel(data).tolist())), jax.random.key_data(key))
        return real(x, rate, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("immunax.models.decoder.dropped", seen)
        params = trainable.join(trainable.split(small.params(), KEY)[0], at_step(held, 0))
        jax.jit(partial(answer_loss, small.MODEL))(params, small.batch(0, 4)).block_until_ready()
        jax.effects_barrier()
    assert len(keys) == 2 * small.CONFIG.n_layers


def test_a_step_is_by_the_loss_under_its_masks_and_micro_batches_have_their_own():
    trainable, trained, held = _dropping()
    optimizer, batches = AdamW(1e-2).build(4), [small.batch(seed, 4) for seed in (0, 1)]
    slope_at = accumulated(slope_of(partial(answer_loss, small.MODEL), trainable), 2, answer_tokens)
    state = begin(optimizer, trained, held)._replace(step=jnp.int32(3))
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *batches)
    state, seen = jax.jit(lambda state: train_step(slope_at, optimizer, state, both))(state)
    parts = [_loss(trainable.join(trained, at_step(held, 3)), batch) for batch in batches]
    weights = [batch.answer_weight.sum() for batch in batches]
    np.testing.assert_allclose(seen["loss"], np.average(parts, weights=weights), rtol=1e-5)
    assert state.held.dropout.drawn is None


def test_adapters_of_some_layers_train_alone():
    for layers in ((2, 0), 0.6):
        trainable, _, held = _dropping(0.0, layers=layers)
        numbers = (0, 2) if layers == (2, 0) else (0, 1)
        trained, held = trainable.split(small.params(), KEY)
        assert {leaf.shape[0] for leaf in jax.tree.leaves(trained)} == {2}
        assert held.layers.numbers == numbers
        leaf = trainable.join(trained, held).lora["layers"]["self_attn"]["q_proj"]["a"]
        assert [row for row in range(3) if leaf[row].any()] == list(numbers)
    # Zeros of other layers have zero gradients, so that whoever trains all rows leaves them where they are.
    adapted = trainable.join(jax.tree.map(lambda leaf: leaf + 0.1, trained), held)
    rows, base = WHOLE.split(adapted)
    gradient = jax.jit(jax.grad(lambda rows: answer_loss(small.MODEL, WHOLE.join(rows, base), small.batch(0, 4))))(rows)
    assert all(not leaf[2].any() and leaf[0].any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("layers", [(3,), (0, 0), (), 0.0, 1.5])
def test_layers_that_a_model_lacks_are_refused(layers):
    with pytest.raises(UserError, match="from 0 to 2, or a fraction of the 3 layers"):
        Adapters(LoraSpec(2, layers=layers)).split(small.params(), KEY)


def test_impossible_dropout_is_refused():
    with pytest.raises(UserError, match="0 <= dropout < 1"):
        LoraSpec(dropout=1.0)
