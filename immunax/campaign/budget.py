"""What a search spent, counted after the fact: which members went on is known only then."""

from collections.abc import Sequence
from typing import NamedTuple

from immunax.campaign.programs import Program
from immunax.data.batches import Batch, sizes
from immunax.inner.halving import Ranked
from immunax.models.flops import forward_flops, training_flops
from immunax.models.model import Model


class Budget(NamedTuple):
    """What a search spent.

    Attributes:
      steps: optimizer steps, over all members.
      tokens: tokens trained on, over all members, padding not counted.
      flops: of training and of ranking, from the model's shape.
    """

    steps: int
    tokens: int
    flops: float

    def plus(self, other: "Budget") -> "Budget":
        """Both together."""
        return Budget(self.steps + other.steps, self.tokens + other.tokens, self.flops + other.flops)


def spent(
    part: Program,
    seen: Sequence[Ranked],
    model: Model,
    measured: Sequence[Sequence[Batch]],
) -> Budget:
    """What the members of one program spent.

    The first step of members that start alike is counted once: whoever searches need not compute it twice.

    Args:
      part: the members.
      seen: what each rung of their search saw.
      model: gives the shape that FLOPs are counted from.
      measured: by member, the batches that it was ranked by in every rung.
    """
    ranking = [sum(forward_flops(model.config, sizes(batch)) for batch in each) for each in measured]
    budget = Budget(0, 0, 0.0)
    for ranked in seen:
        _, begin, end = ranked.rung
        for index in ranked.places:
            examples = part.trained_on(index, begin, end, shared=True)
            training = training_flops(model.config, examples, part.attacks[index].tuning.lora)
            tokens = sum(size for size, _ in examples)
            budget = budget.plus(Budget(end - begin, tokens, training + ranking[index]))
    return budget
