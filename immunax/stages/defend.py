"""The outer loop with its side effects: progress, metrics, checkpoints, preemption."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from immunax.models.model import Model, Params
from immunax.outer import training as outer
from immunax.outer.defense import Defense
from immunax.outer.feed import Feed
from immunax.runtime import console, goodput, performance
from immunax.runtime.checkpoint import Checkpoints
from immunax.runtime.mesh import shard
from immunax.runtime.metrics import Metrics
from immunax.runtime.parked import Parked
from immunax.runtime.preemption import Preemption
from immunax.stages.outer_loop import OuterLoop

PHASE, RATE = "train", "train/rate"
"""What the steps are logged under: what they computed, which another run has too, and how fast, which none has."""


class Defended(NamedTuple):
    """What a run ended with.

    Attributes:
      params: its weights, plain.
      adapters: those that were merged into them, as :attr:`~immunax.models.lora.Adapted.lora`; None where none were trained.
      stopped: the exit status that it was asked for meanwhile (and saved), else None.
    """

    params: Params
    adapters: Any
    stopped: int | None


def defend(
    model: Model,
    start: Parked,
    defense: Defense,
    training: outer.Training,
    data: Feed,
    devices: Mesh,
    metrics: Metrics,
    directory: Path,
    base: Parked | None = None,
) -> Defended:
    """Trains a defense, resuming from the newest whole checkpoint in ``directory`` if there is one.

    A run that is killed and started again ends with the very bits of one that was not: the checkpoint holds the whole
    state, and the data of a step are a function of its number.

    Args:
      model: static.
      start: the weights to start from, on the mesh; untouched, and parked while steps need the room.
      defense, training: what is minimised, and the budget.
      data: batches by step.
      devices: over whose axes ``data`` and ``fsdp`` the examples are split.
      metrics: where each step's scalars go, under the phase ``train``, and how fast it was, under ``train/rate``.
      directory: of the checkpoints.
      base: those that were loaded, for a defense that refers to them; None where they are those of the start.

    Raises:
      UserError: the loss is not finite, a checkpoint is of another run, all are damaged, or the disk is full.
    """
    loop = OuterLoop(PHASE, model, defense, training, data, devices)
    with goodput.spending("prepare"):
        state = loop.begin(start.here(), base and base.here())
        for each in (start, base):
            if each is not None:
                each.park()
    with (
        Preemption() as preemption,
        goodput.spending("save"),  # its end waits for the last of them
        Checkpoints(directory, training.keep_last, training.keep_best, metric="loss") as checkpoints,
    ):
        done = 0
        with goodput.spending("restore"):
            like = _exact(model, defense, training, state, start)
            found = checkpoints.restore_newest(like)
        if found:
            done, state = found
            state = outer.computed(model, defense, training, state, start.there())
            # As it was before the first step: what was parked is on the mesh again.
            state = state._replace(train=state.train._replace(held=shard(state.train.held, devices)))
            console.note(f"resuming from step {done} of {training.steps}")
        goodput.resumed(done, again=metrics.resume(PHASE, done))
        metrics.resume(RATE, done)
        with console.progress("immunize", training.steps, "step") as bar:
            bar.advance(done)

            def log(step: int, scalars: dict[str, float], rates: dict[str, float]) -> None:
                if rates:
                    metrics.log(step, RATE, rates)
                metrics.log(step, PHASE, scalars)
                bar.advance(loss=scalars["loss"])

            def stop(step: int) -> bool:
                return preemption.stops(step) or step % training.checkpoint_every == 0

            while done < training.steps and not preemption.stops(done):
                with goodput.spending("step"):
                    state, scalars = loop.fit(state, log, stop)
                done = int(state.train.step)
                metrics.send()
                checkpoints.save(done, _exact(model, defense, training, state, start), scalars)
                goodput.keep(done)
        stopped = preemption.status()
    performance.end()
    params = jax.block_until_ready(outer.released(model, defense, training, state, start.here()))
    return Defended(params, outer.adapters(model, defense, training, state), stopped)


def _exact(
    model: Model, defense: Defense, training: outer.Training, state: outer.OuterState, start: Parked
) -> outer.OuterState:
    return outer.exact(model, defense, training, state, start.there())
