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
from immunax.outer.step_work import step_products, step_work
from immunax.runtime import console, goodput, performance
from immunax.runtime.mesh import data_ways, shard, shard_batch
from immunax.runtime.performance import Meter
from immunax.stages.kept import LOW, help_with_rows, real_tokens, record_counts


class OuterLoop:
    """The loop of one run on a mesh, under the meter of its phase.

    Args:
      phase: its name.
      model, defense, training: static.
      data: batches by step; their rows divide over the mesh.
      devices: over whose axes ``data`` and ``fsdp`` the examples are split.
    """

    def __init__(
        self, phase: str, model: Model, defense: Defense, training: outer.Training, data: Feed, devices: Mesh
    ) -> None:
        self._kinds, self._data, self._devices = (model, defense, training), data, devices
        self._meter = Meter(phase, "step", devices.size, model.dtype)
        self._products: float | None = None

    def begin(self, params: Params, base: Params | None = None) -> outer.OuterState:
        """The state before the first step, on the mesh.

        Args:
          params: where to start, on the mesh; untouched.
          base: the model as it was loaded, for a defense that refers to it; None where it is ``params``.

        Raises:
          UserError: an example is longer than the model's context.
        """
        model, defense, training = self._kinds
        check_longest(model, "an example that the defense trains on", self._data.longest)
        state = outer.begin(model, params, defense, training, self._placed(self._data.batch(0)), base)
        # All of it on the mesh, as steps leave it: a state that lies otherwise would compile the first step as another program.
        return shard(state, self._devices)

    def fit(
        self,
        state: outer.OuterState,
        log: Callable[[int, dict[str, float], dict[str, float]], None],
        stop: Callable[[int], bool] = lambda step: False,
    ) -> tuple[outer.OuterState, dict[str, float]]:
        """:func:`~immunax.outer.training.fit` under the meter.

        Args:
          state: donated.
          log: called after every step with the number of steps done, the step's scalars, and what it came to a second as
            :meth:`~immunax.runtime.performance.Meter.done` has it.
          stop: as there.
        """
        streams: dict[int, StreamBatch] = {}

        def batch(step: int) -> StreamBatch:
            streams[step] = self._data.batch(step)
            placed = self._placed(streams[step])
            if self._products is None and self._meter.is_read:
                self._products = step_products(*self._kinds, state, placed)
            return placed

        def noted(step: int, scalars: dict[str, float]) -> None:
            read, products = streams.pop(step - 1), self._products or 0.0
            log(step, scalars, self._meter.done(lambda: step_work(*self._kinds, read, products)))

        # Under the mesh the step says how its activations are split, see runtime/mesh.py.
        with jax.set_mesh(self._devices), self._meter.running():
            return outer.fit(*self._kinds, state, batch, noted, stop)

    def _placed(self, streams: StreamBatch) -> StreamBatch:
        stacked = shard_batch(streams.simulation, self._devices, axis=1)
        return shard_batch(streams._replace(simulation=None), self._devices)._replace(simulation=stacked)


def minimise(
    phase: str,
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
      phase: what its accounts call it.
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
    loop = OuterLoop(phase, model, defense, training, data, devices)
    state = loop.begin(params)
    with goodput.spending("prepare"), console.progress(title, training.steps, "step") as bar:

        def log(step: int, scalars: dict[str, float], rates: dict[str, float]) -> None:
            bar.advance(loss=scalars["loss"])

        state, _ = loop.fit(state, log)
    performance.end()
    return outer.released(model, defense, training, state, params)
