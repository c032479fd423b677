"""What an outer step computes, counted from its data: one gradient step on every example, whatever the defense adds to that."""

from collections.abc import Sequence

from immunax.data.batches import Batch, sizes
from immunax.models.flops import training_flops
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.outer.defense import Defense, StreamBatch
from immunax.outer.training import OuterState, Training, outer_step
from immunax.runtime.jaxpr_flops import countable_flops
from immunax.runtime.phase import Work


def step_work(model: Model, defense: Defense, training: Training, batch: StreamBatch, products: float) -> Work:
    """The work of one outer step.

    Its FLOPs are those of a gradient step on each example of the streams, of the simulated attack's steps and of its checks, and
    never more than what the program computes: a defense that reads half of the layers needs less.

    Args:
      model, defense, training: of the run.
      batch: of the step, on the host.
      products: from :func:`step_products`.
    """
    simulated = batch.simulation
    streams = [each for each in (batch.safe, batch.harmful, batch.retain) if each is not None]
    # A simulated attacker's harmless batches take the place of harmful ones, at the same steps.
    inner = [] if simulated is None else [simulated.harmful]
    checks = (
        [] if simulated is None else [each for each in (simulated.checks, simulated.safe_checks) if each is not None]
    )
    flops = _training(model, [*streams, *checks], training.lora) + _training(model, inner, _attacker_lora(defense))
    read = [*streams, *inner, *checks]
    return Work(
        1,
        sum(int((each.segment_ids > 0).sum()) for each in read),
        sum(each.segment_ids.size for each in read),
        min(flops, products or flops),
        products,
    )


def step_products(model: Model, defense: Defense, training: Training, state: OuterState, batch: StreamBatch) -> float:
    """Operations of the matrix products in the program of an outer step, on all devices together; 0 where they depend on numbers.

    The program is traced, as its first call would; that call finds it traced.

    Args:
      model, defense, training, state, batch: as for :func:`~immunax.outer.training.outer_step`.
    """
    return countable_flops(outer_step.trace(model, defense, training, state, batch).jaxpr)


def _training(model: Model, batches: Sequence[Batch], lora: LoraSpec | None) -> float:
    return training_flops(model.config, [size for batch in batches for size in sizes(batch)], lora)


def _attacker_lora(defense: Defense) -> LoraSpec | None:
    """The adapters of a simulated attacker; None where he trains whole weights, or is of several kinds."""
    kinds = () if defense.attacker is None else defense.attacker.attackers()
    return kinds[0].lora if len(kinds) == 1 else None
