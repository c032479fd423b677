"""What some steps of members that run together compute."""

from immunax.campaign.programs import Program
from immunax.models.flops import training_flops
from immunax.models.model import Model
from immunax.runtime.phase import Work


def turn_work(
    part: Program, model: Model, turn: tuple[int, int], shared: bool, products: float, steps: tuple[int, int]
) -> Work:
    """The work of a stretch of a turn; the steps of each member count.

    Args:
      part: the members.
      model: gives the shape that FLOPs are counted from.
      turn: its first member, and how many it computes: those past the last one are copies, and all of theirs is padding.
      shared: whether members shared first steps, by :func:`~immunax.campaign.first_steps.share_first_steps`.
      products: operations of the matrix products of one step of all of them, which useful ones are never more than; 0 for
        unknown.
      steps: ``[begin, end)``.
    """
    (first, width), (begin, end) = turn, steps
    tokens, flops = 0, 0.0
    members = range(first, min(first + width, len(part.places)))
    for member in members:
        examples = part.trained_on(member, begin, end, shared)
        tokens += sum(size for size, _ in examples)
        flops += training_flops(model.config, examples, part.attacks[member].tuning.lora)
    count = end - begin
    computed, all_products = count * width * part.tokens_a_step, count * products
    return Work(count * len(members), tokens, computed, min(flops, all_products or flops), all_products)
