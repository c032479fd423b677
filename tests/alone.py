"""An attack by the plainest loop, as a reference for whatever runs it otherwise."""

import jax
import jax.numpy as jnp
import optax
import tiny

from immunax.models import lora


def descend(attack, model, params, splits, key):
    """The attacked weights, and the losses before every step."""
    batches, _ = attack.examples(tiny.tokenizer(), splits)
    layout = attack.fit(batches)
    spec, adapter_key = attack.tuning.lora, jax.random.split(key)[0]
    fresh = params if spec is None else lora.init(adapter_key, params, spec)

    def whole(trained, number=None):
        if spec is None:
            return trained
        dropout = None
        if spec.dropout and number is not None:
            key = jax.random.fold_in(adapter_key, 1)
            dropout = lora.Dropout(jnp.float32(spec.dropout), key).at(number)
        return fresh._replace(lora=trained, dropout=dropout)

    optimizer = attack.tuning.optimizer.build(len(batches))
    trained = params if spec is None else fresh.lora
    state, losses = optimizer.init(trained), []

    @jax.jit
    def step(trained, state, batch, number):
        value, gradient = jax.value_and_grad(lambda part: attack.loss(model, whole(part, number), batch))(trained)
        updates, state = optimizer.update(gradient, state, trained)
        return optax.apply_updates(trained, updates), state, value

    for number, batch in enumerate(batches):
        trained, state, value = step(trained, state, attack.lay(batch, layout), number)
        losses.append(value)
    return whole(trained), jnp.stack(losses)
