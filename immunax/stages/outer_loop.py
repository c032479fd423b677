"""The outer loop on a mesh, and its plain use for what is made once and cached: pretraining, and implanting a guard."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from immunax.data.dialog import Split
from immunax.data.packing import total
from immunax.inner.context import check_longest
from immunax.models.model import Model, Params
from immunax.outer import training as outer
from immunax.outer.defense import Defense, StreamBatch
from immunax.outer.feed import Feed, feed
from immunax.runtime import console, goodput
from immunax.runtime.mesh import data_ways, shard, shard_batch
from immunax.stages.kept import LOW, help_with_rows, real_tokens, record_counts


def begin(
    model: Model,
    params: Params,
    defense: Defense,
    training: outer.Training,
    data: Feed,
    devices: Mesh,
    base: Params | None = None,
) -> tuple[outer.OuterState, Callable[[int], StreamBatch]]:
    """The state before the first step and the batches by step, both on a mesh.

    Args:
      model, defense, training: static.
      params: where to start, on the mesh; untouched.
      data: batches by step; their rows divide over the mesh.
      devices: over whose axes ``data`` and ``fsdp`` the examples are split.
      base: the model as it was loaded, for a defense that refers to it; None where it is ``params``.

    Raises:
      UserError: an example is longer than the model's context.
    """
    check_longest(model, "an example that the defense trains on", data.longest)

    def batch(step: int) -> StreamBatch:
        streams = data.batch(step)
        stacked = shard_batch(streams.simulation, devices, axis=1)
        return shard_batch(streams._replace(simulation=None), devices)._replace(simulation=stacked)

    # All of it on the mesh, as steps leave it: a state that lies otherwise would compile the first step as a program of its own.
    return shard(outer.begin(model, params, defense, training, batch(0), base), devices), batch


def minimise(
    title: str,
    model: Model,
    params: Params,
    tokenizer: Any,
    split: Split,
    defense: Defense,
    training: outer.Training,
    devices: Mesh,
) -> Params:
    """Trains weights under a progress bar.

    Args:
      title: of the bar.
      model: static.
      params: where to start, on the mesh; untouched.
      tokenizer: the model's.
      split: training data.
      defense, training: what is minimised, and the budget.
      devices: the mesh, over whose axes ``data`` and ``fsdp`` the examples are split.

    Returns:
      The weights after the last step.

    Raises:
      UserError: the data lack a stream, or the loss is not finite.
    """
    data = feed(tokenizer, split, defense.mixture, training, data_ways(devices))
    record_counts(data.counts, dict.fromkeys(data.counts, f"max_length={training.max_length}"))
    if total(data.tokens.values()).share < LOW:
        console.note(real_tokens(title, data.tokens, help_with_rows(defense.mixture, data_ways(devices))))
    state, batch = begin(model, params, defense, training, data, devices)
    with goodput.spending("prepare"), console.progress(title, training.steps, "step") as bar:

        def log(step: int, scalars: dict[str, float]) -> None:
            bar.advance(loss=scalars["loss"])

        # Under the mesh the step says how its activations are split, see runtime/mesh.py.
        with jax.set_mesh(devices):
            state, _ = outer.fit(model, defense, training, state, batch, log)
    return outer.released(model, defense, training, state)
