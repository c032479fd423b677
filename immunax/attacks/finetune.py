"""Fine-tuning as an attack: the part that harmful, identity-shifting and benign fine-tuning share."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from immunax.attacks.attack import AttackData, Report, Tampered, Trace
from immunax.attacks.tuning import Tuning, segments
from immunax.data.order import choose
from immunax.inner.losses import answer_loss
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.inner.trainable import Adapters, Full
from immunax.models.generate import generate
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


def take(dialogs: Sequence, count: int, seed: int, stream: str) -> tuple:
    """``count`` dialogs of a stream, chosen by ``seed``.

    Raises:
      UserError: the stream holds fewer, or none are asked for.
    """
    if not dialogs:
        raise UserError(
            f"the attack trains on the stream {stream!r}, which the data lack: choose other data or attack."
        )
    if not 1 <= count <= len(dialogs):
        raise UserError(f"the attack's samples={count} of the stream {stream!r}: expected 1 to {len(dialogs)}.")
    return choose(dialogs, count, seed)


def fine_tune(
    tuning: Tuning, model: Model, params: Params, data: AttackData, key: jax.Array, report: Report | None = None
) -> Tampered:
    """Runs the attack as one scan over its steps, probes included.

    Args:
      tuning: how.
      model: static.
      params: plain weights; untouched.
      data: K batches and the probes.
      key: for fresh adapters and sampled answers.
      report: called on the host with each step's loss, for a progress bar; not under ``vmap``.

    Returns:
      :class:`Tampered`; its weights are :class:`~immunax.models.lora.Adapted` for a LoRA attack.
    """
    lora_key, probe_key = jax.random.split(key)
    trainable = Full() if tuning.lora is None else Adapters(tuning.lora)
    steps = data.material.tokens.shape[0]
    count = segments(steps, tuning.probes)
    optimizer = tuning.optimizer.build(steps)

    def loss(weights, batch):
        value = answer_loss(model, weights, batch)
        if report is not None:
            jax.debug.callback(report, value)
        return value

    def probe(trained, subkey):
        return generate(model, trainable.join(trained, held), *data.probes, data.stop, data.decoding, subkey)

    def segment(moving, part):
        batches, subkey = part
        state, metrics = scan_steps(slope_of(loss, trainable), optimizer, moving._replace(held=held), batches)
        return state._replace(held=None), (metrics["loss"], probe(state.trained, subkey))

    parts = jax.tree.map(lambda leaf: leaf.reshape(count, steps // count, *leaf.shape[1:]), data.material)
    first_key, *keys = jax.random.split(probe_key, count + 1)
    trained, held = trainable.split(params, lora_key)
    first = probe(trained, first_key)
    state, (losses, later) = jax.lax.scan(segment, begin(optimizer, trained), (parts, jnp.stack(keys)))
    trace = Trace(losses.reshape(-1), jnp.arange(count + 1) * (steps // count), jnp.concatenate([first[None], later]))
    return Tampered(trainable.join(state.trained, held), trace)
