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
    fresh = params if attack.tuning.lora is None else lora.init(jax.random.split(key)[0], params, attack.tuning.lora)

    def whole(trained):
        return trained if attack.tuning.lora is None else fresh._replace(lora=trained)

    optimizer = attack.tuning.optimizer.build(len(batches))
    trained = params if attack.tuning.lora is None else fresh.lora
    state, losses = optimizer.init(trained), []

    @jax.jit
    def step(trained, state, batch):
        value, gradient = jax.value_and_grad(lambda part: attack.loss(model, whole(part), batch))(trained)
        updates, state = optimizer.update(gradient, state, trained)
        return optax.apply_updates(trained, updates), state, value

    for batch in batches:
        trained, state, value = step(trained, state, attack.lay(batch, layout))
        losses.append(value)
    return whole(trained), jnp.stack(losses)
